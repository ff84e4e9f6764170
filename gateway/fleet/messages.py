"""Messages between the processes of a fleet: progress of running jobs, and requests to whoever runs a job. Pure.

A message may be lost: state is in the store, and a progress message has all that a process needs that got none before.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, TypeAdapter, ValidationError

from engine.protocol import UNCACHED, Frozen
from gateway.jobs.facts import ProgressFact


class JobProgress(Frozen):
    """New progress facts of a running job, oldest first; of steps only the newest of each image, and no previews."""

    kind: Literal["progress"] = "progress"
    job: str
    attempt: int
    facts: tuple[ProgressFact, ...]
    expected_s: float | None = None
    """Seconds until the job is done, by the forecast of the process that runs it."""


class JobPreview(Frozen):
    """A preview of a running job is stored at `address`."""

    kind: Literal["preview"] = "preview"
    job: str
    attempt: int
    image: int
    step: int
    address: str


class SkipImage(Frozen):
    """Finish the current image of this job as it is."""

    kind: Literal["skip"] = "skip"
    job: str


class UnloadModel(Frozen):
    """Free the memory of this model, or of whichever is loaded, between two jobs."""

    kind: Literal["unload"] = "unload"
    model: str | None = None


class QueueChanged(Frozen):
    """The queue was paused, resumed or reordered, which is no event of a job."""

    kind: Literal["queue"] = "queue"


class TicketUsed(Frozen):
    """A ticket was used, and is not valid for a first use any more. `digest` is its SHA-256 in hex."""

    kind: Literal["ticket"] = "ticket"
    digest: str


Message = JobProgress | JobPreview | SkipImage | UnloadModel | QueueChanged | TicketUsed

_messages: TypeAdapter[Message] = TypeAdapter(Annotated[Message, Field(discriminator="kind")], config=UNCACHED)


def to_text(message: Message) -> str:
    return message.model_dump_json(exclude_defaults=False)


def read_text(text: str) -> Message | None:
    """The message; None where it is of a kind that this version does not know."""
    try:
        return _messages.validate_json(text)
    except ValidationError:
        return None
