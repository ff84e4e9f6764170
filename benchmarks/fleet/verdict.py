"""Verdict on a fleet after its faults: each acknowledged job has its images, once, with the undisturbed pixels."""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from dataclasses import asdict, dataclass, field

from benchmarks.fleet.processes import Fleet
from benchmarks.fleet.traffic import Account, pixels, undisturbed


@dataclass
class Verdict:
    """Counts of a run; the run holds where `mistakes` is empty."""

    acknowledged: int = 0
    completed: int = 0
    cancelled: int = 0
    images: int = 0
    second_attempts: int = 0
    requeued: dict[str, int] = field(default_factory=dict)
    """Times that jobs went back to the queue, by reason."""
    files_without_row: int = 0
    """Files of an attempt that was ended between the file and its record."""
    lost: int = 0
    twice: int = 0
    other_pixels: int = 0
    answers: dict[str, int] = field(default_factory=dict)
    mistakes: list[str] = field(default_factory=list)


def judge(fleet: Fleet, account: Account) -> Verdict:
    """Judge every acknowledged job by the rows and the files. Raises: Mistake where one does not end."""
    fleet.wait_ended(list(account.jobs))
    verdict = Verdict(acknowledged=len(account.jobs), answers=dict(sorted(account.answers.items())))
    verdict.mistakes += account.wrong
    verdict.other_pixels += sum("pixels" in wrong for wrong in account.wrong)
    rows = {row[0]: row for row in fleet.query("SELECT id, state, attempt FROM jobs")}
    facts: dict[str, list[dict[str, object]]] = defaultdict(list)
    for job_id, fact in fleet.query("SELECT job_id, fact FROM events ORDER BY job_id, seq"):
        facts[job_id].append(json.loads(fact))
    requeued = Counter[str]()
    there = fleet.image_names()
    recorded: set[str] = set()
    for job_id, (_, state, attempt) in rows.items():
        requeued.update(str(fact["reason"]) for fact in facts[job_id] if fact["kind"] == "requeued")
        done = [fact for fact in facts[job_id] if fact["kind"] == "image_done"]
        recorded |= {str(fact["file"]) for fact in done}
        numbers = Counter(int(str(fact["image"])) for fact in done)
        if any(many > 1 for many in numbers.values()):
            verdict.twice += 1
            verdict.mistakes.append(f"{job_id} has an image twice: {sorted(str(fact['file']) for fact in done)}")
        for file in sorted({str(fact["file"]) for fact in done} - there):
            verdict.lost += 1
            verdict.mistakes.append(f"{job_id} ({state}) names {file}, which is not there")
        if job_id not in account.jobs:
            continue
        verdict.second_attempts += attempt > 1
        verdict.completed += state == "succeeded"
        verdict.cancelled += state == "cancelled"
        prompt, seed, count = account.jobs[job_id]
        if state != "succeeded" and not (state == "cancelled" and job_id in account.cancelled):
            verdict.lost += 1
            verdict.mistakes.append(f"{job_id} is {state}: {facts[job_id][-1]}")
        elif state == "succeeded" and sorted(numbers) != list(range(count)):
            verdict.lost += 1
            verdict.mistakes.append(f"{job_id} has images {sorted(numbers)} of {count}")
        for fact in done:
            verdict.images += 1
            data = fleet.image(str(fact["file"]))
            if data is not None and pixels(data) != undisturbed()[prompt, seed + int(str(fact["image"]))]:
                verdict.other_pixels += 1
                verdict.mistakes.append(f"{fact['file']} has other pixels")
    missing = account.jobs.keys() - rows.keys()
    verdict.lost += len(missing)
    verdict.mistakes += [f"{job_id} has no row" for job_id in sorted(missing)]
    verdict.requeued = dict(requeued)
    verdict.files_without_row = len(there - recorded)
    return verdict


def figures(verdict: Verdict) -> dict[str, object]:
    """The verdict for JSON, with ten mistakes at most."""
    return {**asdict(verdict), "mistakes": verdict.mistakes[:10]}
