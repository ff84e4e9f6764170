"""Accuracy of forecasts: python -m benchmarks.forecast

Bursts of jobs of three sizes, several step counts, batches and three models, which are loaded in turn, through the
gateway's service and the embedded model. After the first 20 jobs it measures how far the forecast at submit was from
the actual time, for waits of 2 s and more, and how often a job was finished within its 90 % interval.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import shutil
import statistics
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import gateway.service.service
from engine.catalog import EMBEDDED, EMBEDDED_PATH
from engine.client import Engine, EngineOptions
from gateway.forecast import Forecast, Forecaster
from gateway.images.output import OutputFolder
from gateway.jobs.job import Job, State
from gateway.jobs.order import Waiting
from gateway.jobs.origin import Origin
from gateway.jobs.resolve import GenerationRequest
from gateway.models.library import Library
from gateway.models.user_models import LocalModel
from gateway.service.service import JobService, ServiceOptions
from gateway.store.sqlite import SqliteStore

MODELS = (EMBEDDED, "second", "third")
SIZES_PX = (128, 512, 1024)
STEPS = (4, 8, 16, 32)
FIRST = 20
WAIT_AT_LEAST_S = 2.0
FAKE = {"step_seconds": 0.02, "load_seconds": 0.8, "decode_seconds": 0.05}


@dataclass(frozen=True, slots=True)
class Outcome:
    """Forecast at submit, and actual time, in seconds."""

    told: Forecast
    wait_s: float
    done_s: float


class Recorder(Forecaster):
    """Forecaster that records all its calls, so that tests can replay them."""

    rows: list[list[object]]
    """Records [seconds, kind, job, ...] in order."""

    def _row(self, what: str, job_id: str, *more: object) -> None:
        if not hasattr(self, "rows"):
            self.rows, self.began = [], time.monotonic()
        self.rows.append([round(time.monotonic() - self.began, 4), what, job_id[:8], *more])

    def waits(self, job: Job) -> None:
        plan = job.plan.model_dump(exclude_defaults=True) | {"kind": job.plan.kind, "prompt": "x"}
        self._row("waits", job.id, plan)
        super().waits(job)

    def on_submitted(self, job_id: str, line: Sequence[Waiting]) -> None:
        self._row("tell", job_id, [job.id[:8] for job in line])
        super().on_submitted(job_id, line)

    def begins(self, job: Job) -> None:
        self._row("begins", job.id, self._loaded_model())
        super().begins(job)

    def on_fact(self, job_id: str, fact: object) -> float | None:
        dump = getattr(fact, "model_dump", dict)(include={"kind", "image", "step", "steps", "seconds", "model"})
        if dump.get("kind") not in ("preview", "decoding"):
            self._row("hear", job_id, {k: round(v, 4) if isinstance(v, float) else v for k, v in dump.items()})
        return super().on_fact(job_id, fact)

    def ends(self, job: Job) -> None:
        self._row("ends", job.id)
        super().ends(job)


def request(rnd: random.Random) -> GenerationRequest:
    size_px = rnd.choice(SIZES_PX)
    return GenerationRequest(
        prompt="a red circle on a blue background",
        model=rnd.choices(MODELS, (4, 1, 1))[0],
        width_px=size_px,
        height_px=size_px,
        steps=rnd.choice(STEPS),
        count=rnd.choices((1, 2), (4, 1))[0],
    )


def service_in(folder: Path, backend: str) -> JobService:
    output = OutputFolder(folder / "output")
    output.prepare()
    local = {name: LocalModel(folder / name, EMBEDDED) for name in MODELS[1:]}
    for model in local.values():
        shutil.copytree(EMBEDDED_PATH, model.path)
    options = EngineOptions(backend="fake", fake_script=json.dumps(FAKE)) if backend == "fake" else EngineOptions()
    return JobService(
        store=SqliteStore(folder / "data"),
        engine=Engine(options),
        library=Library(folder, default=EMBEDDED, local=local),
        output=output,
        spool=folder / "data" / "spool",
        options=ServiceOptions(steps_as_sent=True),
    )


async def follow(service: JobService, job: Job, told: Forecast) -> Outcome | None:
    ended = await service.ended(job.id)
    if ended.state is not State.SUCCEEDED or ended.started_at is None or ended.finished_at is None:
        return None
    return Outcome(told, ended.started_at - ended.created_at, ended.finished_at - ended.created_at)


async def replay(service: JobService, jobs: int, rnd: random.Random) -> list[Outcome]:
    """Submit bursts, each as soon as only few jobs wait: long and short queues alternate."""
    origin = Origin(owner="me", protocol="benchmark", attached=False)
    following: list[asyncio.Task[Outcome | None]] = []
    while len(following) < jobs:
        for _ in range(rnd.randint(1, 8)):
            job = await service.submit(request(rnd), origin)
            told = service.events.forecast(job)
            assert told is not None
            following.append(asyncio.create_task(follow(service, job, told)))
            await asyncio.sleep(rnd.uniform(0, 0.5))
        while len(await service.queue.waiting()) > rnd.randint(0, 4):  # noqa: ASYNC110
            await asyncio.sleep(0.1)
    return [outcome for outcome in await asyncio.gather(*following) if outcome is not None]


def off(pairs: Sequence[tuple[float, float]]) -> str:
    errors = sorted(abs(told - came) / came for told, came in pairs if came >= WAIT_AT_LEAST_S)
    if not errors:
        return "none so long"
    most = errors[int(0.9 * len(errors))]
    return f"median {statistics.median(errors):.1%}, nine of ten within {most:.1%} (n = {len(errors)})"


def report(outcomes: Sequence[Outcome]) -> None:
    print("begins, told at submit against what came:", off([(o.told.wait_s, o.wait_s) for o in outcomes]))
    print("done, told at submit against what came:  ", off([(o.told.expected_s, o.done_s) for o in outcomes]))
    long = [o for o in outcomes if o.done_s >= WAIT_AT_LEAST_S]
    held = sum(o.told.finish_low_s <= o.done_s <= o.told.finish_high_s for o in long)
    width = statistics.median((o.told.finish_high_s - o.told.finish_low_s) / o.done_s for o in long)
    print(f"done within the 90 % interval: {held / len(long):.1%} (n = {len(long)}, median width {width:.0%})")


async def measure(backend: str, jobs: int, seed: int, record: Path | None) -> None:
    if record is not None:
        gateway.service.Forecaster = Recorder  # type: ignore[attr-defined]
    with tempfile.TemporaryDirectory() as folder:
        service = service_in(Path(folder), backend)
        await service.start()
        try:
            outcomes = await replay(service, jobs, random.Random(seed))
            print(f"{len(outcomes)} jobs; the first {FIRST} are not counted")
            report(outcomes[FIRST:])
            print("the gateway's own record:", service.events.forecast_record)
            if record is not None:
                rows = service._forecaster.rows  # type: ignore[attr-defined]
                record.write_text("".join(json.dumps(row, separators=(",", ":")) + "\n" for row in rows))
        finally:
            await service.stop()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--backend", choices=("mlx", "fake"), default="mlx")
    parser.add_argument("--jobs", type=int, default=120)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--record", type=Path, help="write down what the forecaster was told")
    asked = parser.parse_args()
    asyncio.run(measure(asked.backend, asked.jobs, asked.seed, asked.record))


if __name__ == "__main__":
    main()
