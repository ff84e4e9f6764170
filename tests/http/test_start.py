"""The start: what answers before the gateway is whole, in which order its parts come, and what they cost."""

from __future__ import annotations

import contextlib
import json
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Annotated

import httpx
import psutil
import pytest
from pydantic import AliasChoices, BaseModel, Field

from adapters import PROTOCOLS
from gateway.lazy_model import DocumentedModel, LazyModel
from tests.support.forked import ANEW
from tests.support.guarded import rest
from tests.support.live import ROOT, Live

SMALL = {"prompt": "x", "width": 64, "height": 64, "steps": 1}
RSS_MOST = 100e6
HEAVY = {"PIL", "yaml", "rich", "typer", "httpx", "httpx2", "huggingface_hub", "jinja2", "numpy", "mlx", "mflux"}
HEAVY |= {"obstore"}

LISTENING = """
import json, sys
from gateway.http import server

def run(app, settings, **options):
    print(json.dumps(sorted(sys.modules)))

server.run = run
import api_main
api_main.main()
"""
"""A gateway that tells which modules it has imported where it would listen, and ends."""

HELD = """
import time
from pathlib import Path
import api_main
from gateway.store import database

open_checked = database.open_checked
def held(file):
    Path({entered!r}).touch()
    while not Path({go!r}).exists():
        time.sleep(0.01)
    return open_checked(file)
database.open_checked = held
api_main.main()
"""
"""A gateway whose store is not opened before the file `go` is there."""

SPAWNED = """
import sys
from pathlib import Path
import api_main
from engine.client.child import Child

start = Child.start.__func__
async def started(cls, options, on_report):
    child = await start(cls, options, on_report)
    Path({file!r}).write_text("\\n".join(sys.modules))
    return child
Child.start = classmethod(started)
api_main.main()
"""
"""A gateway that writes down which modules it had imported when the engine's process was started."""

STOPPED = """
import os, signal
from pathlib import Path
import api_main
from gateway import startup

import_module = startup.import_module
def stopped(name):
    if name.startswith("adapters."):
        os.kill(os.getpid(), signal.SIGTERM)
    with Path({file!r}).open("a") as file:
        print(name, file=file)
    return import_module(name)
startup.import_module = stopped
api_main.main()
"""
"""A gateway that gets SIGTERM while it imports its first protocol."""


class Starting:
    """A gateway whose start is held; `go` lets it go on."""

    def __init__(self, folder: Path, *arguments: str) -> None:
        entered, self._go = folder / "entered", folder / "go"
        program = ("-c", HELD.format(entered=str(entered), go=str(self._go)))
        self.gateway = Live(folder, program=program, arguments=arguments)
        starts = threading.Thread(target=self._start, daemon=True)
        starts.start()
        end = time.monotonic() + 20
        while not entered.exists():
            assert time.monotonic() < end
            time.sleep(0.01)

    def _start(self) -> None:
        with contextlib.suppress(AssertionError):  # it may be stopped before it has started
            self.gateway.start()

    def go(self) -> None:
        self._go.touch()

    def get(self, path: str, **options: object) -> httpx.Response:
        return httpx.get(self.gateway.url + path, timeout=30, **options)  # type: ignore[arg-type]


@contextlib.contextmanager
def starting(folder: Path, *arguments: str) -> Iterator[Starting]:
    """A gateway whose start is held; stopped in the end."""
    held = Starting(folder, *arguments)
    try:
        yield held
    finally:
        held.go()
        if held.gateway.process is not None and held.gateway.process.poll() is None:
            held.gateway.stop()


def waits(answer: Future[httpx.Response]) -> bool:
    """Whether a request is still unanswered after a while."""
    time.sleep(0.2)
    return not answer.done()


def modules_of(program: str, *arguments: str) -> set[str]:
    """The modules that a fresh interpreter reports as JSON."""
    command = [sys.executable, "-c", program, *arguments]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=True)
    return set(json.loads(done.stdout))


# ---- what is imported when ------------------------------------------------------------------------


def test_start_imports_no_heavy_package_and_no_protocol_before_it_listens(tmp_path: Path) -> None:
    modules = modules_of(LISTENING, "--data-dir", str(tmp_path / "data"), "--port", "0")
    assert "gateway.access.guard" in modules
    assert not modules & {"gateway.app", "gateway.service.service", "gateway.store.sqlite", "prometheus_client"}
    assert not modules & HEAVY
    assert not {name for name in modules if name.startswith("adapters.")}


def test_protocols_import_no_heavy_package_and_build_no_schema() -> None:
    program = """
import json, sys
from adapters import ADAPTERS
from gateway.lazy_model import LazyModel
from engine.protocol import Frozen

def below(model):
    return {model}.union(*map(below, model.__subclasses__()))

built = [model.__name__ for base in (LazyModel, Frozen) for model in below(base) if model.__pydantic_complete__]
print(json.dumps([*sys.modules, *(f"built {name}" for name in built)]))
"""
    modules = modules_of(program)
    assert set(PROTOCOLS) <= modules
    assert not modules & HEAVY
    built = {name for name in modules if name.startswith("built ")}
    assert built <= {"built LazyModel", "built DocumentedModel", "built Limits", "built Adjustment"}, "without values"


def test_models_of_requests_settings_and_files_are_all_lazy() -> None:
    """Every model is of a base whose schemas are built at their first use, except the rows of the catalogue."""
    program = """
import json
from adapters import ADAPTERS
from pydantic import BaseModel
import gateway.ocr.wire, gateway.downloads.wire

def below(model):
    return {model}.union(*map(below, model.__subclasses__()))

ours = [model for model in below(BaseModel) if model.__module__.split(".")[0] in ("adapters", "gateway", "engine")]
print(json.dumps([model.__name__ for model in ours if not model.model_config.get("defer_build")]))
"""
    assert modules_of(program) == {"HubFiles", "ModelSpec"}


def test_engine_process_is_started_before_protocols_are_imported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(ANEW, "1")
    file = tmp_path / "modules"
    gateway = Live(tmp_path, program=("-c", SPAWNED.format(file=str(file)))).start()
    assert gateway.stop() == 0
    assert not {name for name in file.read_text().split() if name.startswith(("adapters.", "obstore"))}


def test_memory_of_a_gateway_that_has_started_is_below_its_bound(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """77 MB, before schemas were built at their first use: benchmarks.start has the figures."""
    monkeypatch.setenv(ANEW, "1")
    gateway = Live(tmp_path).start()
    assert gateway.process is not None
    rss = psutil.Process(gateway.process.pid).memory_info().rss
    gateway.stop()
    assert rss < RSS_MOST


# ---- requests during the start ----------------------------------------------------------------------


def test_requests_during_the_start_wait_and_health_answers_at_once(tmp_path: Path) -> None:
    with starting(tmp_path) as held, ThreadPoolExecutor() as threads:
        assert held.get("/health/live").json() == {"status": "alive"}
        ready = held.get("/health/ready")
        assert (ready.status_code, ready.json()["reason"]) == (503, "The gateway is starting.")
        assert ready.json()["status"] == "not_ready"
        url = held.gateway.url
        image = threads.submit(httpx.post, f"{url}/v1/images/generations", json=SMALL, timeout=30)
        job = threads.submit(httpx.post, f"{url}/api/v1/generate", json=SMALL, timeout=30)
        page = threads.submit(held.get, "/")
        lost = threads.submit(held.get, "/sdapi/v1/nothing")
        wrong = threads.submit(httpx.post, f"{url}/health/live", json={}, timeout=30)
        everyone = (image, job, page, lost, wrong)
        assert all(map(waits, everyone))
        assert held.get("/health/live").status_code == 200
        held.go()
        codes = [answer.result(30).status_code for answer in everyone]
        assert codes == [200, 200, 200, 404, 405]
        assert image.result().json()["data"]
        assert lost.result().json() == {"detail": "Not Found"}
        held.gateway.wait_for("/health/ready")


def test_guard_applies_to_requests_during_the_start(tmp_path: Path) -> None:
    keys = tmp_path / "keys"
    keys.write_text("ann 0123456789abcdef\n")
    keys.chmod(0o600)
    with starting(tmp_path, "--keys-file", str(keys)) as held, ThreadPoolExecutor() as threads:
        assert held.get("/health/live").status_code == 200
        assert held.get("/health/live").headers["x-content-type-options"] == "nosniff"
        assert held.get("/health/live", headers={"Host": "evil.example"}).status_code == 400
        assert held.get("/health/live", headers={"Origin": "https://evil.example"}).status_code == 403
        assert held.get("/health/ready").status_code == 401
        for _ in range(9):
            assert held.get("/health/ready", headers={"X-API-Key": "wrong"}).status_code == 401
        mine = {"X-API-Key": "0123456789abcdef"}
        assert held.get("/health/ready", headers=mine).status_code == 503
        url = f"{held.gateway.url}/api/v1/generate"
        headers = {"nobody": {}, "guess": {"X-API-Key": "wrong"}, "ann": mine}
        posts = {
            who: threads.submit(httpx.post, url, json=SMALL, headers=head, timeout=30) for who, head in headers.items()
        }
        page = threads.submit(httpx.post, url, json=SMALL, headers={"Origin": "https://evil.example"}, timeout=30)
        form = threads.submit(httpx.post, url, content="{}", headers={**mine, "content-type": "text/plain"}, timeout=30)
        large = threads.submit(httpx.post, f"{held.gateway.url}/token", content=b"x" * 300_000, timeout=30)
        assert all(map(waits, (*posts.values(), page, form, large)))
        held.go()
        assert {who: answer.result(30).status_code for who, answer in posts.items()} == {
            "nobody": 401,
            "guess": 401,
            "ann": 200,
        }
        assert [answer.result(30).status_code for answer in (page, form, large)] == [403, 415, 413]
        assert held.get("/api/v1/jobs", headers={"X-API-Key": "wrong"}).status_code == 429, (
            "guesses count from the first"
        )


def test_connections_are_bounded_during_the_start(tmp_path: Path) -> None:
    with starting(tmp_path) as held:
        for request, status in (
            (b"GET /health/live HTTP/1.1\r\nhost: localhost\r\n" + b"x: y\r\n" * 200 + b"\r\n", b"431"),
            (b"GET /" + b"x" * 10_000 + b" HTTP/1.1\r\nhost: localhost\r\n\r\n", b"414"),
            (b"nonsense\r\n\r\n", b"400"),
        ):
            with socket.create_connection(("127.0.0.1", held.gateway.port), timeout=20) as sock:
                sock.sendall(request)
                assert rest(sock).split(b" ")[1] == status
        held.go()
        held.gateway.wait_for("/health/ready")


# ---- starts that come to nothing --------------------------------------------------------------------


def test_signal_during_the_start_ends_it_and_answers_who_waits(tmp_path: Path) -> None:
    with starting(tmp_path) as held, ThreadPoolExecutor() as threads:
        waiting = threads.submit(held.get, "/api/v1/jobs")
        assert waits(waiting)
        began = time.monotonic()
        threading.Timer(0.2, held.go).start()
        assert held.gateway.stop() == 0
        assert time.monotonic() - began < 5.5
        answer = waiting.result(10)
        assert (answer.status_code, answer.json()["error"]["message"]) == (503, "The gateway is stopping.")
    assert "Traceback" not in held.gateway.logged()
    assert '"started"' not in held.gateway.logged()


def test_signal_while_protocols_are_imported_ends_the_start(tmp_path: Path) -> None:
    file = tmp_path / "imported"
    gateway = Live(tmp_path, program=("-c", STOPPED.format(file=str(file))))
    with contextlib.suppress(AssertionError):  # it leaves before it is ready
        gateway.start()
    assert gateway.process is not None
    assert gateway.process.wait(10) == 0
    gateway.log.close()
    assert file.read_text().split()[-1] == PROTOCOLS[0]
    assert "Traceback" not in gateway.logged()


def test_start_that_fails_while_a_request_waits_exits_with_the_reason(tmp_path: Path) -> None:
    data = tmp_path / "data"
    data.mkdir(mode=0o700)
    (data / "jobs.sqlite3").write_bytes(b"no database at all, but long enough to be looked at" * 100)
    held = Starting(tmp_path)
    with ThreadPoolExecutor() as threads:
        waiting = threads.submit(held.get, "/api/v1/jobs")
        assert waits(waiting)
        held.go()
        assert held.gateway.process is not None
        assert held.gateway.process.wait(20) == 1
        held.gateway.log.close()
        assert waiting.result(10).status_code == 503
    logged = held.gateway.logged()
    assert "Traceback" not in logged
    assert "mflux-gateway: the gateway could not start; the reason is logged above" in logged


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["--model", "no-such-model"], "there is no model no-such-model"),
        (["--keys-file", "nowhere"], "access.keys_file nowhere: cannot be read"),
    ],
)
def test_bad_setting_is_one_line_before_anything_listens(tmp_path: Path, arguments: list[str], reason: str) -> None:
    command = [sys.executable, str(ROOT / "api_main.py"), "--port", "0", *arguments]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert reason in done.stderr


def test_command_that_starts_a_gateway_says_why_it_cannot(tmp_path: Path) -> None:
    """Its /health/live answers before the data folder is found to be locked."""
    gateway = Live(tmp_path).start()
    try:
        config = tmp_path / "config.yaml"
        values = json.loads(config.read_text())
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            values["server"] = {"port": probe.getsockname()[1]}
        config.write_text(json.dumps(values))
        command = [sys.executable, "-m", "api_main", "generate", "x", "--config", str(config)]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)
    finally:
        gateway.stop()
    assert done.returncode == 3
    assert "The gateway could not be started" in done.stderr


# ---- models that describe their fields ----------------------------------------------------------------


class Base(DocumentedModel):
    first: int = 0
    """Text of the base."""
    second: int = 0
    """Another text of the base."""


class Derived(Base):
    second: int = 1
    third: Annotated[int, Field(description="Its own.")] = 0
    """Not this."""
    fourth: int = Field(0, validation_alias=AliasChoices("fourth_name", "4"))
    """Two
    lines."""


def test_documented_model_describes_fields_by_the_strings_under_them() -> None:
    properties = Derived.model_json_schema()["properties"]
    assert {name: field.get("description") for name, field in properties.items()} == {
        "first": "Text of the base.",
        "second": None,
        "third": "Its own.",
        "fourth_name": "Two\nlines.",
    }


def test_lazy_model_builds_its_schema_at_first_use() -> None:
    class Small(LazyModel):
        number: int

    class Usual(BaseModel):
        number: int

    assert (Small.__pydantic_complete__, Usual.__pydantic_complete__) == (False, True)
    assert Small(number=1).number == 1
    assert Small.__pydantic_complete__
