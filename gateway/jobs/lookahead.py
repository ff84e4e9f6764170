"""Lookahead in the queue: jobs of the loaded model run before jobs of other models, within bounds. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence

from gateway.jobs.order import Waiting


def grouped(
    line: Sequence[Waiting], level: Callable[[Waiting], int], most: int, loaded: str | None, passed: Mapping[str, int]
) -> Iterator[Waiting]:
    """The queue in the order of service: each time the first job of the loaded model among the first `most` + 1 runs.

    No job is passed more than `most` times, those in `passed` included, and none by a job of a lower class.
    """
    waiting, counts = iter(line), dict(passed)
    window: list[Waiting] = []
    while True:
        while len(window) <= most and (job := next(waiting, None)) is not None:
            window.append(job)
        if not window:
            return
        place = _place(window, level, most, loaded, counts)
        for other in window[:place]:
            counts[other.id] = counts.get(other.id, 0) + 1
        job = window.pop(place)
        yield job
        loaded = job.model


def _place(
    window: Sequence[Waiting],
    level: Callable[[Waiting], int],
    most: int,
    loaded: str | None,
    passed: Mapping[str, int],
) -> int:
    """The index in the window of the job to be served next."""
    for place, job in enumerate(window):
        if level(job) != level(window[0]):
            break
        if job.model == loaded:
            return place
        if passed.get(job.id, 0) >= most:
            break
    return 0
