"""Findings: what is wrong with a running gateway, as sentences with a remedy for its operator. Names no path."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping, Sequence

from gateway import logs
from gateway.context import Core
from gateway.finding import Finding
from gateway.fleet.node import SeenNode
from gateway.http import open_files as descriptors
from gateway.model_findings import files_at_fault
from gateway.residency.default import DefaultModel

FEW_FILES = 1024
DAY_S = 86400.0
LOG = "Read what engine.child said in the log."


async def findings_of(core: Core) -> list[Finding]:
    """All findings, those that stop work first. Takes as long as `core.readiness`."""
    subjects = await core.readiness.subjects()
    default = await asyncio.to_thread(lambda: core.default_model)
    drained = [seen for seen in await core.service.workers.nodes() if seen.is_draining]
    findings = [
        *_of_work(core, subjects, drained),
        *_of_default(default),
        *(await _of_records(core)),
        *_of_files(core),
        *(await asyncio.to_thread(lambda: list(files_at_fault(core.library)))),
        *_of_process(core),
    ]
    return sorted(findings, key=lambda finding: finding.health != "broken")


def _of_work(core: Core, subjects: Mapping[str, str], drained: Sequence[SeenNode]) -> Iterator[Finding]:
    """Findings about work; `subjects`: the reasons why the gateway is not ready, and what is at fault."""
    repair = "Jobs wait, and go on by themselves once that is mended."
    for reason, subject in subjects.items():
        what = subject.removeprefix("The ")
        yield Finding(what, "broken", reason, f"{LOG} {repair}" if what == "engine" else repair)
    for lane, reason in core.service.health.faults.items():
        if reason not in subjects:
            yield Finding(f"{lane} lane", "broken", reason, repair)
    if core.service.queue.paused:
        remedy = "mflux-gateway queue resume, or POST /api/v1/queue/resume."
        yield Finding("queue", "broken", "The queue is paused.", remedy)
    for seen in drained:
        remedy = f"mflux-gateway workers resume {seen.node.name}, or POST /api/v1/workers/{seen.node.name}/resume."
        yield Finding(f"worker {seen.node.name}", "note", "Its operator drains it: it begins no jobs.", remedy)
    if deaths := core.service.engine.deaths:
        remedy = f"{LOG} A job that ends it twice fails."
        yield Finding("engine", "note", f"The engine ended unasked {deaths} times since the start.", remedy)
    if unstored := core.service.health.unstored_stops:
        remedy = "Make room on the disk of the job database: a restart before runs them again."
        yield Finding("stops", "note", f"{unstored} stopped jobs are not stored as such yet.", remedy)
    if deaths := core.decoder.deaths:
        remedy = "Look for memory that runs out; each picture was tried a second time."
        yield Finding("decoder", "note", f"A decoder of pictures died {deaths} times since the start.", remedy)


def _of_default(default: DefaultModel) -> Iterator[Finding]:
    if not default.fits:
        remedy = f"{default.suggestion}; models.default (--model) names the model from the next start on."
        yield Finding("default model", "note", f"{default.name}: {default.sentence}", remedy)


async def _of_records(core: Core) -> list[Finding]:
    findings = []
    if count := await core.service.health.damaged_records():
        remedy = "Stop the gateway, then mflux-gateway doctor --repair; the disk under the database may be failing."
        findings.append(Finding("job records", "note", f"{count} damaged records are set aside.", remedy))
    if jumps := core.service.health.clock_jumps(DAY_S):
        sentence = f"The clock of this machine was set {jumps} times within the last day."
        remedy = "Nothing: durations do not follow it. Dates are as the clock said."
        findings.append(Finding("clock", "note", sentence, remedy))
    return findings


def _of_files(core: Core) -> Iterator[Finding]:
    if core.service.fleet is not None and core.shared_files is None:
        sentence = "Several processes share the job store, but images and inputs are in this one's own folders."
        remedy = "Set files.url of all of them to a folder that they share, or to a bucket."
        yield Finding("files", "note", sentence, remedy)


def _of_process(core: Core) -> Iterator[Finding]:
    if dropped := logs.dropped():
        sentence = f"{dropped} log records were dropped since the start."
        yield Finding("log", "note", sentence, "Have something read the gateway's stderr, or send it to a file.")
    limit = descriptors.limit()
    if limit < FEW_FILES:
        http = core.settings.http
        sentence = f"{limit} files may be open, so that {http.max_connections} clients may be connected."
        yield Finding("open files", "note", sentence, "Raise the limit (ulimit -n 4096) before the start.")
