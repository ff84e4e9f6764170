"""What only several processes on one PostgreSQL database show: equal replicas, events in order, leases, messages."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import psycopg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from engine.protocol import Cancelled, Succeeded
from gateway.errors import IdempotencyConflict, JobNotFound, JobNotWaiting, StorageFault
from gateway.fleet.node import Node
from gateway.jobs.facts import CancelRequested, Requeued
from gateway.jobs.job import Job, JobEvent, Priority, State
from gateway.store.base import Bounds, StoreCorrupt, StoreLocked, WorkerInfo
from gateway.store.postgres.store import PostgresStore
from gateway.store.schema import VERSION
from tests.support import a_job, a_plan
from tests.support.postgres import Server, server
from tests.support.store import NO_BOUNDS, image

LANE = "engine"


class Process:
    """A store of one process, with the events that it heard."""

    def __init__(self, store: PostgresStore) -> None:
        self.store = store
        self.heard: list[tuple[Job, JobEvent]] = []
        self.messages: list[str] = []

    def on_event(self, job: Job, event: JobEvent) -> None:
        assert job.events[-1] == event
        self.heard.append((job, event))

    @property
    def numbers(self) -> list[int]:
        return [event.number for _, event in self.heard]

    async def hears(self, number: int) -> None:
        """Wait until this process has heard the event."""
        await until(lambda: number in self.numbers)

    @property
    def order(self) -> list[str]:
        return [job.id for job in self.store.order(LANE)]


async def until(holds: Callable[[], bool], within_s: float = 20.0) -> None:
    async with asyncio.timeout(within_s):
        while not holds():  # noqa: ASYNC110
            await asyncio.sleep(0.005)


@asynccontextmanager
async def processes(
    folder: Path, count: int, url: str | None = None, lookahead: int = 0
) -> AsyncIterator[list[Process]]:
    """So many processes with a data folder each, on one new queue."""
    address = url or server().new_url()
    members = [Process(PostgresStore(address, folder / str(n), lookahead=lookahead)) for n in range(count)]
    for member in members:
        await member.store.open(member.on_event)
        member.store.listen(member.messages.append)
    try:
        yield members
    finally:
        for member in members:
            await member.store.close()


async def test_events_of_all_processes_reach_each_of_them_once_and_in_order(tmp_path: Path) -> None:
    async with processes(tmp_path, 3) as members:

        async def run(member: Process, n: int) -> None:
            worker = WorkerInfo(id=f"w{n}", lease_s=30)
            for _ in range(8):
                await member.store.submit(a_job(owner=f"o{n}"), NO_BOUNDS)
                lease = await member.store.claim(worker)
                if lease is not None:
                    await member.store.record(lease, image(0))
                    outcome, _ = await member.store.commit(lease, Succeeded())
                    assert outcome == "committed"

        await asyncio.gather(*(run(member, n) for n, member in enumerate(members)))
        last = max(number for member in members for number in member.numbers)
        for member in members:
            await member.hears(last)
            assert member.numbers == list(range(1, last + 1))
        assert [(job.id, job.state, event.fact) for job, event in members[0].heard] == [
            (job.id, job.state, event.fact) for job, event in members[2].heard
        ]


async def test_who_hears_of_a_job_can_claim_it_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    apply = PostgresStore._apply

    def slow(*values: Any) -> None:
        time.sleep(0.1)
        apply(*values)

    monkeypatch.setattr(PostgresStore, "_apply", slow)
    async with processes(tmp_path, 2) as (one, other):
        depths = []
        other.store._hear = lambda job, event: depths.append(other.store.depth(LANE))
        await one.store.submit(a_job(), NO_BOUNDS)
        await until(lambda: bool(depths))
        assert depths == [1]


async def test_each_waiting_job_is_claimed_by_one_process_only(tmp_path: Path) -> None:
    async with processes(tmp_path, 4) as members:
        jobs = [(await members[n % 4].store.submit(a_job(owner=f"o{n % 3}"), NO_BOUNDS)).job.id for n in range(24)]

        async def drain(member: Process, n: int) -> list[str]:
            claimed = []
            await until(lambda: len(member.numbers) >= 24)
            while (lease := await member.store.claim(WorkerInfo(id=f"w{n}", lease_s=30))) is not None:
                claimed.append(lease.job.id)
                await asyncio.sleep(0)
            return claimed

        claimed = await asyncio.gather(*(drain(member, n) for n, member in enumerate(members)))
        assert sorted(job for some in claimed for job in some) == sorted(jobs)


steps = st.lists(
    st.tuples(
        st.integers(0, 1),
        st.sampled_from(("submit", "claim", "commit", "release", "cancel", "move", "pause", "reap")),
        st.integers(0, 5),
    ),
    min_size=5,
    max_size=40,
)


@given(steps=steps, lookahead=st.sampled_from((0, 2)))
@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_replicas_have_the_order_that_a_process_has_that_reads_the_rows(
    tmp_path_factory: pytest.TempPathFactory, steps: Sequence[tuple[int, str, int]], lookahead: int
) -> None:
    folder = tmp_path_factory.mktemp("replicas")

    async def play() -> None:
        url = server().new_url()
        async with processes(folder, 2, url, lookahead) as members:
            leases = []
            for who, step, n in steps:
                store = members[who].store
                if step == "submit":
                    priority = (Priority.NORMAL, Priority.HIGH)[n % 2]
                    await store.submit(
                        a_job(owner=f"o{n % 3}", priority=priority, plan=a_plan(model=f"m{n % 2}")), NO_BOUNDS
                    )
                elif step == "claim":
                    await store._database.catch_up()
                    lease = await store.claim(WorkerInfo(id=f"w{who}", lease_s=60))
                    leases += [] if lease is None else [lease]
                elif step in ("commit", "release") and leases:
                    lease = leases.pop(n % len(leases))
                    await (
                        store.commit(lease, Succeeded()) if step == "commit" else store.release(lease, "engine_crash")
                    )
                elif step in ("cancel", "move") and (waiting := members[who].order):
                    job_id = waiting[n % len(waiting)]
                    with suppress(JobNotWaiting):  # the other process has taken it meanwhile
                        await (store.cancel(job_id, "user") if step == "cancel" else store.move(job_id, n % 3))
                elif step == "pause":
                    await store.pause(LANE, n % 2 == 0)
            for member in members:
                await member.store._database.catch_up()
            fresh = Process(PostgresStore(url, folder / "fresh", lookahead=lookahead))
            await fresh.store.open(fresh.on_event)
            try:
                now = members[0].store.steady()
                for member in members:
                    assert member.store._line.order(LANE, now) == fresh.store._line.order(LANE, now)
                    assert member.store.running(LANE) == fresh.store.running(LANE)
                    assert member.store.is_paused(LANE) == fresh.store.is_paused(LANE)
                    assert member.store._line.turns(LANE) == fresh.store._line.turns(LANE)
            finally:
                await fresh.store.close()

    asyncio.run(play())


async def test_a_second_process_leaves_the_jobs_of_the_first_alone(tmp_path: Path) -> None:
    url = server().new_url()
    async with processes(tmp_path, 1, url) as (first,):
        running = (await first.store.submit(a_job(), NO_BOUNDS)).job
        assert (lease := await first.store.claim(WorkerInfo(id="w", lease_s=30))) is not None
        attached = (await first.store.submit(a_job(attached=True), NO_BOUNDS)).job
        async with processes(tmp_path / "other", 1, url) as (second,):
            assert (await second.store.get(running.id)).state is State.RUNNING
            assert (await second.store.get(attached.id)).state is State.QUEUED
            assert await second.store.reap() == []
            assert await second.store.end_abandoned(10.0) == []
        assert (await first.store.commit(lease, Succeeded()))[0] == "committed"


async def test_a_process_takes_up_what_an_earlier_one_with_its_folder_left(tmp_path: Path) -> None:
    url = server().new_url()
    crashed = PostgresStore(url, tmp_path / "a")
    await crashed.open()
    running = (await crashed.submit(a_job(owner="x"), NO_BOUNDS)).job
    assert await crashed.claim(WorkerInfo(id="w", lease_s=3600)) is not None
    attached = (await crashed.submit(a_job(attached=True), NO_BOUNDS)).job
    with pytest.raises(StoreLocked):
        await PostgresStore(url, tmp_path / "a").open()
    await crashed.close()
    async with processes(tmp_path / "other", 1, url) as (other,):
        again = PostgresStore(url, tmp_path / "a")
        recovered = await again.open()
        try:
            assert [(job.id, job.events[-1].fact) for job in recovered] == [
                (running.id, Requeued(reason="gateway_restart")),
                (attached.id, Cancelled(reason="client_gone")),
            ]
            await other.hears(recovered[-1].events[-1].number)
            assert other.order == [running.id]
        finally:
            await again.close()


async def test_a_gateway_that_starts_again_takes_up_no_job_that_a_worker_runs(tmp_path: Path) -> None:
    url = server().new_url()
    async with processes(tmp_path, 1, url) as (worker,):
        crashed = PostgresStore(url, tmp_path / "gateway")
        await crashed.open()
        job = (await crashed.submit(a_job(attached=True), NO_BOUNDS)).job
        await until(lambda: worker.order == [job.id])
        lease = await worker.store.claim(WorkerInfo(id="w", lease_s=60))
        assert lease is not None
        await crashed.close()
        again = PostgresStore(url, tmp_path / "gateway")
        recovered = await again.open()
        try:
            assert recovered == [], "what is recovered has its files swept"
            assert (await again.get(job.id)).events[-1].fact == CancelRequested(reason="client_gone")
            assert (await worker.store.commit(lease, Succeeded(), image(0)))[0] == "committed"
        finally:
            await again.close()


async def test_a_lease_that_is_not_renewed_expires_and_its_holder_can_write_no_more(tmp_path: Path) -> None:
    async with processes(tmp_path, 2) as (dead, other):
        job = (await dead.store.submit(a_job(), NO_BOUNDS)).job
        assert (lost := await dead.store.claim(WorkerInfo(id="w", lease_s=0.2))) is not None
        assert await dead.store.renew([lost]) == []
        await asyncio.sleep(0.3)
        assert [one.id for one in await other.store.reap()] == [job.id]
        assert (await other.store.get(job.id)).events[-1].fact == Requeued(reason="lease_expired")
        assert (lease := await other.store.claim(WorkerInfo(id="v", lease_s=30))) is not None
        assert await dead.store.renew([lost]) == [lost]
        assert await dead.store.record(lost, image(0)) is None
        assert (await dead.store.commit(lost, Succeeded()))[0] == "fenced"
        assert (await other.store.commit(lease, Succeeded()))[0] == "committed"
        assert await dead.store.reap() == []


async def test_a_stop_reaches_the_process_that_runs_the_job(tmp_path: Path) -> None:
    async with processes(tmp_path, 2) as (runs, stops):
        job = (await runs.store.submit(a_job(), NO_BOUNDS)).job
        assert (lease := await runs.store.claim(WorkerInfo(id="w", lease_s=0.1))) is not None
        after = await stops.store.cancel(job.id, "user")
        await runs.hears(after.events[-1].number)
        assert runs.heard[-1][1].fact == CancelRequested(reason="user")
        await asyncio.sleep(0.2)
        ended = await stops.store.reap()
        assert [one.events[-1].fact for one in ended] == [Cancelled(reason="user")]
        assert (await runs.store.commit(lease, Succeeded()))[0] == "fenced"


async def test_the_death_of_a_gateway_ends_the_jobs_of_its_connections_only(tmp_path: Path) -> None:
    url = server().new_url()
    async with processes(tmp_path, 2, url) as (dead, other):
        names = ("attached", "detached", "with a key")
        jobs = {
            "attached": (await dead.store.submit(a_job(attached=True), NO_BOUNDS)).job,
            "detached": (await dead.store.submit(a_job(), NO_BOUNDS)).job,
            "with a key": (await dead.store.submit(a_job(attached=True, idempotency_key="k"), NO_BOUNDS)).job,
        }
        mine = (await other.store.submit(a_job(attached=True), NO_BOUNDS)).job
        await other.store.withdraw(dead.store.node_id)
        assert [job.id for job in await other.store.end_abandoned(30.0)] == [jobs["attached"].id]
        states = [(await other.store.get(jobs[name].id)).state for name in names]
        assert states == [State.CANCELLED, State.QUEUED, State.QUEUED]
        assert (await other.store.get(mine.id)).state is State.QUEUED


async def test_an_idempotency_key_finds_its_job_through_any_process(tmp_path: Path) -> None:
    async with processes(tmp_path, 2) as (one, other):
        made = await asyncio.gather(
            *(
                p.store.submit(a_job(owner="a", idempotency_key="k", fingerprint="f"), NO_BOUNDS)
                for p in (one, other) * 5
            )
        )
        assert len({submitted.job.id for submitted in made}) == 1
        assert sum(submitted.created for submitted in made) == 1
        with pytest.raises(IdempotencyConflict):
            await other.store.submit(a_job(owner="a", idempotency_key="k", fingerprint="g"), NO_BOUNDS)


async def test_the_bounds_of_the_queue_hold_over_all_processes(tmp_path: Path) -> None:
    async with processes(tmp_path, 2) as (one, other):
        bounds = Bounds(waiting=5)
        results = await asyncio.gather(
            *(p.store.submit(a_job(), bounds) for p in (one, other) * 5), return_exceptions=True
        )
        assert sum(not isinstance(result, BaseException) for result in results) == 5


async def test_nodes_report_and_are_asked_to_drain(tmp_path: Path) -> None:
    async with processes(tmp_path, 2) as (one, other):
        node = Node(one.store.node_id, "mac-1", "worker", "1.0", lanes=("engine",), labels={"room": "a"}, models=("m",))
        assert await one.store.announce(node) is False
        seen = {member.node.id: member for member in await other.store.nodes()}
        assert seen[node.id].node == node
        assert 0 <= seen[node.id].seen_s < 20
        await other.store.drain("mac-1", True)
        assert await one.store.announce(replace(node, state="draining")) is True
        assert [m.is_draining for m in await other.store.nodes() if m.node.name == "mac-1"] == [True]
        await other.store.drain("mac-1", False)
        assert await one.store.announce(node) is False
        await one.store.withdraw(node.id)
        assert node.id not in {member.node.id for member in await other.store.nodes()}


async def test_messages_reach_the_other_processes_in_order(tmp_path: Path) -> None:
    async with processes(tmp_path, 3) as (one, *others):
        sent = [f"message {n} ☀ {'x' * (n * 300)}" for n in range(20)]
        for message in sent:
            await one.store.post(message)
        for other in others:
            await until(lambda other=other: len(other.messages) == len(sent))
            assert other.messages == sent
        assert one.messages == []
        with pytest.raises(ValueError, match="too long"):
            await one.store.post("☀" * 3000)


async def test_a_database_that_goes_away_loses_nothing_and_is_found_again(tmp_path: Path) -> None:
    own = await asyncio.to_thread(Server)
    try:
        async with processes(tmp_path, 2, own.url()) as (one, other):
            job = (await one.store.submit(a_job(), NO_BOUNDS)).job
            assert (lease := await one.store.claim(WorkerInfo(id="w", lease_s=60))) is not None
            await asyncio.to_thread(own.kill)
            with pytest.raises(StorageFault):
                await one.store.submit(a_job(), NO_BOUNDS)
            with pytest.raises(StorageFault):
                await one.store.get(job.id)
            assert one.store.running(LANE) == 1, "the replica answers"
            await asyncio.to_thread(own.start)
            assert (await one.store.commit(lease, Succeeded()))[0] == "committed"
            await until(lambda: bool(other.heard) and other.heard[-1][0].state is State.SUCCEEDED)
            later = (await other.store.submit(a_job(), NO_BOUNDS)).job
            await until(lambda: one.order == [later.id])
    finally:
        await asyncio.to_thread(own.remove)


async def test_a_database_that_was_away_for_long_is_used_as_soon_as_it_is_back(tmp_path: Path) -> None:
    own = await asyncio.to_thread(Server)
    try:
        async with processes(tmp_path, 1, own.url()) as (one,):
            await one.store.submit(a_job(), NO_BOUNDS)
            lease = await one.store.claim(WorkerInfo(id="w", lease_s=60))
            assert lease is not None
            assert await one.store.renew([lease]) == []
            await asyncio.to_thread(own.kill)
            for _ in range(16):
                with pytest.raises(StorageFault):
                    await one.store.renew([lease])
                await asyncio.sleep(0.25)
            await asyncio.to_thread(own.start)
            assert await one.store.renew([lease]) == []
    finally:
        await asyncio.to_thread(own.remove)


STOPS_INSIDE = """
import asyncio, re, sys, time
from pathlib import Path
from gateway.store.postgres import connection
from gateway.store.postgres.store import PostgresStore

connection.SESSION = re.sub("idle_in_transaction_session_timeout=[0-9]+", "{short}", connection.SESSION)

async def main() -> None:
    store = PostgresStore(sys.argv[1], Path(sys.argv[2]))
    await store.open()
    def work(db):
        print("holds the lock", flush=True)
        time.sleep(600)
    await store._database.write(work)

asyncio.run(main())
"""


def test_a_process_that_is_stopped_inside_a_transaction_does_not_stop_the_others(tmp_path: Path) -> None:
    url = server().new_url()
    script = STOPS_INSIDE.format(short="idle_in_transaction_session_timeout=500")
    words = [sys.executable, "-c", script, url, tmp_path / "stopped"]

    async def submit() -> None:
        async with processes(tmp_path / "others", 1, url) as (other,):
            assert (await other.store.submit(a_job(), NO_BOUNDS)).created

    with subprocess.Popen(words, stdout=subprocess.PIPE) as stopped:
        assert stopped.stdout is not None
        assert stopped.stdout.readline().strip() == b"holds the lock"
        os.kill(stopped.pid, signal.SIGSTOP)
        try:
            asyncio.run(submit())
        finally:
            stopped.kill()


async def test_a_database_of_another_version_is_refused_while_others_use_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = server().new_url()
    upgrade = "CREATE TABLE more (number BIGINT);ALTER TABLE jobs ADD COLUMN more TEXT;"
    async with processes(tmp_path, 1, url) as (old,):
        job = (await old.store.submit(a_job(), NO_BOUNDS)).job
        await old.store.announce(Node(old.store.node_id, "mac-1", "gateway", "1.0"))
        with monkeypatch.context() as newer:
            newer.setattr("gateway.store.postgres.schema.VERSION", VERSION + 1)
            newer.setattr("gateway.store.postgres.schema.UPGRADES", {VERSION: upgrade})
            with pytest.raises(
                StoreCorrupt, match=f"version {VERSION}, and mac-1 still use it.*to version {VERSION + 1}"
            ):
                await PostgresStore(url, tmp_path / "new").open()
    with monkeypatch.context() as newer:
        newer.setattr("gateway.store.postgres.schema.VERSION", VERSION + 1)
        newer.setattr("gateway.store.postgres.schema.UPGRADES", {VERSION: upgrade})
        store = PostgresStore(url, tmp_path / "newer")
        await store.open()
        assert (await store.get(job.id)).id == job.id
        await store.close()
    with pytest.raises(StoreCorrupt, match=f"has version {VERSION + 1}; this program reads {VERSION}"):
        await PostgresStore(url, tmp_path / "0").open()


@pytest.mark.parametrize("is_done", [True, False])
async def test_a_commit_whose_answer_is_lost_counts_where_it_was_done(tmp_path: Path, is_done: bool) -> None:
    async with processes(tmp_path, 2) as (one, other):
        job = (await one.store.submit(a_job(), NO_BOUNDS)).job
        lease = await one.store.claim(WorkerInfo(id="w", lease_s=30))
        assert lease is not None
        _lose_the_answer_of_a_commit(one.store, is_done=is_done)
        if is_done:
            event = await one.store.record(lease, image(0))
            assert event is not None
            await other.hears(event.number)
        else:
            with pytest.raises(StorageFault):
                await one.store.record(lease, image(0))
        images = (await other.store.get(job.id)).images
        assert len(images) == is_done
        if is_done:
            assert await one.store.record(lease, image(0)) == event, "a second time it is the same event"
        last = await one.store.record(lease, image(len(images)))
        assert last is not None
        for process in (one, other):
            await process.hears(last.number)
        assert one.numbers == other.numbers == list(range(1, len(one.numbers) + 1))


def _lose_the_answer_of_a_commit(store: PostgresStore, *, is_done: bool) -> None:
    """Break the writing connection at its next commit: before it is sent, or before its answer."""
    connection = store._database._connection
    assert connection is not None
    execute = connection.execute

    def broken(sql: str, *values: Any) -> Any:
        if sql != "COMMIT":
            return execute(sql, *values)
        if is_done:
            execute(sql)
        connection.close()
        raise psycopg.OperationalError("the connection is lost")

    connection.execute = broken  # type: ignore[method-assign]


async def test_store_whose_database_is_away_can_be_closed_after_its_start_has_failed(tmp_path: Path) -> None:
    store = PostgresStore("postgresql:///postgres?host=/nowhere", tmp_path / "a")
    with pytest.raises(StorageFault):
        await store.open()
    await store.close()


async def test_a_store_can_be_closed_twice(tmp_path: Path) -> None:
    async with processes(tmp_path, 1) as (one,):
        await one.store.close()


async def test_a_prompt_is_found_whatever_characters_it_has(tmp_path: Path) -> None:
    async with processes(tmp_path, 1) as (one,):
        prompts = ["a Red \\u0000 circle", 'quote " and \\ and %', "ÄÖ ☀ ein Kreis", "???"]
        jobs = {
            text: (await one.store.submit(a_job(owner="a", plan=a_plan(prompt=text)), NO_BOUNDS)).job
            for text in prompts
        }
        for word, text in (("red", prompts[0]), ("%", prompts[1]), ("☀", prompts[2]), ("??", prompts[3])):
            assert [job.id for job in await one.store.list_jobs(owner="a", words=[word])] == [jobs[text].id]


async def test_random_writes_of_two_processes_keep_every_record_sound(tmp_path: Path) -> None:
    rng = random.Random(5)
    async with processes(tmp_path, 2) as members:
        for _ in range(10):
            store = rng.choice(members).store
            await store.submit(a_job(owner="a"), NO_BOUNDS)
            if (lease := await store.claim(WorkerInfo(id="w", lease_s=60))) is not None:
                await store.record(lease, image(0))
                await rng.choice(members).store.commit(lease, Succeeded())
        for member in members:
            await member.store.look_over()
            assert await member.store.damaged() == []
        with pytest.raises(JobNotFound):
            await members[0].store.get("0" * 32)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (("/postgres?", "/nothing?"), "does not exist"),
        (("user=postgres", "user=nobody-there"), "does not exist"),
        (("options=", "application_name=x&options="), None),
        (("options=-c%20search_path%3D", "options=-c%20search_path%3Dmissing_"), "no schema in its search path"),
    ],
)
async def test_a_store_that_the_server_refuses_says_why_and_names_no_address(
    tmp_path: Path, change: tuple[str, str], sentence: str | None
) -> None:
    store = PostgresStore(server().new_url().replace(*change), tmp_path)
    if sentence is None:
        await store.open()
        await store.close()
        return
    with pytest.raises(StorageFault, match=sentence) as refused:
        await store.open()
    assert "host=" not in refused.value.message


@pytest.mark.parametrize("cell", ["plan = '{'", "standing_priority = 77", "checksum = 'x'"])
async def test_a_damaged_record_stops_no_process(tmp_path: Path, cell: str) -> None:
    url = server().new_url()
    async with processes(tmp_path, 2, url) as (one, other):
        damaged = (await one.store.submit(a_job(), NO_BOUNDS)).job
        await other.hears(damaged.events[-1].number)
        later = (await one.store.submit(a_job(), NO_BOUNDS)).job
        await one.store._database.run(f"UPDATE jobs SET {cell} WHERE id = ?", (damaged.id,))
        await one.store._database.run("UPDATE events SET fact = fact || ' ' WHERE job_id = ?", (damaged.id,))
        await one.store._database.run("UPDATE counters SET seq = seq + 1 WHERE name = 'moves'")
        assert (await other.store.submit(a_job(), NO_BOUNDS)).created
        async with processes(tmp_path / "third", 1, url) as (third,):
            assert (await third.store.submit(a_job(), NO_BOUNDS)).created
            await third.store.look_over()
            assert [record.job_id for record in await other.store.damaged()] == [damaged.id]
        assert (lease := await other.store.claim(WorkerInfo(id="w", lease_s=30))) is not None
        assert lease.job.id == later.id
