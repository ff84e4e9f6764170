"""The application as a whole: health, what is owned by whom, how it starts and how it stops."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import httpx
import psutil
import pytest

from adapters import ADAPTERS
from gateway import errors
from gateway.errors import GatewayError
from gateway.settings import keys
from tests.support.live import ROOT, Live, live

SMALL = {"prompt": "x", "width": 64, "height": 64, "steps": 4}


def engine_of(gateway: Live) -> psutil.Process:
    assert gateway.process is not None
    found = [c for c in psutil.Process(gateway.process.pid).children() if "engine" in " ".join(c.cmdline())]
    assert len(found) == 1
    return found[0]


def test_health_ready_is_503_while_the_engine_is_down_and_200_when_it_is_back(tmp_path: Path) -> None:
    """R-21."""
    with live(tmp_path, fake_script={"start_seconds": 1.0}) as gateway:
        assert httpx.get(f"{gateway.url}/health/ready").json()["status"] == "ready"
        engine_of(gateway).send_signal(signal.SIGKILL)
        codes = set()
        while 503 not in codes:
            answer = httpx.get(f"{gateway.url}/health/ready")
            codes.add(answer.status_code)
        assert answer.json()["reason"]
        assert httpx.get(f"{gateway.url}/health/live").status_code == 200
        gateway.wait_for("/health/ready")


def test_health_greeting_and_log_say_that_the_embedded_model_draws(tmp_path: Path) -> None:
    with live(tmp_path) as gateway:
        ready = httpx.get(f"{gateway.url}/health/ready").json()
        health = httpx.get(f"{gateway.url}/api/v1/health").json()
        greeting, *logged = gateway.logged().splitlines()
    assert (ready["model"], ready["embedded"]) == ("flux2-tiny", True)
    assert (health["default_model"], health["embedded"]) == ("flux2-tiny", True)
    assert "drawing with flux2-tiny" in greeting
    assert "embedded model" in logged[0]
    started = next(record for record in map(json.loads, logged[1:]) if record["msg"] == "started")
    assert (started["model"], started["is_embedded"]) == ("flux2-tiny", True)


def test_start_without_the_model_on_disk_logs_it_and_how_to_draw_at_once(tmp_path: Path) -> None:
    config = {"models": {"default": "flux2-klein-4b", "cache_dir": str(tmp_path / "models")}}
    with live(tmp_path, config=config) as gateway:
        assert httpx.get(f"{gateway.url}/health/ready").json()["embedded"] is False
        assert "flux2-klein-4b is not on this machine" in gateway.logged()
        assert "Start with --model flux2-tiny to draw at once" in gateway.logged()


def test_every_error_renders_in_every_protocol() -> None:
    kinds = [e for e in vars(errors).values() if isinstance(e, type) and issubclass(e, GatewayError)]
    assert len(kinds) > 15
    for adapter in ADAPTERS:
        for kind in kinds:
            error = kind(param="prompt")
            response = adapter.render_error(error)
            assert response.status_code >= 400
            assert len(bytes(response.body)) < 4096
            body = json.loads(bytes(response.body))
            assert body.get("detail") or body.get("error") or body.get("message")


def test_routes_have_one_adapter_each_and_lie_below_its_prefix() -> None:
    seen: dict[tuple[str, str], str] = {}
    for adapter in ADAPTERS:
        for route in adapter.routes:
            assert any(route.path == prefix or route.path.startswith(prefix + "/") for prefix in adapter.prefixes)
            for method in route.methods or ():
                assert seen.setdefault((route.path, method), adapter.name) == adapter.name


def test_get_routes_change_no_state_except_three_of_mflux_server() -> None:
    """Its clients call them so; a HEAD changes nothing even there."""
    words = r"submit\w*|cancel|hide|inputs\.keep|retry|move|pause|resume|skip|abandon|pull|remove\w*|unload\w*"
    service_words = re.compile(rf"\.({words}|residency\.clear)\(")
    import inspect

    changing = {
        route.path
        for adapter in ADAPTERS
        for route in adapter.routes
        if route.methods and "GET" in route.methods and service_words.search(inspect.getsource(route.endpoint))
    }
    assert changing == {prefix + path for prefix in ("", "/api") for path in ("/cancel", "/clear", "/image")}
    assert all("HEAD" not in (r.methods or ()) for a in ADAPTERS for r in a.routes if r.path in changing)


def test_form_bodies_are_accepted_only_on_routes_that_describe_them(tmp_path: Path) -> None:
    """S-05: a page can send a form to anybody without a preflight."""
    with live(tmp_path) as gateway, httpx.Client(base_url=gateway.url) as client:
        for adapter in ADAPTERS:
            for name, operation in adapter.described.items():
                method, path = name.split(" ")
                if method not in ("POST", "PUT", "PATCH", "DELETE"):
                    continue
                url = re.sub(r"\{\w+(:\w+)?\}", "x", path)
                answer = client.request(method, url, files={"nothing": b"x"})
                refused = client.request(method, url, content=b"{}", headers={"content-type": "text/plain"})
                assert refused.status_code == (422 if adapter.name == "sdapi" else 415), name  # FastAPI says 422
                assert (answer.status_code == refused.status_code) == (operation.form is None), name
                assert "json" in answer.headers["content-type"]


def test_every_protocol_has_its_row_in_the_readme() -> None:
    readme = (ROOT / "README.md").read_text()
    for adapter in ADAPTERS:
        assert f"`{adapter.prefix}`" in readme


def test_unknown_paths_are_answered_by_the_protocol_that_owns_them(tmp_path: Path) -> None:
    with live(tmp_path) as gateway:
        assert httpx.get(f"{gateway.url}/sdapi/v1/nothing").json() == {"detail": "Not Found"}
        assert httpx.get(f"{gateway.url}/v1/nothing").json()["error"]["type"] == "invalid_request_error"
        assert httpx.get(f"{gateway.url}/api/v1/nothing").json()["code"] == "NOT_FOUND"
        assert httpx.get(f"{gateway.url}/nothing").status_code == 404


def test_sigterm_with_an_open_stream_and_a_running_job_ends_cleanly_and_loses_nothing(tmp_path: Path) -> None:
    """R-13."""
    gateway = Live(tmp_path, fake_script={"step_seconds": 0.3}).start()
    job = httpx.post(f"{gateway.url}/api/v1/generate", json=SMALL).json()
    lines: list[str] = []

    def follow() -> None:
        with httpx.stream("GET", f"{gateway.url}/api/v1/jobs/{job['job_id']}/stream", timeout=30) as stream:
            lines.extend(stream.iter_lines())

    reader = threading.Thread(target=follow)
    reader.start()
    while not any("started" in line for line in lines) and reader.is_alive() and len(lines) < 6:
        time.sleep(0.02)
    engine = engine_of(gateway)
    assert gateway.stop() == 0
    reader.join()
    assert "event: shutdown" in lines
    assert not engine.is_running()
    gateway.fake_script = {}
    gateway.start()
    while (status := httpx.get(f"{gateway.url}/api/v1/jobs/{job['job_id']}").json()["status"]) != "completed":
        assert status in ("queued", "generating")
    gateway.stop()


def test_second_gateway_on_the_same_data_folder_exits_with_one_line(tmp_path: Path) -> None:
    with live(tmp_path):
        second = Live(tmp_path)
        with pytest.raises(AssertionError, match="the gateway left with 1") as left:
            second.start(ready=False)
        second.log.close()
    assert "Another gateway is using this data folder." in str(left.value)
    assert "Traceback" not in str(left.value)


def test_listening_on_a_reachable_address_needs_a_key_or_consent(tmp_path: Path) -> None:
    """S-01."""
    command = [sys.executable, "api_main.py", "--host", "0.0.0.0", "--port", "0", "--data-dir", str(tmp_path)]
    refused = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60, env=os.environ.copy())
    assert refused.returncode == 2
    assert len(refused.stderr.strip().splitlines()) == 1
    assert "keys_file" in refused.stderr


def test_misspelt_setting_is_an_error_that_suggests_the_nearest_name(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text("server:\n  prot: 1\n")
    command = [sys.executable, "api_main.py", "--config", str(tmp_path / "config.yaml")]
    refused = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert refused.returncode == 2
    assert "server.port" in refused.stderr
    assert "Traceback" not in refused.stderr


def test_log_contains_no_prompts_and_no_keys(tmp_path: Path) -> None:
    """S-40, S-41: canaries through every protocol; a prompt cannot forge a line."""
    canary = "\x1b[2J\r\nFAKE canary-4711"
    with live(tmp_path) as gateway:
        httpx.post(f"{gateway.url}/sdapi/v1/txt2img", json={**SMALL, "prompt": canary}, timeout=30)
        httpx.post(f"{gateway.url}/v1/images/generations", json={"prompt": canary, "size": "64x64"}, timeout=30)
        httpx.post(f"{gateway.url}/api/v1/generate?q=canary-4711", json={**SMALL, "prompt": canary}, timeout=30)
        httpx.post(f"{gateway.url}/api/v1/generate", json={"prompt": canary, "width": "canary-4711"}, timeout=30)
        httpx.get(f"{gateway.url}/api/v1/health", headers={"Authorization": "Bearer canary-4711"})
    log = gateway.logged()
    assert "canary-4711" not in log
    assert "FAKE" not in log
    assert "\x1b" not in log


def test_settings_are_all_used_in_the_code() -> None:
    rooms = [*(ROOT / "gateway").rglob("*.py"), *(ROOT / "adapters").rglob("*.py"), ROOT / "api_main.py"]
    code = "\n".join(file.read_text() for file in rooms if file.name != "example.py")
    for section, key in keys():
        assert re.search(rf"\.{key}\b", code), f"{section}.{key} is read by nobody"
