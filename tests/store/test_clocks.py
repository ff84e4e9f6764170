"""R-07: dates may jump; whatever is a duration goes by a clock that only passes."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from engine.protocol import Succeeded
from gateway.images.output import OutputFolder
from gateway.jobs.job import Priority
from gateway.store.base import StoreCorrupt
from gateway.store.clock import StoreClock
from gateway.store.sqlite import SqliteStore
from tests.support.live import live
from tests.support.native import client_of, ended
from tests.support.native import submit as submit_to
from tests.support.store import claim, opened, submit

HOUR, DAY = 3600.0, 86400.0
JUMPS = (HOUR, -HOUR, DAY, -DAY, 9 * DAY)


class Times:
    """`date` may jump, `passed` only passes."""

    def __init__(self) -> None:
        self.ahead, self.passed = 0.0, 0.0

    def date(self) -> float:
        return 1_700_000_000.0 + self.ahead + self.passed

    def elapsed(self) -> float:
        self.passed += 0.001
        return self.passed

    def store(self, folder: Path) -> Callable[[], SqliteStore]:
        return lambda: SqliteStore(folder, self.date, elapsed=self.elapsed)


@pytest.mark.parametrize("over_a_restart", [False, True])
@pytest.mark.parametrize("jump_s", JUMPS)
async def test_clock_jump_changes_no_age_in_the_store(tmp_path: Path, jump_s: float, over_a_restart: bool) -> None:
    """History, ageing, Idempotency-Keys, unused inputs, seconds, dates of one job's events."""
    times = Times()
    store = times.store(tmp_path)()
    await store.open()
    done = await submit(store, idempotency_key="k")
    lease = await claim(store)
    low = await submit(store, priority=Priority.LOW, owner="low")
    high = await submit(store, priority=Priority.HIGH, owner="high")
    unused = await store.put_blob(b"unused")
    times.ahead += jump_s
    if over_a_restart:
        await store.close()
        store = times.store(tmp_path)()
        await store.open()
        assert [job.id for job in store.order("engine")] == [high.id, done.id, low.id]
        await store.cancel(high.id, "user")
        lease = await claim(store)
    times.passed += 2
    _, job = await store.commit(lease, Succeeded())
    assert job.seconds == pytest.approx(2, abs=0.1)
    assert (await store.stats()).drawing_seconds == pytest.approx(2, abs=0.1)
    dates = [event.at for event in job.events]
    assert dates == sorted(dates)
    assert await store.ended_before(store.steady() - DAY, keep_newest=10) == []
    assert not (await store.submit(_again(job.id, "k"), _bounds())).created
    assert await store.drop_unused_blobs(HOUR) == 0
    assert await store.blob(unused) == b"unused"
    if not over_a_restart:
        assert [job.id for job in store.order("engine")] == [high.id, low.id]
        times.passed += 2000  # three classes by age alone
        assert [job.id for job in store.order("engine")] == [low.id, high.id]
    times.passed += 1.1 * DAY
    assert job.id in [old.id for old in await store.ended_before(store.steady() - DAY, keep_newest=10)]
    assert await store.drop_unused_blobs(HOUR) == 1
    assert (await store.submit(_again("0" * 32, "k"), _bounds())).created
    await store.close()


def _again(job_id: str, key: str) -> object:
    from tests.support import a_job

    return a_job(id=job_id, idempotency_key=key)


def _bounds() -> object:
    from tests.support.store import NO_BOUNDS

    return NO_BOUNDS


@pytest.mark.parametrize("jump_s", JUMPS)
async def test_backups_continue_after_clock_jumps_and_the_newest_is_the_last_made(
    tmp_path: Path, jump_s: float
) -> None:
    times = Times()
    async with opened(times.store(tmp_path)) as store:
        await submit(store)
        assert await store.back_up(HOUR)
        newest = next((tmp_path / "backups").iterdir())
        os.utime(newest, (time.time() + 9 * DAY,) * 2)
        times.ahead += jump_s
        await submit(store)
        assert not await store.back_up(HOUR), "a jump makes no copy due"
    async with opened(times.store(tmp_path)) as store:
        assert not await store.back_up(HOUR), "nor does a restart"
        times.passed += 1.1 * HOUR
        for n in range(3):
            await submit(store)
            assert await store.back_up(0.0 if n else HOUR)
            assert not await store.back_up(0.0), "nothing has changed since"
    copies = sorted(copy.name for copy in (tmp_path / "backups").iterdir())
    assert [int(name.split("-")[1]) for name in copies] == [3, 4]
    (tmp_path / "jobs.sqlite3").write_bytes(b"")
    store = times.store(tmp_path)()
    with pytest.raises(StoreCorrupt, match=copies[1]):
        await store.open()
    await store.close()


def test_file_age_is_the_time_the_gateway_has_run_since() -> None:
    times = Times()
    clock = StoreClock(times.date, times.elapsed)
    for jump_s in (0.0, DAY, -HOUR, -2 * DAY, 9 * DAY):
        times.ahead += jump_s
        clock.note()
        made = times.date()
        assert clock.age_s(made) == pytest.approx(0, abs=1)
        assert clock.age_s(made + DAY) == 0, "a date to come is none"
        times.passed += 100
        assert clock.age_s(made) == pytest.approx(100, abs=1)
    assert clock.age_s(1_700_000_000.0 - 5 * DAY) >= 5 * DAY - 1
    again = StoreClock(times.date, times.elapsed)
    again.read_text(clock.to_text())
    again.start(clock.steady())
    assert again.age_s(made) == pytest.approx(100, abs=1)


def test_images_over_the_quota_are_deleted_oldest_first_by_elapsed_time(tmp_path: Path) -> None:
    times, output = Times(), OutputFolder(tmp_path)
    clock = StoreClock(times.date, times.elapsed)
    names = [f"{n:032x}.1.0.png" for n in range(3)]
    for name, jump_s in zip(names, (0.0, -DAY, 0.0), strict=True):
        times.ahead += jump_s
        times.passed += 10
        clock.note()
        (tmp_path / name).write_bytes(b"x" * 100)
        os.utime(tmp_path / name, (times.date(),) * 2)
    output.shrink(200, age_s=clock.age_s)
    assert sorted(file.name for file in tmp_path.iterdir()) == names[1:]
    output.shrink(100, age_s=clock.age_s, spare={names[1].partition(".")[0]})
    assert [file.name for file in tmp_path.iterdir()] == [names[1]]


def test_a_gateway_whose_clock_jumps_keeps_history_links_and_copies(tmp_path: Path) -> None:
    """The clock goes nine days ahead between two starts, and back and forth while it runs."""
    ahead = tmp_path / "ahead"
    ahead.write_text("0")
    words = {"program": ("tests/support/jumping_gateway.py", str(ahead))}
    config = {"retention": {"url_hours": 2}, "access": {}}
    with live(tmp_path, config=config, **words) as gateway, client_of(gateway.url, "me") as client:
        first = ended(client, submit_to(client)["job_id"])
        url = _link(client, gateway.url)
    ahead.write_text(str(9 * DAY))
    with live(tmp_path, config=config, **words) as gateway, client_of(gateway.url, "me") as client:
        assert client.get(f"/jobs/{first['id']}").json()["status"] == "completed"
        for jump_s in (9 * DAY, 8 * DAY, 10 * DAY, 10 * DAY - HOUR):
            ahead.write_text(str(jump_s))
            job = ended(client, submit_to(client)["job_id"])
            assert 0 <= job["seconds"] < 60
            dates = [datetime.fromisoformat(job[name]) for name in ("created_at", "started_at", "completed_at")]
            assert dates == sorted(dates)
            assert client.get(f"{gateway.url}{url}").status_code == 200
            assert client.get(f"/jobs/{first['id']}").status_code == 200
        assert client.get("/stats").json()["average_time_seconds"] < 60
    assert len(list((tmp_path / "data" / "backups").iterdir())) == 2


def test_a_forecast_and_a_running_job_survive_a_clock_that_jumps(tmp_path: Path) -> None:
    ahead = tmp_path / "ahead"
    ahead.write_text("0")
    words: dict[str, Any] = {
        "program": ("tests/support/jumping_gateway.py", str(ahead)),
        "fake_script": {"step_seconds": 0.3},
    }
    with live(tmp_path, **words) as gateway, client_of(gateway.url, "me") as client:
        running, waiting = (submit_to(client, steps=8)["job_id"] for _ in range(2))
        while client.get(f"/jobs/{running}").json()["status"] != "generating":
            time.sleep(0.02)
        for jump_s in (DAY, -DAY, HOUR, -HOUR):
            ahead.write_text(str(jump_s))
            for job_id in (running, waiting):
                assert 0 <= client.get(f"/jobs/{job_id}").json()["eta_seconds"] < 60
        for job_id in (running, waiting):
            assert 1 < ended(client, job_id)["seconds"] < 60


def _link(client: object, url: str) -> str:
    answer = client.post(
        f"{url}/v1/images/generations", json={"prompt": "x", "size": "64x64", "response_format": "url"}
    )
    assert answer.status_code == 200, answer.text
    return "/v1/" + answer.json()["data"][0]["url"].partition("/v1/")[2]
