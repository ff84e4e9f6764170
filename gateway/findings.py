"""What is wrong with a running gateway, as sentences for its operator, each with what to do. Names no path."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from gateway import descriptors, logs
from gateway.core import Core

FEW_FILES = 1024


@dataclass(frozen=True, slots=True)
class Finding:
    """`subject` is the part of the gateway; `stops_work`: nothing is drawn, or taken, until it is mended."""

    subject: str
    sentence: str
    remedy: str
    stops_work: bool = False


async def findings_of(core: Core) -> list[Finding]:
    """Those that stop work first. Takes as long as `core.readiness` does."""
    reasons = await core.readiness.reasons()
    found = [*_of_work(core, reasons), *(await _of_records(core)), *_of_process(core)]
    return sorted(found, key=lambda finding: not finding.stops_work)


def _of_work(core: Core, reasons: list[str]) -> Iterator[Finding]:
    engine = core.service.engine
    for reason in reasons:
        if reason == engine.reason:
            yield Finding("engine", reason, "Read what engine.child said in the log; jobs wait until it starts.", True)
        else:
            yield Finding("readiness", reason, "It goes on by itself once that is mended.", True)
    for lane, reason in core.service.faults.items():
        if reason not in reasons:
            yield Finding(f"{lane} lane", reason, "Its jobs wait, and go on by themselves once that is mended.", True)
    if engine.deaths:
        sentence = f"The engine ended unasked {engine.deaths} times since the start."
        yield Finding("engine", sentence, "Read what engine.child said before that; a job that ends it twice fails.")
    if core.service.queue.paused:
        remedy = "mflux-gateway queue resume, or POST /api/v1/queue/resume."
        yield Finding("queue", "The queue is paused.", remedy, True)
    if unstored := core.service.unstored_stops:
        sentence = f"{unstored} stopped jobs are not stored as such yet."
        yield Finding("stops", sentence, "Make room on the disk of the job database: a restart before runs them again.")
    if core.decoder.deaths:
        sentence = f"A decoder of pictures died {core.decoder.deaths} times since the start."
        yield Finding("decoder", sentence, "Look for memory that runs out; each picture was tried a second time.")


async def _of_records(core: Core) -> list[Finding]:
    found = []
    if count := await core.service.damaged_records():
        remedy = "Stop the gateway, then mflux-gateway doctor --repair; the disk under the database may be failing."
        found.append(Finding("job records", f"{count} damaged records are set aside.", remedy))
    if jumps := core.service.clock_jumps:
        sentence = f"The clock of this machine was set {jumps} times while this history was written."
        found.append(Finding("clock", sentence, "Nothing: durations do not follow it. Dates are as the clock said."))
    return found


def _of_process(core: Core) -> Iterator[Finding]:
    if dropped := logs.dropped():
        sentence = f"{dropped} log records were dropped since the start."
        yield Finding("log", sentence, "Have something read the gateway's stderr, or send it to a file.")
    here = descriptors.limit()
    if here < FEW_FILES:
        http = core.settings.http
        sentence = f"{here} files may be open, so that {http.max_connections} clients may be connected."
        yield Finding("open files", sentence, "Raise the limit (ulimit -n 4096) before the start.")
