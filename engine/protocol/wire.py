"""Commands and reports on the pipes of the child process, one JSON line each."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, TypeAdapter

from engine.catalog import ModelSpec
from engine.protocol.facts import EngineFact
from engine.protocol.frozen import Frozen
from engine.protocol.plans import UNCACHED, EnginePlan


class Run(Frozen):
    """Command: run this plan, beginning at image `first_image`."""

    kind: Literal["run"] = "run"
    job: str
    attempt: int
    plan: EnginePlan
    spec: ModelSpec
    model_path: str
    """Absolute folder, resolved by the gateway."""
    copy_path: str | None = None
    """Absolute folder of the same weights, quantised as the plan requires: loaded instead of `model_path`."""
    also_paths: tuple[str, ...] = ()
    """One absolute folder for each of the spec's further repositories, where they are in folders of their own."""
    inputs: dict[str, str] = Field(default={})
    """Absolute files of the plan's blobs and LoRAs, by name."""
    spool_dir: str
    first_image: int = 0
    decode_beside: bool = False
    """Whether an image is decoded while the next one is denoised, which needs memory for both."""
    ends_beside: bool = False
    """Whether the engine may take the next job while the last image is decoded."""
    begins_beside: bool = False
    """Whether the job may begin while the last image of the job before is decoded, which needs memory for both."""


class Cancel(Frozen):
    """Command: cancel this job within one step; the model stays loaded."""

    kind: Literal["cancel"] = "cancel"
    job: str


class Skip(Frozen):
    """Command: skip the remaining steps of this image. It is finished from the latents it has, and the job goes on."""

    kind: Literal["skip"] = "skip"
    job: str


class Ping(Frozen):
    """Command: answer with Pong once the worker thread is idle."""

    kind: Literal["ping"] = "ping"
    nonce: int


class Ready(Frozen):
    """Report: the backend is imported and waits for work."""

    kind: Literal["ready"] = "ready"
    backend: str
    device: str
    memory_limit_bytes: int | None = None
    """Memory that the device lets one process use; None where it gives no limit."""


class Pong(Frozen):
    """Report: the answer to Ping."""

    kind: Literal["pong"] = "pong"
    nonce: int


class Memory(Frozen):
    """Report: bytes in use. The peak is that of the load, or of the image begun last."""

    kind: Literal["memory"] = "memory"
    active_bytes: int
    peak_bytes: int
    after: Literal["load", "step", "picture", "job"] = "job"
    """`picture` only where nothing of another job was in memory meanwhile."""
    job: str = ""
    """Job of a load or an image."""


class JobReport(Frozen):
    """Report: a fact of the job that the child runs, or of the one before, whose last image it decodes."""

    kind: Literal["job"] = "job"
    job: str
    attempt: int
    fact: EngineFact


Command = Annotated[Run | Cancel | Skip | Ping, Field(discriminator="kind")]
Report = Annotated[Ready | Pong | Memory | JobReport, Field(discriminator="kind")]

MAX_LINE_BYTES = 8 * 1024 * 1024

_command: TypeAdapter[Run | Cancel | Skip | Ping] = TypeAdapter(Command, config=UNCACHED)
_report: TypeAdapter[Ready | Pong | Memory | JobReport] = TypeAdapter(Report, config=UNCACHED)


def encode(message: Frozen) -> bytes:
    """One line, newline included."""
    return message.model_dump_json().encode() + b"\n"


def decode_command(line: bytes) -> Run | Cancel | Skip | Ping:
    """Raises: pydantic.ValidationError for anything that is not a command."""
    return _command.validate_json(line)


def decode_report(line: bytes) -> Ready | Pong | Memory | JobReport:
    """Raises: pydantic.ValidationError for anything that is not a report."""
    return _report.validate_json(line)
