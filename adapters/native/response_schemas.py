"""Types of what /api/v1 answers, of which the OpenAPI document is made. Knows no job.

Source: the /api/v1 sections of the MFLUX API documentation; fields that it does not have are the gateway's own.
"""

from __future__ import annotations

from typing import Any, Literal, NotRequired

from typing_extensions import TypedDict

from gateway.jobs.drawing import Drawing

Status = Literal["queued", "generating", "completed", "failed", "cancelled"]
PriorityName = Literal["background", "low", "normal", "high"]
JobType = Literal["txt2img", "img2img", "upscale", "load", "ocr", "download"]
Value = str | int | float | None


class Problem(TypedDict):
    """Every refusal. `details["param"]` names the field at fault where there is one."""

    error: str
    code: str
    details: dict[str, Any]


class AdjustmentShown(TypedDict):
    """Something that was not done as asked."""

    param: str
    asked: Value
    used: Value
    reason: str


class ProgressShown(TypedDict):
    """How far a running job is. `progress` is 0 to 1 over all its pictures; `phase` is waiting, downloading, loading,
    denoising, decoding or reading. `download` is there while the model comes from the hub, of waiting jobs, too."""

    progress: float
    percent: int
    phase: str
    image: int
    total_images: int
    step: int
    steps: int
    eta_seconds: float | None
    download: NotRequired[BytesShown]


class BytesShown(TypedDict):
    """How far a download is; `eta_seconds` is until the model is here."""

    model: str
    done_bytes: int
    total_bytes: int
    bytes_per_second: int | None
    percent: int


class ForecastShown(TypedDict):
    """Seconds from now: until it is done, until it begins, and between which two it is done in nine cases of ten.

    Where the queue is paused they count from the moment that it goes on.
    """

    eta_seconds: float
    wait_seconds: float
    earliest_seconds: float
    latest_seconds: float


class PageShown(TypedDict):
    """One page that was read; `page` is its number in the PDF, null for a picture.

    `unread` are the boxes of lines that were found and not read, each with its `reason`: `unsure` or `time`.
    """

    page: int | None
    width: int
    height: int
    lines: list[dict[str, Any]]
    unread: list[dict[str, Any]]


class Result(TypedDict, total=False):
    """Pictures as base64 PNG with their seeds, null where one was removed since; or text with its pages.

    `damaged` numbers those whose files are not what was written: they are null, too, and `retry` draws them again.
    """

    images: list[str | None]
    damaged: list[int]
    seeds: list[int]
    drawn_px: list[list[int]]
    text: str
    pages: list[PageShown]


class ErrorDetail(TypedDict):
    code: str
    message: str


class LoraWorn(TypedDict):
    name: str
    scale: float


class JobShown(TypedDict):
    """A job. `position` counts the jobs before it; it and `eta_seconds` are null once it has ended. Times are UTC.

    `waits_for` says why nothing begins: the engine is down, a disk is full, the queue is paused. Nothing is foretold
    while the engine is down.
    """

    id: str
    job_id: str
    type: JobType
    status: Status
    progress: float
    position: int | None
    eta_seconds: float | None
    model: str
    protocol: str
    priority: PriorityName
    created_at: str | None
    started_at: str | None
    completed_at: str | None
    seconds: float | None
    attempt: int
    adjustments: list[AdjustmentShown]
    prompt: NotRequired[str]
    width: NotRequired[int]
    height: NotRequired[int]
    steps: NotRequired[int]
    guidance: NotRequired[float]
    seeds: NotRequired[list[int]]
    loras: NotRequired[list[LoraWorn]]
    progress_detail: NotRequired[ProgressShown]
    waits_for: NotRequired[str]
    forecast: NotRequired[ForecastShown]
    image_ids: NotRequired[list[str]]
    image_urls: NotRequired[list[str]]
    error: NotRequired[str]
    error_detail: NotRequired[ErrorDetail]
    result: NotRequired[Result]


class Submitted(JobShown):
    """The job that was made; `ignored` names fields that nobody here knows."""

    ignored: list[str]


class Jobs(TypedDict):
    """One page, the newest first; `next_cursor` asks for the one after it and is null at the end."""

    jobs: list[JobShown]
    next_cursor: str | None


class Ended(TypedDict):
    """How a job ended that was to be cancelled: it may have been done before.

    `stored` is false, under a 202, where the work has stopped and the disk does not take it yet: it will be stored as
    soon as it can, and a restart before that runs the job again.
    """

    status: Status
    job_id: str
    stored: NotRequired[Literal[False]]


class Ticket(TypedDict):
    """`url` can be opened once without a key, until `expires_at`."""

    ticket: str
    url: str
    expires_at: str


class Uploaded(TypedDict):
    """A stored input picture: its id can stand where a picture is expected, and is kept for an hour, or as long as a
    job on record names it. `bytes` is the room it takes."""

    id: str
    width: int
    height: int
    bytes: int
    expires_at: str


class PictureShown(TypedDict):
    """A finished picture. `drawing` says how it was drawn, in the words of `POST generate`; null where
    a picture was enlarged that did not say. `image_strength`, `init_image`, `mask`, `reference_images`, `control`,
    `negative_prompt`, `loras` and `enlarged` are there where they count. `damaged`: its file is not what was
    written; it is not served, and `retry` of its job draws it again. `adjustments` are its job's.
    """

    id: str
    url: str
    job_id: str
    image: int
    type: JobType
    protocol: str
    model: str
    seed: int
    width: int
    height: int
    seconds: float
    created_at: str
    damaged: bool
    adjustments: list[AdjustmentShown]
    drawing: Drawing | None


class Images(TypedDict):
    """The newest first; `next_cursor` asks for the page after and is null at the end."""

    images: list[PictureShown]
    next_cursor: str | None


class Deleted(TypedDict):
    id: str
    deleted: bool


class Provenance(TypedDict):
    """How the picture was drawn, as its file says: all of it where it was drawn here, by another program what that one
    wrote; null where it does not say.
    """

    drawing: Drawing | None


class EngineShown(TypedDict):
    state: str
    device: str | None
    reason: str | None


class Health(TypedDict):
    status: Literal["healthy", "unhealthy"]
    version: str
    models_available: int
    default_model: str
    embedded: bool
    active_jobs: int
    queue_length: int
    engine: EngineShown


class MemoryShown(TypedDict):
    """Of the machine, in GiB; null where the system does not tell."""

    total: float
    used: float | None
    free: float | None


class DamagedRecords(TypedDict):
    """Job records that cannot be read and were set aside; `ids` are yours, or everybody's where you may operate."""

    count: int
    ids: list[str]


class FindingShown(TypedDict):
    """One thing that is wrong, and what to do; `broken`: nothing is drawn, or taken, until it is mended."""

    what: str
    health: Literal["ok", "note", "broken"]
    found: str
    remedy: str


class Findings(TypedDict):
    """What is wrong now, what stops work first; none: all is well."""

    findings: list[FindingShown]


class DefaultShown(TypedDict):
    """The model of requests that name none, which does not change while the gateway runs; in gigabytes of 10^9 bytes.

    `needed_gb` is of one picture at the model's own size, `limit_gb` what models and pictures may take, known from
    `limit_from`. `low_ram` says that it is drawn so, since it fits only so or the settings say it. `any_prompt` is the
    best model that fits of those that draw more than a list of things.
    """

    name: str
    chosen_by: Literal["operator", "gateway"]
    needed_gb: float
    limit_gb: float
    limit_from: Literal["setting", "device", "estimate"]
    fits: bool
    low_ram: bool
    suggestion: str | None
    any_prompt: str | None
    sentence: str


class System(TypedDict):
    """`mlx_memory_gb` is what MLX held after the last picture; null before there was one. `storage_fault` is why no
    picture can be stored now; null where it can.
    """

    active_model: str | None
    mlx_memory_gb: float | None
    mlx_peak_memory_gb: float | None
    system_memory_gb: MemoryShown
    device: str | None
    default_model: DefaultShown
    engine: EngineShown
    queue_depth: int
    damaged_records: DamagedRecords
    storage_fault: str | None


class Brief(TypedDict):
    job_id: str
    type: JobType
    prompt: str | None
    model: str
    priority: PriorityName


class Active(Brief, ProgressShown):
    """The job that runs."""


class Waiting(Brief):
    """`position` counts the jobs before it, whosever they are."""

    position: int
    eta_seconds: float | None


class Queue(TypedDict):
    """Your own jobs by name, everybody's by count."""

    active: Active | None
    queued: list[Waiting]
    running_count: int
    pending_count: int
    paused: bool


class Paused(TypedDict):
    paused: bool


class ForecastRecord(TypedDict):
    """How good the forecasts told at submit have been: how many jobs they were held against, the median error of the
    time until done and until begun, relative to what it was, and how many were done within their interval."""

    count: int
    median_error: float | None
    median_wait_error: float | None
    coverage: float | None


class Stats(TypedDict):
    """Of all jobs on record, whosever they are."""

    total_generations: int
    total_images: int
    average_time_seconds: float | None
    uptime_hours: float
    by_status: dict[Status, int]
    forecast: ForecastRecord
