"""How long a task will take, from what recent jobs took. Pure; knows no store.

One number is known of a model: seconds for a pixel of a step, the median over its last pictures. Each job counts once:
a running one by the steps it still has, a waiting one whole.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from statistics import median

from engine.protocol import Generate
from gateway.job import Job, Plans, Progress

FIRST_GUESS_S = 80 / (1024 * 1024 * 4)
"""Seconds for a pixel of a step before anything was drawn. Source: mflux-server's start value, 80 s for 1024x1024."""

Pace = Mapping[str, float]
"""Seconds for a pixel of a step, by model."""


def pace_of(done: Iterable[Job]) -> Pace:
    """What the finished jobs say; the time a model took to load is in some of them, which the median forgives."""
    seen: dict[str, list[float]] = {}
    for job in done:
        if isinstance(job.plan, Generate) and job.seconds and (work := _pixel_steps(job.plan)):
            seen.setdefault(job.plan.model, []).append(job.seconds / work)
    return {model: median(seconds) for model, seconds in seen.items()}


def whole_s(plan: Plans, pace: Pace) -> float:
    """Seconds for a job that has not begun. Loading a model and reading text count as nothing: they are not known."""
    return _pixel_steps(plan) * pace.get(plan.model, FIRST_GUESS_S) if isinstance(plan, Generate) else 0.0


def left_s(job: Job, progress: Progress | None, pace: Pace, now: float) -> float:
    """Seconds that a running job still needs; `now` in Unix seconds. By its own steps where some are done."""
    if progress is not None and progress.seconds_left is not None:
        return progress.seconds_left
    return max(0.0, whole_s(job.plan, pace) - (now - (job.started_at or now)))


def wait_s(job_id: str, running_left_s: float, waiting: Sequence[Job], pace: Pace) -> float:
    """Seconds until a waiting job is done: the running one, those before it, and itself."""
    total = running_left_s
    for job in waiting:
        total += whole_s(job.plan, pace)
        if job.id == job_id:
            break
    return total


def _pixel_steps(plan: Generate) -> int:
    work = plan.width_px * plan.height_px * plan.steps
    if plan.second_pass is not None:
        work += plan.second_pass.width_px * plan.second_pass.height_px * plan.second_pass.steps
    return work * len(plan.seeds)
