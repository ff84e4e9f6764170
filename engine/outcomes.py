"""Outcome of a job in the child process: an error becomes a sentence fit for a client; the exception goes to stderr."""

from __future__ import annotations

import errno
import logging
from collections.abc import Callable
from pathlib import Path

from engine.drawing.base import BackendError, JobCancelled
from engine.protocol import Cancelled, Failed, Run, Succeeded

log = logging.getLogger("engine.worker")

Outcome = Succeeded | Failed | Cancelled
FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})


def outcome_of(run: Run, work: Callable[[], object], free_memory: Callable[[], None]) -> Outcome:
    """Do the work of a job. `free_memory` is called where there was not enough."""
    try:
        work()
        return Succeeded()
    except JobCancelled:
        return Cancelled()
    except BackendError as error:
        log.warning("job %s: %s", run.job, error.code, exc_info=True)
        return Failed(code=error.code, message=error.message)
    except MemoryError:
        log.exception("job %s: out of memory", run.job)
        free_memory()
        return Failed(code="engine_oom", message="There is not enough memory to draw this picture.")
    except Exception as error:
        log.exception("job %s failed", run.job)
        if isinstance(error, OSError) and error.errno in FULL:
            return Failed(code="disk_full", message="The disk is full.")
        if _is_below(error, run.spool_dir):
            return Failed(code="storage_fault", message="The spool folder is missing or cannot be used.")
        return Failed(code="internal_error", message="The engine could not draw this picture.")


def _is_below(error: Exception, folder: str) -> bool:
    """Whether an OSError is about a file below this folder."""
    name = error.filename if isinstance(error, OSError) and error.errno is not None else None
    return isinstance(name, str) and Path(name).is_relative_to(folder)
