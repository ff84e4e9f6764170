"""A browser's EventSource, in headless Chromium, against a real gateway with the fake engine."""

from __future__ import annotations

import http.server
import os
import shutil
import threading
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from tests.live import Live, live

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
ARGUMENTS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--host-resolver-rules=MAP evil.example 127.0.0.1",
]
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
    if CHROMIUM is None:
        assert not os.environ.get("CI"), "CI must have Chromium"
        pytest.skip("no Chromium on this machine")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
        yield browser
        browser.close()


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


def test_an_event_source_follows_a_job_to_its_picture_and_then_stops(gateway: Live, browser: Any) -> None:
    page = browser.new_page()
    page.goto(f"{gateway.url}/health/live")
    seen = followed(page, gateway)
    assert seen["width"] == 64
    assert seen["progress"]
    assert seen["progress"] == sorted(seen["progress"])
    assert seen["opened"] == 1
    page.close()


def test_a_page_on_another_loopback_port_may_use_it_too(gateway: Live, browser: Any, other_site: int) -> None:
    """S-03: anchored loopback origins are allowed by default."""
    page = browser.new_page()
    page.goto(f"http://127.0.0.1:{other_site}/")
    assert followed(page, gateway)["width"] == 64
    page.close()


def test_a_foreign_page_can_neither_read_nor_queue(gateway: Live, browser: Any, other_site: int) -> None:
    """S-03, S-04, S-05: no drive-by."""
    before = httpx.get(f"{gateway.url}/api/v1/jobs").json()
    page = browser.new_page()
    page.goto(f"http://evil.example:{other_site}/")
    tries = page.evaluate(DRIVE_BY, gateway.url)
    assert tries["read"] == tries["simple"] == "blocked"
    assert tries["opaque"] in (0, "blocked")
    assert httpx.get(f"{gateway.url}/api/v1/jobs").json() == before
    page.close()
