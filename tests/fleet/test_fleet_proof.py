"""Fleets of real processes with faults made on purpose, in slices of benchmarks/fleet; docs/scale-out.md."""

from __future__ import annotations

import asyncio
import plistlib
import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import httpx
import psutil
import psycopg
import pytest

from benchmarks.fleet.faults import partition, stopped
from benchmarks.fleet.kills import kills
from benchmarks.fleet.locks import claims
from benchmarks.fleet.processes import Fleet
from benchmarks.fleet.speed import cancel, dispatch
from benchmarks.fleet.streams import streams
from engine.protocol import Succeeded
from gateway.jobs.facts import Requeued
from gateway.jobs.job import State
from gateway.settings import load_settings
from gateway.store.base import WorkerInfo
from gateway.store.postgres.connection import connected, parameters, quoted
from gateway.store.postgres.store import PostgresStore
from tests.support import a_job
from tests.support.fleet import LEASE_S, fleet_in
from tests.support.live import ROOT, free_port
from tests.support.postgres import OPTIONS, UNPRIVILEGED, Server, program, server
from tests.support.service import ME, request, until
from tests.support.store import NO_BOUNDS, image

PAGE = (ROOT / "docs" / "scale-out.md").read_text(encoding="utf-8")


@pytest.fixture(autouse=True)
def _no_process_is_left() -> Iterator[None]:
    before = {child.pid for child in psutil.Process().children(recursive=True)}
    yield
    children = psutil.Process().children(recursive=True)
    left = [child.cmdline() for child in children if child.pid not in before and "api_main.py" in child.cmdline()]
    assert left == []


def test_kills_of_workers_gateways_and_database_lose_no_job_and_file_nothing_twice(tmp_path: Path) -> None:
    found = kills(tmp_path, server(), rounds=3, workers=2, pause_s=1.0, seed=2)
    assert found["mistakes"] == []
    assert (found["lost"], found["twice"], found["other_pixels"]) == (0, 0, 0)
    assert sum(found["kills"].values()) == 3
    assert found["acknowledged"] > 3


def test_stopped_worker_is_fenced_after_its_lease(tmp_path: Path) -> None:
    found = stopped(tmp_path, server(), rounds=1, lease_s=1.5)
    assert (found["mistakes"], found["lost"], found["twice"], found["other_pixels"]) == ([], 0, 0, 0)
    assert found["requeued"] == {"lease_expired": 1}


def test_worker_without_its_database_is_fenced_and_goes_on(tmp_path: Path) -> None:
    found = partition(tmp_path, server(), rounds=2, lease_s=1.5)
    assert (found["mistakes"], found["lost"], found["twice"], found["other_pixels"]) == ([], 0, 0, 0)


async def test_each_image_of_a_job_is_filed_after_the_store_was_away_for_longer_than_the_lease(tmp_path: Path) -> None:
    async with fleet_in(tmp_path) as fleet:
        gateway = await fleet.start("gateway", lanes=(), models=())
        await fleet.start("worker", script={"step_seconds": 0.1})
        job = await gateway.submit(request(steps=5, seeds=(1, 2, 3)), ME)
        await until(lambda: gateway.events.progress(job.id) is not None)
        for view in fleet.stores.values():
            view.is_away = True
        await asyncio.sleep(2 * LEASE_S)
        for view in fleet.stores.values():
            view.is_away = False
        ended = await asyncio.wait_for(gateway.ended(job.id), 20)
        assert (ended.state, ended.attempt, len(ended.images)) == (State.SUCCEEDED, 1, 3)
        files = {file.name for file in (tmp_path / "output").iterdir() if file.suffix == ".png"}
        assert files == {image.file for image in ended.images}


def test_idle_worker_starts_a_job_when_it_is_submitted_and_not_at_its_next_report(tmp_path: Path) -> None:
    found = dispatch(tmp_path, server(), jobs=3, rounds=1)
    assert found["submit to start"]["p50_ms"] < 1000


def test_cancel_through_the_other_gateway_ends_the_drawing_before_the_image(tmp_path: Path) -> None:
    found = cancel(tmp_path, server(), jobs=2, step_s=0.2)
    assert found["cancel to end"]["max_ms"] < 10_000  # the image takes 20 s


def test_stream_of_another_gateway_has_every_event_once_over_a_kill(tmp_path: Path) -> None:
    found = streams(tmp_path, server(), jobs=2)
    assert found["kills"] == {"worker": 1, "gateway": 1, "none": 0}


def test_claim_of_a_long_queue_is_no_multiple_of_that_of_a_short_one(tmp_path: Path) -> None:
    found = claims(tmp_path, server(), many=120, few=20, times=2)
    assert found["claim"]["ratio"] < 10


def test_worker_with_the_documented_rights_works_and_cannot_change_tables(tmp_path: Path) -> None:
    fleet = Fleet(tmp_path, server(), gateways=1, workers=1)
    schema = _schema(fleet.url)
    worker_url = fleet.url.replace("user=postgres", "user=mflux_worker")
    rights = re.search(r"```sql\n(.*?)```", PAGE, re.DOTALL)
    assert rights is not None
    _make_roles()
    fleet.reach("worker-1", worker_url)
    (worker,) = fleet.workers
    fleet.workers = []
    with fleet, httpx.Client(base_url=fleet.gateways[0].url, timeout=60) as http:
        with psycopg.connect(fleet.url, autocommit=True) as db:
            sql = rights[1].replace("DATABASE mflux", "DATABASE postgres").replace("SCHEMA public", f"SCHEMA {schema}")
            db.execute(sql.encode())
        worker.start()
        fleet.workers = [worker]
        body = {"prompt": "a red circle", "width": 64, "height": 64, "steps": 2, "num_images": 2}
        job_id = http.post("/api/v1/generate", json=body).raise_for_status().json()["job_id"]
        fleet.wait_ended([job_id], 60)
        assert http.get(f"/api/v1/jobs/{job_id}").json()["status"] == "completed"
        assert worker.stop() == 0
        assert "Traceback" not in worker.log()
    forbidden = (
        "DROP TABLE jobs",
        "TRUNCATE events",
        "ALTER TABLE jobs ADD COLUMN x TEXT",
        "UPDATE schema_version SET version = 1",
        f"CREATE TABLE {schema}.more (n INT)",
        "CREATE ROLE more",
        "SELECT rolpassword FROM pg_authid",
        "SELECT pg_read_file('postgresql.conf')",
        "COPY jobs TO PROGRAM 'true'",
    )
    with psycopg.connect(worker_url, autocommit=True) as db:
        for statement in forbidden:
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                db.execute(statement.encode())


def _schema(url: str) -> str:
    options = parse_qs(urlsplit(url).query)["options"][0]
    return quoted(options.partition("search_path=")[2])


def _make_roles() -> None:
    with psycopg.connect(server().url(), autocommit=True) as db:
        for role in ("mflux", "mflux_worker"):
            if db.execute("SELECT 1 FROM pg_roles WHERE rolname = %s", (role,)).fetchone() is None:
                db.execute(f"CREATE ROLE {role} LOGIN".encode())


async def test_dump_and_restore_as_documented_bring_back_the_queue(tmp_path: Path) -> None:
    host = f"host={server().folder}&user=postgres"
    for name in ("dumped", "restored"):
        with psycopg.connect(server().url(), autocommit=True) as db:
            db.execute(f"DROP DATABASE IF EXISTS {name}".encode())
            db.execute(f"CREATE DATABASE {name}".encode())
    store = PostgresStore(f"postgresql:///dumped?{host}", tmp_path / "a")
    await store.open()
    done = (await store.submit(a_job(), NO_BOUNDS)).job
    assert (lease := await store.claim(WorkerInfo("w", lease_s=60))) is not None  # noqa: RUF018
    await store.commit(lease, Succeeded(), image(0))
    running = (await store.submit(a_job(owner="x"), NO_BOUNDS)).job
    assert await store.claim(WorkerInfo("w", lease_s=0.01)) is not None
    waiting = [(await store.submit(a_job(owner=f"o{n % 2}"), NO_BOUNDS)).job.id for n in range(5)]
    order = [job.id for job in store.order("engine")]
    for line in ("pg_dump --format=custom --file=mflux.dump", "pg_restore --no-owner"):
        assert line in PAGE
    dump = tmp_path / "mflux.dump"
    _run("pg_dump", "--format=custom", f"--file={dump}", f"postgresql:///dumped?{host}")
    await store.close()
    _run("pg_restore", "--no-owner", f"--dbname=postgresql:///restored?{host}", str(dump))
    store = PostgresStore(f"postgresql:///restored?{host}", tmp_path / "b")
    await store.open()
    try:
        assert (await store.get(done.id)).state is State.SUCCEEDED
        assert sorted(order) == sorted(waiting)
        assert [job.id for job in store.order("engine")] == order
        assert [job.id for job in await store.reap()] == [running.id]
        assert (await store.get(running.id)).events[-1].fact == Requeued(reason="lease_expired")
        assert (await store.submit(a_job(), NO_BOUNDS)).job.number == 8
        assert await store.damaged() == []
    finally:
        await store.close()


def _run(*words: str) -> None:
    subprocess.run([program(words[0]), *words[1:]], check=True, capture_output=True)


def test_documented_service_of_a_worker_has_settings_that_exist(tmp_path: Path) -> None:
    text = re.search(r"```xml\n(.*?)```", PAGE, re.DOTALL)
    settings = re.search(r"`worker.yaml`:\n\n```yaml\n(.*?)```", PAGE, re.DOTALL)
    assert text is not None
    assert settings is not None
    service = plistlib.loads(text[1].encode())
    assert service["ProgramArguments"][1:3] == ["worker", "--config"]
    file = tmp_path / "worker.yaml"
    file.write_text(settings[1].replace("/Users/me", str(tmp_path)).replace("/Volumes", str(tmp_path)))
    loaded = load_settings(["--config", str(file)], {}, "worker")
    assert loaded.worker.name == "mac-2"
    assert service["ExitTimeOut"] > loaded.worker.drain_s


def test_database_on_another_machine_is_reached_by_tls_alone(certificates: Path) -> None:
    """By the command of docs/scale-out.md, for an address of this machine."""
    assert OPENSSL.replace("127.0.0.1", "mac-1.local").replace("IP:", "DNS:") in PAGE
    port = free_port()
    options = ("listen_addresses=127.0.0.1", "ssl=on", f"ssl_cert_file={certificates}/server.crt")
    own = Server((*OPTIONS, *options, f"ssl_key_file={certificates}/server.key"), port)
    try:
        url = f"postgresql://postgres@127.0.0.1:{port}/postgres?sslmode=verify-full&sslrootcert={certificates}"
        with connected(f"{url}/server.crt", "proof") as db:
            encrypted = db.execute("SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()").fetchone()
            assert encrypted is not None
            assert encrypted[0]
        with pytest.raises(psycopg.OperationalError, match="certificate"):
            connected(f"{url}/other.crt", "proof")
    finally:
        own.remove()
    assert parameters("postgresql://mflux@mac-1.local/mflux", "proof")["sslmode"] == "require"
    assert "sslmode" not in parameters("postgresql://mflux@localhost/mflux", "proof")


OPENSSL = "openssl req -new -x509 -days 3650 -nodes -subj /CN=127.0.0.1 -addext subjectAltName=IP:127.0.0.1"


@pytest.fixture
def certificates() -> Iterator[Path]:
    """A folder with a certificate of a server and its key, and with a certificate of another one."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for who in ("server", "other"):
            words = [*OPENSSL.split(), "-keyout", folder / f"{who}.key", "-out", folder / f"{who}.crt"]
            subprocess.run(words, check=True, capture_output=True)
            (folder / f"{who}.key").chmod(0o600)
            if UNPRIVILEGED is not None:
                shutil.chown(folder / f"{who}.key", UNPRIVILEGED)
        folder.chmod(0o755)
        yield folder
