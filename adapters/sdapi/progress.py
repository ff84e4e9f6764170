"""Progress responses: A1111's one global progress, and that of a task. Pure; other clients' previews are not shown."""

from __future__ import annotations

import time

from adapters.sdapi.response_schemas import Progress as ProgressBody
from adapters.sdapi.response_schemas import Row, TaskShown
from engine.protocol import Generate, Upscale
from gateway.jobs.job import Job, Progress, State

BEFORE_DRAWING = {"waiting": "Waiting...", "downloading": "Downloading the model", "loading": "Loading the model"}
"""`textinfo` in the phases before the first step. Source: A1111 1.10.1 `shared.state.textinfo`."""


def progress_of(
    job: Job | None, progress: Progress | None, *, owner: str, with_image: bool, skipped: bool = False
) -> ProgressBody:
    """The answer of GET /progress; `job` is the engine's running job, of any owner.

    Source: A1111 1.10.1 progressapi; `current_image` is bare base64 of a small JPEG.
    """
    if job is None:
        return _body(0.0, 0.0, _state("", 0))
    is_own = job.owner == owner
    if progress is None:
        return waiting_of(job, "Waiting...", 0.0) if is_own else _body(0.0, 0.0, _state("another client's job", 1))
    passes, at, step, steps = _pass(job, progress)
    state = _state(
        _name(job, progress) if is_own else "another client's job",
        progress.images * passes,
        skipped=skipped and is_own,
        job_timestamp=timestamp(job.started_at or job.created_at),
        job_no=min(progress.image, progress.images - 1) * passes + at,
        sampling_step=step,
        sampling_steps=steps,
        interrupted=job.cancel_requested is not None,
    )
    preview = progress.preview.jpeg_base64 if with_image and is_own and progress.preview else None
    text = BEFORE_DRAWING.get(progress.phase) if is_own else None
    return _body(min(1.0, 0.01 + progress.fraction), progress.seconds_left or 0.0, state, preview, text)


def waiting_of(job: Job, text: str, eta_s: float) -> ProgressBody:
    """The answer of GET /progress for the caller's own waiting job while no job runs; `text` is the reason."""
    images = len(job.plan.seeds) if isinstance(job.plan, Generate) else 1
    state = _state(_kind(job), images, job_timestamp=timestamp(job.created_at))
    return _body(0.0, eta_s, state, text=text)


def running_task(progress: Progress, *, seen: int, with_image: bool) -> TaskShown:
    """The progress of a running task; `seen` is the id of the preview that the client has.

    Source: A1111 1.10.1 modules/progress.py ProgressResponse.
    """
    preview, newest = progress.preview, -1
    if preview is not None:
        newest = preview.image * 1000 + preview.step
    is_new = with_image and preview is not None and newest != seen
    return {
        "active": True,
        "queued": False,
        "completed": False,
        "progress": min(1.0, progress.fraction),
        "eta": progress.seconds_left,
        "live_preview": f"data:image/jpeg;base64,{preview.jpeg_base64}" if preview and is_new else None,
        "id_live_preview": newest if is_new else seen,
        "textinfo": None,
    }


def waiting_task(state: State | None, place: tuple[int, int] | None, reason: str | None = None) -> TaskShown:
    """The progress of a task that is not running: waiting, ended or unknown. `reason`: why no job begins."""
    queued = state in (State.QUEUED, State.RUNNING)
    text = reason or (f"In queue: {place[0]}/{place[1]}" if queued and place else "Waiting...")
    return {
        "active": False,
        "queued": queued,
        "completed": state is not None and state.terminal,
        "progress": None,
        "eta": None,
        "live_preview": None,
        "id_live_preview": -1,
        "textinfo": text,
    }


def timestamp(at: float) -> str:
    """The Unix time in seconds as local `YYYYMMDDHHMMSS`."""
    return time.strftime("%Y%m%d%H%M%S", time.localtime(at))


def _pass(job: Job, progress: Progress) -> tuple[int, int, int, int]:
    """The number of passes of an image, the current pass, and its step and steps.

    Source: A1111 1.10.1: hires fix doubles job_count, SD upscale has one pass for each batch of tiles.
    """
    plan = job.plan
    if not isinstance(plan, Generate):
        return 1, 0, progress.step, progress.steps
    if plan.tiles is not None and progress.steps:
        count = plan.tile_count
        each = max(1, progress.steps // count)
        at = min(max(0, progress.step - 1) // each, count - 1)
        return count, at, progress.step - at * each, each
    if plan.second_pass is None:
        return 1, 0, progress.step, progress.steps or plan.steps
    if progress.step <= plan.steps:
        return 2, 0, progress.step, plan.steps
    return 2, 1, progress.step - plan.steps, progress.steps - plan.steps


def _name(job: Job, progress: Progress) -> str:
    if isinstance(job.plan, Generate) and progress.images > 1:
        return f"Batch {min(progress.image + 1, progress.images)} out of {progress.images}"
    return _kind(job)


def _kind(job: Job) -> str:
    if isinstance(job.plan, Upscale):
        return "extras"
    if not isinstance(job.plan, Generate):
        return "load_model"
    return "scripts_txt2img" if job.plan.init_image is None else "scripts_img2img"


def _state(
    job: str,
    job_count: int,
    *,
    job_timestamp: str = "0",
    job_no: int = 0,
    sampling_step: int = 0,
    sampling_steps: int = 0,
    interrupted: bool = False,
    skipped: bool = False,
) -> Row:
    return {
        "skipped": skipped,
        "interrupted": interrupted,
        "stopping_generation": interrupted,
        "job": job,
        "job_count": job_count,
        "job_timestamp": job_timestamp,
        "job_no": job_no,
        "sampling_step": sampling_step,
        "sampling_steps": sampling_steps,
    }


def _body(progress: float, eta_s: float, state: Row, image: str | None = None, text: str | None = None) -> ProgressBody:
    return {
        "progress": progress,
        "eta_relative": eta_s,
        "state": state,
        "current_image": image,
        "textinfo": text,
    }
