"""Commands and reports: what goes over the child's pipes, one JSON line each."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, TypeAdapter

from engine.catalog import ModelSpec
from engine.protocol.facts import EngineFact
from engine.protocol.plans import UNCACHED, EnginePlan, Frozen


class Run(Frozen):
    """Command: do this plan, beginning at picture `first_image`."""

    kind: Literal["run"] = "run"
    job: str
    attempt: int
    plan: EnginePlan
    spec: ModelSpec
    model_path: str
    """Absolute folder, resolved by the gateway."""
    copy_path: str | None = None
    """Absolute folder of the same weights, quantised as the plan wants them: loaded in the place of `model_path`."""
    also_paths: tuple[str, ...] = ()
    """One for each of the spec's further repositories, where they lie in folders of their own."""
    inputs: dict[str, str] = Field(default={})
    """Where what the plan names lies, blobs and LoRAs: absolute files."""
    spool_dir: str
    first_image: int = 0


class Cancel(Frozen):
    """Command: stop this job within one step; the model stays loaded."""

    kind: Literal["cancel"] = "cancel"
    job: str


class Skip(Frozen):
    """Command: leave out the rest of this picture's steps; it is finished as it stands, and the job goes on."""

    kind: Literal["skip"] = "skip"
    job: str


class Ping(Frozen):
    """Command: answer Pong once the work thread is free and clean."""

    kind: Literal["ping"] = "ping"
    nonce: int


class Ready(Frozen):
    """Report: the backend imported and waits for work."""

    kind: Literal["ready"] = "ready"
    backend: str
    device: str
    memory_limit_bytes: int | None = None
    """What the device lets one process use; None where it does not say."""


class Pong(Frozen):
    """Report: the answer to Ping."""

    kind: Literal["pong"] = "pong"
    nonce: int


class Memory(Frozen):
    """Report: bytes in use. The peak is that of the load or of the picture last begun."""

    kind: Literal["memory"] = "memory"
    active_bytes: int
    peak_bytes: int
    after: Literal["load", "step", "picture", "job"] = "job"


class JobReport(Frozen):
    """Report: a fact of the job the child holds."""

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
