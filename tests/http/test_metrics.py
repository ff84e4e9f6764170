"""What a Prometheus reads at /metrics, and the forecast's record in /api/v1/stats."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from pathlib import Path

import httpx
import psutil
import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.support.live import Live, live
from tests.support.native import client_of, ended, submit

PROMPT = "CANARY of a prompt"


class Scraped:
    """The samples of one scrape."""

    def __init__(self, gateway: Live) -> None:
        answer = httpx.get(f"{gateway.url}/metrics")
        assert answer.status_code == 200
        assert answer.headers["content-type"].startswith("text/plain; version=")
        self.text = answer.text
        self._samples = [s for family in text_string_to_metric_families(answer.text) for s in family.samples]

    def of(self, name: str, **labels: str) -> float | None:
        """The one with these labels among others; None where there is none."""
        found = [
            sample.value
            for sample in self._samples
            if sample.name == f"mflux_gateway_{name}" and labels.items() <= sample.labels.items()
        ]
        assert len(found) <= 1, name
        return found[0] if found else None


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Live]:
    with live(tmp_path_factory.mktemp("metrics"), fake_script={"step_seconds": 0.01}) as gateway:
        yield gateway


@pytest.fixture
def client(gateway: Live) -> Iterator[httpx.Client]:
    with client_of(gateway.url) as client:
        yield client


def test_metrics_count_jobs_pictures_and_requests_by_protocol_without_client_names(
    gateway: Live, client: httpx.Client
) -> None:
    before = Scraped(gateway)
    done = ended(client, submit(client, prompt=PROMPT, num_images=2)["job_id"])
    body = {"prompt": PROMPT, "size": "64x64"}
    assert httpx.post(f"{gateway.url}/v1/images/generations", json=body, timeout=60).status_code == 200
    client.post("/queue/pause")
    waiting = submit(client)["job_id"]
    now = Scraped(gateway)

    def more(name: str, **labels: str) -> float:
        return (now.of(name, **labels) or 0) - (before.of(name, **labels) or 0)

    assert more("jobs_submitted_total", protocol="native") == 2
    assert more("jobs_ended_total", protocol="native", state="succeeded") == 1
    assert more("jobs_ended_total", protocol="openai", state="succeeded") == 1
    assert (more("images_total", protocol="native"), more("images_total", protocol="openai")) == (2, 1)
    assert more("job_run_seconds_count", protocol="native") == 1
    assert more("http_requests_total", protocol="v1", method="POST", status="200") == 1
    assert now.of("jobs", protocol="native", state="queued") == now.of("queue_waiting", lane="engine") == 1
    assert (now.of("queue_waiting", lane="cpu"), now.of("queue_paused")) == (0, 1)
    assert now.of("engine_up") == 1
    held = now.of("engine_memory_bytes", kind="active")
    assert held is not None
    assert held > 0
    assert "process_resident_memory_bytes" in now.text
    for secret in (PROMPT, done["id"], client.headers["x-client-id"], "127.0.0.1"):
        assert secret not in now.text
    client.delete(f"/jobs/{waiting}")
    client.post("/queue/resume")


def test_forecast_accuracy_is_in_stats_and_in_metrics(gateway: Live, client: httpx.Client) -> None:
    ended(client, submit(client)["job_id"])
    stats, scraped = client.get("/stats").json()["forecast"], Scraped(gateway)
    assert stats["count"] == scraped.of("forecasts") >= 1
    assert stats["coverage"] == pytest.approx(scraped.of("forecast_coverage_ratio"), abs=1e-4)
    assert {"median_error", "median_wait_error"} < set(stats)


def test_metrics_count_an_engine_crash_and_its_failed_job(gateway: Live, client: httpx.Client) -> None:
    before = Scraped(gateway)
    job_id = submit(client, num_images=10)["job_id"]
    while client.get(f"/jobs/{job_id}").json()["progress"] == 0:
        pass
    assert gateway.process is not None
    for child in psutil.Process(gateway.process.pid).children(recursive=True):
        if "engine" in child.cmdline():
            child.send_signal(signal.SIGKILL)
    assert ended(client, job_id)["status"] == "completed"
    now = Scraped(gateway)
    assert (now.of("engine_starts") or 0) - (before.of("engine_starts") or 0) == 1
    assert now.of("engine_deaths") == 1
    assert now.of("jobs_requeued_total", reason="engine_crash") == 1


def test_metrics_are_served_as_openmetrics_on_request(gateway: Live) -> None:
    answer = httpx.get(f"{gateway.url}/metrics", headers={"Accept": "application/openmetrics-text; version=1.0.0"})
    assert answer.headers["content-type"].startswith("application/openmetrics-text")
    assert answer.text.endswith("# EOF\n")


def test_metrics_get_no_new_series_from_unknown_methods_and_paths(gateway: Live) -> None:
    for n in range(5):
        assert httpx.request(f"FOO{n}", f"{gateway.url}/nowhere/{n}").status_code in (404, 405)
    text = Scraped(gateway).text
    assert 'method="other"' in text
    assert "FOO" not in text
    assert "nowhere" not in text


def test_metrics_need_the_key_where_there_is_one(tmp_path: Path) -> None:
    """S-43."""
    keys = tmp_path / "keys"
    keys.write_text("me 0123456789abcdef\n")
    keys.chmod(0o600)
    gateway = Live(tmp_path, config={"access": {"keys_file": str(keys)}}).start(ready=False)
    try:
        assert httpx.get(f"{gateway.url}/metrics").status_code == 401
        assert httpx.get(f"{gateway.url}/metrics", headers={"X-API-Key": "0123456789abcdef"}).status_code == 200
    finally:
        gateway.stop()
