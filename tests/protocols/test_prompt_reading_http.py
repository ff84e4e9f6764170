"""A prompt that was not read whole is told in every protocol, on the page and on the command line."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from adapters.shared.responses import ADJUSTMENTS_CHARS, adjustments_header
from gateway.jobs.resolve import Adjustment
from tests.support.chromium import chromium
from tests.support.live import ROOT, Live
from tests.support.native import client_of, ended, events, submit
from tests.support.studio import studio
from tests.support.v1 import MODEL, models_config

LONG = "a masterpiece of one red apple"
"""Of six words, the first five of which are read."""
SHORT = "a red apple"
CUT = ("prompt", 6, 5)
UNKNOWN = ("prompt", "masterpiece", None)
SCALED = ("size", "64x64", "128x128")
WANTS = "wants"
"""A model that takes a negative prompt, and a second pass."""


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Live]:
    folder = tmp_path_factory.mktemp("read")
    models = models_config(folder)
    models["local"][WANTS] = {"path": str(folder / "weights"), "like": "z-image"}
    script = {"prompt_words": 5, "unknown_words": ["masterpiece"]}
    running = Live(folder, fake_script=script, config={"models": models, "engine": {"memory_gb": 100}})
    try:
        yield running.start()
    finally:
        running.stop()


@pytest.fixture
def client(gateway: Live) -> Iterator[httpx.Client]:
    with client_of(gateway.url) as client:
        yield client


def told(adjustments: Any) -> list[tuple[str, Any, Any]]:
    return [(one["param"], one["asked"], one["used"]) for one in adjustments]


def in_header(answer: httpx.Response) -> list[tuple[str, Any, Any]]:
    return told(json.loads(answer.headers.get("x-adjustments", "[]")))


# ---- /api/v1 -------------------------------------------------------------------------------------


def test_a_native_job_tells_it_at_once_in_its_stream_and_ever_after(client: httpx.Client) -> None:
    job_id = submit(client, prompt=LONG, num_images=2, width=72)["job_id"]
    happened = events(client, job_id)
    assert [event["event"] for event in happened if "id" in event] == [
        *("queued", "started", "adjusted", "image", "image", "complete")
    ]
    (event,) = (event for event in happened if event["event"] == "adjusted")
    assert told(event["data"]["adjustments"]) == [CUT, UNKNOWN]
    assert event["data"]["adjustments"][0]["reason"] == "the model reads 5 of its 6 tokens; left out: apple"
    replayed = events(client, job_id, last=f"{job_id}:2")
    assert [again["event"] for again in replayed if "id" in again] == ["adjusted", "image", "image", "complete"]
    job = ended(client, job_id)
    assert told(job["adjustments"]) == [("width", 72, 64), CUT, UNKNOWN, SCALED]
    assert in_header(client.get(job["image_urls"][1].removeprefix("/api/v1"))) == told(job["adjustments"])
    listed = client.get("/images").json()["images"]
    assert [told(picture["adjustments"]) for picture in listed] == [told(job["adjustments"])] * 2


def test_a_job_tried_again_tells_it_of_its_own_pictures(client: httpx.Client) -> None:
    first = submit(client, prompt=LONG)["job_id"]
    ended(client, first)
    again = client.post(f"/jobs/{first}/retry").json()
    assert again["adjustments"] == []
    assert told(ended(client, again["job_id"])["adjustments"]) == [CUT, UNKNOWN, SCALED]


def test_a_prompt_that_was_read_whole_tells_nothing(client: httpx.Client) -> None:
    job_id = submit(client, prompt=SHORT, width=128, height=128)["job_id"]
    assert "adjusted" not in [event["event"] for event in events(client, job_id)]
    job = ended(client, job_id)
    assert job["adjustments"] == []
    assert "x-adjustments" not in client.get(job["image_urls"][0].removeprefix("/api/v1")).headers


# ---- /v1 -----------------------------------------------------------------------------------------


def test_v1_tells_it_beside_the_picture_in_the_header_and_where_the_picture_lies(gateway: Live) -> None:
    body = {"model": WANTS, "prompt": LONG, "negative_prompt": f"not {LONG}", "guidance": 4, "size": "64x64"}
    expected = [CUT, UNKNOWN, ("negative_prompt", 7, 5), ("negative_prompt", "masterpiece", None)]
    route = f"{gateway.url}/v1/images/generations"
    answer = httpx.post(route, json={**body, "steps": 2, "response_format": "url"}, timeout=60)
    assert told(answer.json()["adjustments"]) == in_header(answer) == expected
    assert in_header(httpx.get(answer.json()["data"][0]["url"])) == expected
    streamed = httpx.post(route, json={**body, "steps": 2, "n": 2, "stream": True}, timeout=60)
    data = [json.loads(line.removeprefix("data: ")) for line in streamed.text.splitlines() if line.startswith("data: ")]
    completed = [event for event in data if event["type"] == "image_generation.completed"]
    assert [told(event["adjustments"]) for event in completed] == [expected, expected]


# ---- /sdapi --------------------------------------------------------------------------------------


def test_sdapi_tells_it_in_info_as_a1111_words_it(gateway: Live) -> None:
    body: dict[str, Any] = {"prompt": LONG, "negative_prompt": LONG, "model": WANTS, "cfg_scale": 4, "steps": 2}
    hires = {"enable_hr": True, "hr_scale": 2, "hr_prompt": f"{LONG} pie", "width": 64, "height": 64}
    answer = httpx.post(f"{gateway.url}/sdapi/v1/txt2img", json={**body, **hires}, timeout=60)
    info = json.loads(answer.json()["info"])
    wanted = {CUT, UNKNOWN, ("negative_prompt", 6, 5), ("hr_prompt", 7, 5), ("hr_prompt", "masterpiece", None)}
    assert wanted <= {*told(info["adjustments"])}
    assert len([one for one in told(info["adjustments"]) if one == ("negative_prompt", 6, 5)]) == 1
    assert in_header(answer) == told(info["adjustments"])
    warning = "Warning: too many input tokens; some ({}) have been truncated:\n{}\n\n"
    assert info["comments"] == "".join(
        [warning.format(1, "apple"), warning.format(1, "apple"), warning.format(2, "apple pie")]
    )
    assert info["infotexts"][0].startswith(f"{LONG}\nNegative prompt: {LONG}\nSteps: 2, ")


def test_sdapi_says_nothing_of_a_prompt_that_was_read_whole(gateway: Live) -> None:
    answer = httpx.post(f"{gateway.url}/sdapi/v1/txt2img", json={"prompt": SHORT, "width": 64, "height": 64})
    assert json.loads(answer.json()["info"])["comments"] == ""
    assert "prompt" not in [one[0] for one in in_header(answer)]


# ---- mflux-server --------------------------------------------------------------------------------


def test_mflux_server_tells_it_when_the_task_is_done(gateway: Live) -> None:
    with httpx.Client(base_url=f"{gateway.url}/api", timeout=60, headers={"X-Client-Id": "task"}) as client:
        body = {"prompt": LONG, "width": 64, "height": 64, "steps": 1}
        task = {"task_id": client.post("/generate", json=body).json()["task_id"]}
        while (status := client.get("/status", params=task).json())["status"] != "done":
            time.sleep(0.02)
        assert told(status["adjustments"]) == [CUT, UNKNOWN, SCALED]
        assert in_header(client.get("/image", params=task)) == [("guidance", 3.5, 1.0), CUT, UNKNOWN, SCALED]


# ---- people --------------------------------------------------------------------------------------


def test_the_command_line_prints_it(gateway: Live, tmp_path: Path) -> None:
    said = ["generate", LONG, "-o", str(tmp_path / "a.png"), "--size", "64x64", "--url", gateway.url]
    done = subprocess.run([sys.executable, "api_main.py", *said], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    printed = " ".join(done.stderr.split())
    assert "prompt: 5 instead of 6. the model reads 5 of its 6 tokens; left out: apple" in printed
    assert "prompt: nothing instead of masterpiece. the model does not know these words" in printed
    assert "draws circle, square, triangle" in printed
    assert "flux2-klein-4b draws any prompt and fits this machine: mflux-gateway models pull flux2-klein-4b" in printed


TOASTS_STAY = """() => {
  const wait = window.setTimeout;
  window.setTimeout = (call, ms, ...rest) => wait(call, ms >= 6000 ? 120000 : ms, ...rest);
}"""
"""On a busy machine a toast of some seconds may be over before it is looked for."""


def test_the_page_says_it_when_it_happens_and_beside_the_picture(gateway: Live) -> None:
    with chromium() as browser, studio(browser, gateway) as tab:
        tab.page.evaluate(TOASTS_STAY)
        tab.draw(LONG)
        tab.page.wait_for_selector(".toast:has-text('prompt: 6 became 5; the model reads 5 of its 6 tokens')")
        tab.page.wait_for_selector(".toast:has-text('prompt: masterpiece became nothing')")
        hint = tab.page.locator(".toast", has_text="draws circle, square")
        assert "flux2-klein-4b draws any prompt and fits this machine" in hint.inner_text()
        hint.get_by_role("button", name="Use flux2-klein-4b").click()
        assert tab.page.input_value("#model") == "flux2-klein-4b"
        tab.page.select_option("#model", MODEL)
        tab.see(LONG)
        tab.tile(LONG).locator(".open").click()
        tab.page.wait_for_selector("dialog .adjusted:has-text('left out: apple')")
        assert tab.page.locator("dialog .adjusted").count() == 2


# ---- the header ----------------------------------------------------------------------------------


def test_the_header_is_ascii_in_one_line_and_as_long_as_proxies_let_pass() -> None:
    one = Adjustment(param="prompt", asked=9, used=5, reason="left out: \n\rö \U0001f984")
    (value,) = adjustments_header([one]).values()
    assert value.isascii()
    assert value.isprintable()
    assert json.loads(value) == [one.model_dump()]
    assert adjustments_header([]) == {}
    long = [one.model_copy(update={"param": f"p{n}", "reason": "ö" * 500}) for n in range(9)]
    assert json.loads(adjustments_header(long)["X-Adjustments"]) == [{"param": f"p{n}"} for n in range(9)]
    many = [one.model_copy(update={"param": "ö" * 60 + str(n)}) for n in range(99)]
    assert len(adjustments_header(many)["X-Adjustments"]) <= ADJUSTMENTS_CHARS
