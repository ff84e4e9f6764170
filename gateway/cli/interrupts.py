"""Ctrl-C and a job: from the moment the gateway has taken it, an interrupt meets it."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from gateway.cli.failure import Failure
from gateway.cli.remote import Remote

INTERRUPTS = {signal.SIGINT, signal.SIGTERM}


@contextmanager
def submitted(
    remote: Remote, path: str, body: dict[str, Any], stopped: Callable[[dict[str, Any]], Failure]
) -> Iterator[dict[str, Any]]:
    """Send a job, and see to it when it is interrupted. Raises: Failure, that of `stopped` after an interrupt.

    Until the answer is there interrupts wait: a job whose id nobody knows could not be cancelled.
    """
    before = signal.signal(signal.SIGTERM, _interrupt)
    unblocked = signal.pthread_sigmask(signal.SIG_BLOCK, INTERRUPTS)
    try:
        job = remote.post(path, body)
        try:
            signal.pthread_sigmask(signal.SIG_SETMASK, unblocked)
            yield job
        except KeyboardInterrupt:
            raise stopped(job) from None
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, unblocked)
        signal.signal(signal.SIGTERM, before)


def _interrupt(*_: object) -> None:
    raise KeyboardInterrupt
