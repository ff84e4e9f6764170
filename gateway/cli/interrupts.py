"""Interrupts (Ctrl-C) of a command whose job the gateway has accepted."""

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
    """Submit a job, and call `stopped` after an interrupt. Raises: Failure, that of `stopped` after an interrupt.

    Interrupts are blocked until the response is there: without its id the job could not be cancelled.
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
