"""A job: its states, the transition table, and the fold of its events. No I/O, no clock."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, fields, replace
from enum import IntEnum, StrEnum
from operator import attrgetter
from typing import Any

from pydantic import TypeAdapter

from engine.protocol import (
    UNCACHED,
    Cancelled,
    CancelReason,
    Decoding,
    Failed,
    Generate,
    Load,
    ModelLoaded,
    ModelLoading,
    Preview,
    PromptRead,
    StepDone,
    Succeeded,
    Upscale,
)
from gateway.jobs.facts import (
    CancelRequested,
    ImageDone,
    ModelDownloading,
    PageRead,
    ProgressFact,
    Queued,
    Reading,
    Requeued,
    Started,
    StateFact,
)
from gateway.jobs.plans import Download, Ocr, Plan
from gateway.jobs.prompt_reading import to_adjustments
from gateway.jobs.resolve import Adjustment


class State(StrEnum):
    """The state of a job. Each protocol has its own names for the states, in its adapter."""

    QUEUED = "queued"
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"

    @property
    def terminal(self) -> bool:
        return self in (State.SUCCEEDED, State.FAILED, State.CANCELLED)


class Priority(IntEnum):
    """The priority class of a job; `gateway/jobs/order.py` has the rules."""

    BACKGROUND = -1
    """Runs when no other job waits."""
    LOW = 0
    NORMAL = 1
    HIGH = 2


StateFacts = (
    Queued | Started | PromptRead | ImageDone | PageRead | CancelRequested | Requeued | Succeeded | Failed | Cancelled
)
ProgressFacts = ModelDownloading | ModelLoading | ModelLoaded | StepDone | Decoding | Preview | Reading
Outcome = Succeeded | Failed | Cancelled
Plans = Generate | Upscale | Load | Ocr | Download

state_fact: TypeAdapter[StateFacts] = TypeAdapter(StateFact, config=UNCACHED)
progress_fact: TypeAdapter[ProgressFacts] = TypeAdapter(ProgressFact, config=UNCACHED)
plan_adapter: TypeAdapter[Plans] = TypeAdapter(Plan, config=UNCACHED)

TRANSITIONS: dict[tuple[State | None, type[StateFacts]], State] = {
    (None, Queued): State.QUEUED,
    (State.QUEUED, Started): State.RUNNING,
    (State.QUEUED, Failed): State.FAILED,
    (State.QUEUED, Cancelled): State.CANCELLED,
    (State.RUNNING, PromptRead): State.RUNNING,
    (State.RUNNING, ImageDone): State.RUNNING,
    (State.RUNNING, PageRead): State.RUNNING,
    (State.RUNNING, CancelRequested): State.RUNNING,
    (State.RUNNING, Requeued): State.QUEUED,
    (State.RUNNING, Succeeded): State.SUCCEEDED,
    (State.RUNNING, Failed): State.FAILED,
    (State.RUNNING, Cancelled): State.CANCELLED,
}

CRASHES_ALLOWED = 1
"""How often the engine may crash under a job; at the next crash the job fails."""


class IllegalTransition(Exception):
    """The fact cannot happen to a job in this state."""


@dataclass(frozen=True, slots=True)
class JobEvent:
    """A state fact as stored: `seq` counts from 1 without gaps within its job, `at` is Unix time in seconds.

    Neither `at` nor `steady`, the store's seconds (gateway/store/clock.py), is before that of the event before.
    """

    job_id: str
    seq: int
    at: float
    fact: StateFacts
    number: int = 0
    """Order of storing over all jobs; 0 until it is stored."""
    steady: float = 0.0


@dataclass(frozen=True, slots=True)
class NewJob:
    """A new job, as `submit` stores it."""

    id: str
    owner: str
    protocol: str
    plan: Plans
    attached: bool = False
    priority: Priority = Priority.NORMAL
    adjustments: tuple[Adjustment, ...] = ()
    idempotency_key: str | None = None
    fingerprint: str = ""
    note: str = ""
    """Text that the job's protocol stores with the job, to show it later."""


@dataclass(frozen=True, slots=True)
class Job:
    """A job: what was submitted, and the state folded from its events."""

    id: str
    number: int
    """Order of submission over all jobs."""
    owner: str
    protocol: str
    plan: Plans
    attached: bool
    priority: Priority
    adjustments: tuple[Adjustment, ...] = ()
    """Adjustments made at submit; `all_adjustments` also has those that the engine reported."""
    idempotency_key: str | None = None
    fingerprint: str = ""
    note: str = ""
    hidden: bool = False
    """Whether its protocol no longer lists the job; it stays in the history."""
    state: State | None = None
    seq: int = 0
    attempt: int = 0
    crashes: int = 0
    cancel_requested: CancelReason | None = None
    readings: tuple[PromptRead, ...] = ()
    """Readings of its prompts that the model did not read completely."""
    images: tuple[ImageDone, ...] = ()
    pages: tuple[PageRead, ...] = ()
    failure: Failed | None = None
    created_at: float = 0.0
    started_at: float | None = None
    finished_at: float | None = None
    created_steady: float = field(default=0.0, compare=False)
    started_steady: float | None = field(default=None, compare=False)
    finished_steady: float | None = field(default=None, compare=False)
    events: tuple[JobEvent, ...] = field(default=(), repr=False, compare=False)

    @classmethod
    def of(cls, new: NewJob, number: int) -> Job:
        """The job before its first event."""
        return cls(
            id=new.id,
            number=number,
            owner=new.owner,
            protocol=new.protocol,
            plan=new.plan,
            attached=new.attached,
            priority=new.priority,
            adjustments=new.adjustments,
            idempotency_key=new.idempotency_key,
            fingerprint=new.fingerprint,
            note=new.note,
        )

    @property
    def first_undrawn(self) -> int:
        """Index of the first seed without an image: where a run begins."""
        return len(self.images)

    @property
    def all_adjustments(self) -> tuple[Adjustment, ...]:
        """All adjustments that are known so far."""
        return (*self.adjustments, *self.late_adjustments)

    @property
    def late_adjustments(self) -> tuple[Adjustment, ...]:
        """Adjustments not known at submit: how prompts were read, and at which size the image was drawn."""
        read = tuple(one for reading in self.readings for one in to_adjustments(reading))
        return (*read, *_scaled(self.plan, self.images[:1]))

    @property
    def text(self) -> str:
        """The text read so far, with a blank line between pages."""
        return "\n\n".join(page.text for page in self.pages)

    @property
    def seconds(self) -> float | None:
        """Seconds from the last start to the end, by the steady clock."""
        if self.started_steady is None or self.finished_steady is None:
            return None
        return max(0.0, self.finished_steady - self.started_steady)

    def may(self, fact: StateFacts) -> bool:
        return (self.state, type(fact)) in TRANSITIONS

    def apply(self, fact: StateFacts, at: float, steady: float | None = None) -> Job:
        """The job after `fact`, which happened at Unix time `at`, and at `steady` where that is not the same.

        Raises: IllegalTransition.
        """
        return self.after([JobEvent(self.id, self.seq + 1, at, fact, steady=at if steady is None else steady)])

    def until(self, seq: int) -> Job:
        """The job as it was after its event `seq`."""
        if seq == self.seq:
            return self
        new = NewJob(**{one.name: getattr(self, one.name) for one in fields(NewJob)})
        return replace(Job.of(new, self.number), hidden=self.hidden).after(self.events[:seq])

    def after(self, events: Sequence[JobEvent]) -> Job:
        """The job after these consecutive events. Raises: IllegalTransition."""
        cells: dict[str, Any] = dict(zip(_FIELDS, _VALUES(self), strict=True))
        for event in events:
            _happen(cells, event.fact, event.at, event.steady)
            cells["seq"] = event.seq
        cells["events"] = (*self.events, *events)
        return Job(**cells)


_FIELDS = tuple(one.name for one in fields(Job))
_VALUES = attrgetter(*_FIELDS)


def _scaled(plan: Plans, images: tuple[ImageDone, ...]) -> Iterator[Adjustment]:
    """The adjustment of images that a model drew at its only size."""
    if not isinstance(plan, Generate):
        return
    last = plan.second_pass or plan
    for image in images:
        drawn = image.drawn_px
        if drawn not in ((last.width_px, last.height_px), (image.width_px, image.height_px)):
            size = f"{last.width_px}x{last.height_px}"
            reason = f"{plan.model} draws at its own size; the picture was scaled to {size}"
            yield Adjustment(param="size", asked=size, used=f"{drawn[0]}x{drawn[1]}", reason=reason)


def _happen(cells: dict[str, Any], fact: StateFacts, at: float, steady: float) -> None:
    """Change the fields of a job by a fact. Raises: IllegalTransition."""
    state = TRANSITIONS.get((cells["state"], type(fact)))
    if state is None:
        raise IllegalTransition(f"{type(fact).__name__} cannot happen to a job that is {cells['state']}")
    cells["state"] = state
    match fact:
        case Queued():
            cells |= {"created_at": at, "created_steady": steady}
        case Started(attempt=attempt):
            if attempt <= cells["attempt"]:
                raise IllegalTransition("attempt only grows")
            cells |= {"attempt": attempt, "started_at": at, "started_steady": steady}
        case PromptRead():
            if fact not in cells["readings"]:
                cells["readings"] = (*cells["readings"], fact)
        case ImageDone(image=image):
            if image != len(cells["images"]):
                raise IllegalTransition(f"picture {image} is not the next one")
            cells["images"] = (*cells["images"], fact)
        case PageRead(page=page):
            if page != len(cells["pages"]):
                raise IllegalTransition(f"page {page} is not the next one")
            cells["pages"] = (*cells["pages"], fact)
        case CancelRequested(reason=reason):
            cells["cancel_requested"] = reason
        case Requeued(reason=why):
            cells["crashes"] += why in ("engine_crash", "engine_timeout")
        case Failed():
            cells |= {"failure": fact, "finished_at": at, "finished_steady": steady}
        case Succeeded() | Cancelled():
            cells |= {"finished_at": at, "finished_steady": steady}


@dataclass(frozen=True, slots=True)
class Progress:
    """The progress of a running job: the newest facts, which are published and not stored."""

    job_id: str
    images: int
    phase: str = "waiting"
    """waiting, downloading, loading, denoising, decoding, reading."""
    image: int = 0
    step: int = 0
    steps: int = 0
    step_seconds: float | None = None
    preview: Preview | None = None
    download: ModelDownloading | None = None
    """The progress of a download, and of a job that waits for one."""
    expected_s: float | None = None
    """Forecast of the seconds until the whole job is done; None where there is none."""

    @property
    def fraction(self) -> float:
        """The finished part, 0 to 1: bytes of a download, else steps of all images; decoding adds nothing."""
        if self.download is not None:
            return min(1.0, self.download.done_bytes / max(1, self.download.total_bytes))
        within = self.step / self.steps if self.steps else 0.0
        return min(1.0, (self.image + within) / max(1, self.images))

    @property
    def seconds_left(self) -> float | None:
        """Seconds until the job is done: as forecast, else by the duration of the last step; None before one."""
        if self.expected_s is not None:
            return self.expected_s
        if self.step_seconds is None:
            return None
        images_after = max(0, self.images - self.image - 1)
        return self.step_seconds * (max(0, self.steps - self.step) + images_after * self.steps)

    def apply(self, fact: ProgressFacts) -> Progress:
        match fact:
            case ModelDownloading():
                return replace(self, phase="downloading", download=fact)
            case ModelLoading():
                return replace(self, phase="loading")
            case ModelLoaded():
                return replace(self, phase="waiting")
            case StepDone(image=image, step=step, steps=steps, seconds=seconds):
                return replace(self, phase="denoising", image=image, step=step, steps=steps, step_seconds=seconds)
            case Decoding(image=image):
                return replace(self, phase="decoding", image=image)
            case Preview():
                return replace(self, preview=fact)
            case Reading(page=page, percent=percent):
                return replace(self, phase="reading", image=page, step=percent, steps=100)
