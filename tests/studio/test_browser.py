"""A browser's EventSource, in headless Chromium, against a real gateway with the fake engine."""

from __future__ import annotations

import http.server
import json
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.support.chromium import chromium
from tests.support.live import Live, live

FOLLOW = """
async ([base, body]) => {
  const made = await fetch(base + '/api/v1/generate', {
    method: 'POST', headers: {'Content-Type': 'application/json'}, body: JSON.stringify(body)});
  const job = await made.json();
  return await new Promise((resolve, reject) => {
    const seen = {progress: [], opened: 0};
    const source = new EventSource(base + '/api/v1/jobs/' + job.job_id + '/stream');
    source.addEventListener('open', () => { seen.opened += 1; });
    source.addEventListener('progress', (e) => { seen.progress.push(JSON.parse(e.data).progress); });
    source.addEventListener('complete', (e) => { seen.result = JSON.parse(e.data).result; });
    source.onerror = () => {
      // After the end the stream closes, the browser asks again, and 204 makes it stop for good.
      if (seen.result && source.readyState === EventSource.CLOSED) {
        const picture = new Image();
        picture.onload = () => resolve({...seen, width: picture.naturalWidth, result: undefined});
        picture.onerror = reject;
        picture.src = 'data:image/png;base64,' + seen.result.images[0];
      }
    };
  });
}
"""
FOLLOW_ALL = """
async ([base, body, count]) => {
  const submit = async () => (await (await fetch(base + '/api/v1/generate', {
    method: 'POST', headers: {'Content-Type': 'application/json'}, body: JSON.stringify(body)})).json()).job_id;
  window.seen = {ids: [], names: [], snapshots: 0, opened: 0, ended: []};
  const source = new EventSource(base + '/api/v1/events');
  source.addEventListener('open', () => { seen.opened += 1; });
  await new Promise((resolve) => source.addEventListener('snapshot', (e) => { seen.snapshots += 1; resolve(); }));
  for (const name of ['queued', 'started', 'image', 'requeued', 'complete', 'error', 'cancelled'])
    source.addEventListener(name, (e) => {
      if (!e.data) return;  // the browser's own error event
      seen.ids.push(Number(e.lastEventId));
      seen.names.push(name);
      if (['complete', 'error', 'cancelled'].includes(name)) seen.ended.push(JSON.parse(e.data).job_id);
    });
  const jobs = [];
  for (let i = 0; i < count; i++) jobs.push(await submit());
  return jobs;
}
"""
DRIVE_BY = """
async (base) => {
  const tries = {};
  for (const [name, options] of Object.entries({
    read: {}, simple: {method: 'POST', body: '{"prompt": "x"}'}, opaque: {mode: 'no-cors'}})) {
    try { tries[name] = (await fetch(base + '/api/v1/' + (name === 'simple' ? 'generate' : 'jobs'), options)).status; }
    catch (e) { tries[name] = 'blocked'; }
  }
  return tries;
}
"""


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Live]:
    with live(tmp_path_factory.mktemp("browser"), fake_script={"step_seconds": 0.05}) as gateway:
        yield gateway


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with chromium() as browser:
        yield browser


class BlankPage(http.server.BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "text/html")
        self.end_headers()
        self.wfile.write(b"<!doctype html><title>elsewhere</title>")

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture(scope="module")
def other_site() -> Iterator[int]:
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), BlankPage) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server.server_address[1]
        server.shutdown()


def followed(page: Any, gateway: Live) -> dict[str, Any]:
    body = {"prompt": "a red circle", "width": 64, "height": 64, "steps": 4}
    result: dict[str, Any] = page.evaluate(FOLLOW, [gateway.url, body])
    return result


def test_event_source_receives_a_job_up_to_its_picture_and_then_stops(gateway: Live, browser: Any) -> None:
    page = browser.new_page()
    page.goto(f"{gateway.url}/health/live")
    seen = followed(page, gateway)
    assert seen["width"] == 64
    assert seen["progress"]
    assert seen["progress"] == sorted(seen["progress"])
    assert seen["opened"] == 1
    page.close()


def test_page_of_another_loopback_port_may_call_too(gateway: Live, browser: Any, other_site: int) -> None:
    """S-03: anchored loopback origins are allowed by default."""
    page = browser.new_page()
    page.goto(f"http://127.0.0.1:{other_site}/")
    assert followed(page, gateway)["width"] == 64
    page.close()


def test_page_of_a_foreign_origin_can_neither_read_nor_queue_jobs(gateway: Live, browser: Any, other_site: int) -> None:
    """S-03, S-04, S-05: no drive-by."""
    before = httpx.get(f"{gateway.url}/api/v1/jobs").json()
    page = browser.new_page()
    page.goto(f"http://evil.example:{other_site}/")
    tries = page.evaluate(DRIVE_BY, gateway.url)
    assert tries["read"] == tries["simple"] == "blocked"
    assert tries["opaque"] in (0, "blocked")
    assert httpx.get(f"{gateway.url}/api/v1/jobs").json() == before
    page.close()


def test_the_javascript_of_the_documentation_runs_as_written(gateway: Live, browser: Any) -> None:
    """The third seed's EventSource."""
    seed = json.loads((Path(__file__).parents[1] / "seeds" / "mflux_api.json").read_text())
    body = {"prompt": "a red circle", "width": 64, "height": 64, "steps": 4}
    httpx.post(f"{gateway.url}/api/v1/queue/pause")
    job_id = httpx.post(f"{gateway.url}/api/v1/generate", json=body).json()["job_id"]
    page = browser.new_page(bypass_csp=True)  # for Playwright's own waiting
    said: list[str] = []
    page.on("console", lambda message: said.append(message.text))
    page.goto(f"{gateway.url}/health/live")
    page.evaluate(
        "\n".join(seed["javascript"]).replace("a3f2b8c9d4e5", job_id).replace("const eventSource", "eventSource")
    )
    page.wait_for_function("eventSource.readyState === EventSource.OPEN")
    httpx.post(f"{gateway.url}/api/v1/queue/resume")
    page.wait_for_function("eventSource.readyState === EventSource.CLOSED")
    assert any(line.startswith("Progress: ") and line.endswith("%") for line in said)
    assert any(line.startswith("Generation complete!") for line in said)
    page.close()


def test_event_source_gets_all_jobs_even_over_a_gateway_restart(browser: Any, tmp_path: Path) -> None:
    """It comes back by itself with the last id, and misses nothing and hears nothing twice."""
    gateway = Live(tmp_path, fake_script={"step_seconds": 0.1}).start()
    try:
        page = browser.new_page(bypass_csp=True)  # for Playwright's own waiting
        page.goto(f"{gateway.url}/health/live")
        body = {"prompt": "a red circle", "width": 64, "height": 64, "steps": 8, "num_images": 2}
        jobs = page.evaluate(FOLLOW_ALL, [gateway.url, body, 2])
        page.wait_for_function("seen.names.includes('image')")
        gateway.stop()
        gateway.start()
        page.wait_for_function(f"seen.ended.length === {len(jobs)}")
        seen = page.evaluate("seen")
        assert sorted(seen["ended"]) == sorted(jobs)
        assert seen["opened"] >= 2
        assert seen["snapshots"] == 1
        assert seen["ids"] == sorted(set(seen["ids"]))
        assert seen["names"].count("image") == 4
        assert seen["names"].count("requeued") >= 1
        page.close()
    finally:
        gateway.stop()


def test_openapi_documentation_page_works_under_the_strict_content_security_policy(gateway: Live, browser: Any) -> None:
    """S-15, S-42: nothing is fetched from elsewhere, nothing is refused by the policy."""
    page = browser.new_page()
    asked: list[str] = []
    complaints: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.on("console", lambda message: complaints.append(message.text) if message.type == "error" else None)
    page.goto(f"{gateway.url}/swagger", wait_until="commit")
    page.wait_for_selector("#operations-tag-native")
    page.click("#operations-tag-native")
    page.click("#operations-native-post_api_v1_generate")
    page.wait_for_selector("text=Make a job")
    assert page.locator(".opblock-tag").count() >= 6
    assert all(url.startswith((gateway.url, "data:", "blob:")) for url in asked)
    assert complaints == []
    page.close()
