"""The studio in headless Chromium: pictures are made, jobs watched, results kept. With the fake engine."""

from __future__ import annotations

import base64
import io
import re
import threading
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import httpx
import pytest
from openai import OpenAI
from PIL import Image

from tests.support.chromium import chromium
from tests.support.foreign_pictures import PROMPT, comfy, comfy_graph
from tests.support.live import Live, live
from tests.support.studio import Studio, a_picture, studio

FOLDER = Path(__file__).parents[2] / "adapters" / "web" / "studio"
CANARY = '<img src=x onerror="canary=1"><svg onload=canary=1>'
MODEL = "<b onclick=canary=1>tiny</b>"
PACE_S = 0.12
GIVEN = """([base64, how]) => {
  const bytes = Uint8Array.from(atob(base64), (c) => c.charCodeAt(0));
  const carried = new DataTransfer();
  carried.items.add(new File([bytes], 'a.png', {type: 'image/png'}));
  const said = {dataTransfer: carried, clipboardData: carried, bubbles: true, cancelable: true};
  for (const type of how === 'drop' ? ['dragenter', 'dragover', 'drop'] : ['paste'])
    document.querySelector('.keep').dispatchEvent(new (how === 'drop' ? DragEvent : ClipboardEvent)(type, said));
}"""


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Live]:
    folder = tmp_path_factory.mktemp("studio")
    config = {"models": {"aliases": {MODEL: "flux2-tiny"}}}
    with live(folder, fake_script={"step_seconds": PACE_S}, config=config) as gateway:
        yield gateway


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with chromium() as browser:
        yield browser


@pytest.fixture
def tab(browser: Any, gateway: Live) -> Iterator[Studio]:
    httpx.post(f"{gateway.url}/api/v1/queue/resume")
    with studio(browser, gateway) as tab:
        yield tab
    httpx.post(f"{gateway.url}/api/v1/queue/resume")


def paused(gateway: Live, tab: Studio) -> None:
    tab.page.click("#pause")
    tab.page.wait_for_selector("#pause[aria-pressed=true]")


# ---- what is served ------------------------------------------------------------------------------


def test_studio_page_is_small_and_never_parses_html_from_text() -> None:
    """S-42; and no style of an attribute, which the policy forbids."""
    files = [file for file in FOLDER.iterdir() if file.is_file()]
    assert sum(file.stat().st_size for file in files) < 150_000
    forbidden = re.compile(
        r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|DOMParser|\beval\(|new Function|https?://(?!www\.w3\.org)|style="
    )
    for file in files:
        assert not forbidden.findall(file.read_text()), file.name
        assert len(file.read_text().splitlines()) <= 400, file.name


def test_studio_file_is_cached_by_etag_and_other_files_are_404(gateway: Live) -> None:
    part = httpx.get(f"{gateway.url}/studio/main.js")
    assert part.headers["content-type"].startswith("text/javascript")
    again = httpx.get(f"{gateway.url}/studio/main.js", headers={"If-None-Match": part.headers["etag"]})
    assert again.status_code == 304
    assert httpx.get(f"{gateway.url}/studio/routes.py").json()["code"] == "not_found"
    assert httpx.get(f"{gateway.url}/studio/page.html").status_code == 404


# ---- make ----------------------------------------------------------------------------------------


def test_studio_every_prompt_line_becomes_a_job_and_every_picture_is_shown(tab: Studio) -> None:
    tab.page.check("#lines")
    tab.draw("a red circle\n\na blue square", count=2)
    tab.see("a red circle")
    tab.see("a blue square")
    assert tab.page.locator(".tile").count() == 4 or tab.page.wait_for_selector(".tile:nth-child(4)")
    tab.tile("a red circle").locator(".open").click()
    tab.page.wait_for_selector("dialog .quote:text-is('a red circle')")


def test_studio_offers_only_what_the_model_can_do(tab: Studio) -> None:
    page = tab.page
    assert page.is_hidden("#guidance-field")
    assert page.is_hidden("#negative-field")
    assert page.get_attribute("#steps", "max") == "8"
    assert page.locator("#references").is_visible()
    page.evaluate("document.querySelector('#model option[value=z-image]').selected = true")
    page.dispatch_event("#model", "change")
    assert page.is_visible("#guidance-field")
    assert page.is_visible("#negative-field")
    assert page.is_hidden("#references")
    assert page.input_value("#width") == "1024"


def test_studio_aspect_keeps_the_area_and_a_refused_size_is_explained(tab: Studio) -> None:
    tab.page.click("#aspects button:has-text('16:9')")
    assert (tab.page.input_value("#width"), tab.page.input_value("#height")) == ("176", "96")
    tab.page.click("#swap")
    assert tab.page.input_value("#height") == "176"
    tab.page.route(
        "**/api/v1/generate",
        lambda route: route.fulfill(status=400, json={"error": f"No {CANARY}", "code": "INVALID_PARAM", "details": {}}),
    )
    tab.draw("anything")
    tab.page.wait_for_selector("#refusal:has-text('No <img src=x')")
    tab.complaints = [text for text in tab.complaints if "status of 400" not in text]


def test_studio_input_picture_with_a_mask_is_drawn_and_its_settings_are_restored(gateway: Live, tab: Studio) -> None:
    page = tab.page
    page.set_input_files("#input-slot input[type=file]", files=[a_picture()])
    page.click("#mask")
    box = page.locator(".paint").bounding_box()
    page.mouse.move(box["x"] + box["width"] / 4, box["y"] + box["height"] / 2)
    page.mouse.down()
    page.mouse.move(box["x"] + box["width"] * 3 / 4, box["y"] + box["height"] / 2, steps=4)
    page.mouse.up()
    page.click("text=Use this mask")
    page.wait_for_selector("#input-slot .mask")
    page.set_input_files("#reference-slots input[type=file]", files=[a_picture("blue")])
    page.wait_for_selector("#reference-slots img")
    page.click("#lora-add")
    page.locator(".lora input").fill("0.5")
    lora = page.input_value(".lora select")
    tab.draw("a masked star")
    tab.see("a masked star")
    drawing = httpx.get(f"{gateway.url}/api/v1/images", params={"search": "masked"}).json()["images"][0]["drawing"]
    mask = Image.open(io.BytesIO(httpx.get(f"{gateway.url}/api/v1/uploads/{drawing['mask']}").content)).convert("L")
    assert (mask.getpixel((64, 64)), mask.getpixel((64, 4))) == (255, 0)
    assert (len(drawing["reference_images"]), drawing["loras"]) == (1, [{"name": lora, "scale": 0.5}])
    page.click("#input-slot button:has-text('Remove')")
    page.click("[aria-label='Remove reference 1']")
    page.click(".lora button")
    page.click("#stage button:has-text('Use these settings')")
    page.wait_for_selector("#input-slot .mask")
    assert page.input_value("#seed") == str(drawing["seed"])
    page.wait_for_selector("#reference-slots img")
    assert page.input_value(".lora input") == "0.5"


# ---- watch ---------------------------------------------------------------------------------------


def test_studio_shows_a_job_of_the_openai_client_with_progress_preview_and_picture(gateway: Live, tab: Studio) -> None:
    paused(gateway, tab)

    def ask() -> None:
        """Large enough to be seen while it is drawn."""
        asked = {"prompt": "a green kite", "size": "512x512", "extra_body": {"steps": 8}}
        with OpenAI(base_url=f"{gateway.url}/v1", api_key="none", max_retries=0) as client:
            for _ in client.images.generate(model="flux2-tiny", stream=True, partial_images=3, **asked):
                pass

    asking = threading.Thread(target=ask)
    asking.start()
    try:
        row = tab.job("a green kite")
        row.wait_for()
        assert row.locator(".badge").text_content() == "OpenAI"
        tab.page.click("#pause")
        tab.page.wait_for_selector(".job[data-status=generating] .facts:has-text('Step')")
        tab.page.wait_for_selector("#stage .drawing img:not([hidden])")
        tab.see("a green kite")
    finally:
        asking.join()


def test_progress_bar_moves_between_gateway_updates_and_never_backwards(tab: Studio) -> None:
    """By a clock of its own: a forecast that gets worse, a job that begins again, a picture that is done at once."""
    seen = tab.page.evaluate("""async () => {
      const { Pace } = await import('/studio/pace.js');
      const drawing = (progress, eta_seconds) =>
        ({status: 'generating', progress_detail: {progress, eta_seconds, steps: 4, total_images: 1}});
      const words = [
        [0, {status: 'queued', forecast: {wait_seconds: 1}}], [1, {status: 'queued', forecast: {wait_seconds: 4}}],
        [3, {status: 'generating', eta_seconds: 3}], [4, drawing(0.25, 3)], [5, drawing(0.5, 20)],
        [6, {status: 'queued', forecast: {wait_seconds: 2}}], [7, drawing(0.1, 4)], [8, drawing(1, 0)]];
      const pace = new Pace(0), seen = [];
      for (let at = 0; at < 10; at += 1 / 60) {
        while (words.length && words[0][0] <= at) pace.hear(words.shift()[1], at);
        seen.push(pace.step(at));
      }
      return seen;
    }""")
    assert seen == sorted(seen)
    assert 0 <= seen[0] < 0.01
    assert seen[59] > 0.05
    assert seen[-1] == pytest.approx(1, abs=0.01)
    assert max(after - before for before, after in pairwise(seen)) < 0.12


def test_studio_progress_bars_of_jobs_never_go_backwards(tab: Studio) -> None:
    tab.page.evaluate("""() => {
      window.bars = {};
      const look = () => {
        for (const row of document.querySelectorAll('.job')) {
          const scale = Number(/scaleX\\(([\\d.]+)/.exec(row.querySelector('.progress i').style.transform)?.[1] ?? 0);
          (bars[row.dataset.id] ??= []).push(scale);
        }
        requestAnimationFrame(look);
      };
      look();
    }""")
    tab.draw("a slow one", count=3)
    tab.page.wait_for_selector(".job")
    tab.draw("one behind it")
    tab.see("one behind it")
    bars = tab.page.evaluate("bars")
    assert len(bars) == 2
    for seen in bars.values():
        assert seen == sorted(seen)


def test_studio_jobs_are_cancelled_moved_and_the_queue_paused(gateway: Live, tab: Studio) -> None:
    paused(gateway, tab)
    for prompt in ("first of all", "second of all", "third of all"):
        tab.draw(prompt)
        tab.job(prompt).wait_for()
    tab.job("third of all").get_by_role("button", name="Earlier").click()
    tab.page.wait_for_selector(".job:nth-child(2) .title:text-is('third of all')")
    tab.job("first of all").get_by_role("button", name="Later").click()
    tab.page.wait_for_selector(".job:nth-child(1) .title:text-is('third of all')")
    tab.job("second of all").get_by_role("button", name="Cancel").click()
    tab.job("second of all").wait_for(state="detached")
    tab.page.click("#pause")
    tab.see("first of all")
    jobs = httpx.get(f"{gateway.url}/api/v1/jobs", params={"limit": 3}).json()["jobs"]
    assert {job["prompt"]: job["status"] for job in jobs}["second of all"] == "cancelled"


def test_a_running_job_is_cancelled(tab: Studio) -> None:
    tab.page.locator("#steps").fill("8")
    tab.draw("never finished", count=10)
    tab.page.wait_for_selector(".job[data-status=generating] .facts:has-text('Step')")
    tab.page.click("#stage button:has-text('Cancel')")
    tab.job("never finished").wait_for(state="detached")


def test_studio_reload_during_a_job_loses_nothing(gateway: Live, tab: Studio) -> None:
    """The job takes much longer than a reload; what is left of it is cancelled."""
    tab.draw("over a reload", count=10)
    tab.page.wait_for_selector(".job[data-status=generating]")
    tab.page.reload(wait_until="commit")
    tab.job("over a reload").wait_for()
    assert tab.page.input_value("#prompt") == "over a reload"
    tab.see("over a reload")
    for job in httpx.get(f"{gateway.url}/api/v1/jobs", params={"status": "generating"}).json()["jobs"]:
        httpx.delete(f"{gateway.url}/api/v1/jobs/{job['job_id']}")


def test_studio_tabs_share_one_stream_and_show_the_same(gateway: Live, tab: Studio) -> None:
    """Browsers allow six connections a host; eight tabs are open here."""
    tabs = [Studio(tab.page.context.new_page(), gateway.url) for _ in range(7)]
    for other in tabs:
        other.go()
    for other in tabs:
        other.wait()
    paused(gateway, tab)
    tab.draw("seen by all")
    for other in tabs:
        other.job("seen by all").wait_for()
    tabs[0].page.wait_for_selector("#pause[aria-pressed=true]")
    tabs[0].page.click("#pause")
    for other in tabs[-2:]:
        other.see("seen by all")
    assert not [url for other in (tab, *tabs) for url in other.asked if url.endswith("/events")]
    for other in tabs:
        other.check()


# ---- keep ----------------------------------------------------------------------------------------


def test_pictures_are_found_compared_downloaded_and_removed_with_undo(gateway: Live, tab: Studio) -> None:
    page = tab.page
    tab.draw("a purple owl", seed=1)
    tab.see("a purple owl")
    tab.draw("a purple fox", seed=2)
    tab.see("a purple fox")
    page.fill("#search", "purple owl")
    page.wait_for_selector(".tile:only-child")
    page.fill("#search", "purple")
    tab.see("a purple fox")
    for prompt in ("a purple owl", "a purple fox"):
        tab.tile(prompt).hover()
        tab.tile(prompt).locator("input").check()
    page.click("#compare")
    assert page.locator(".compare .differs dt:text-is('Seed')").count() == 2
    page.keyboard.press("Escape")
    tab.tile("a purple owl").locator(".open").click()
    for picture_format, name in (("png", ".png"), ("jpeg", ".jpg"), ("webp", ".webp")):
        page.select_option("dialog .actions select", picture_format)
        with page.expect_download() as download:
            page.click("dialog [aria-label=Download]")
        assert download.value.suggested_filename.endswith(name)
        with Image.open(download.value.path()) as picture:
            assert picture.format == picture_format.upper()
    page.click("dialog [aria-label=Delete]")
    tab.tile("a purple owl").wait_for(state="detached")
    page.click(".toast button:has-text('Undo')")
    tab.see("a purple owl")
    tab.tile("a purple owl").locator(".open").click()
    page.click("dialog [aria-label=Delete]")
    with page.expect_response(lambda answer: answer.request.method == "DELETE"):
        page.click(".toast [aria-label=Dismiss]")
    found = httpx.get(f"{gateway.url}/api/v1/images", params={"search": "purple"}).json()["images"]
    assert [picture["drawing"]["prompt"] for picture in found] == ["a purple fox"]


def test_studio_dropped_picture_restores_settings_and_pasted_one_becomes_input(gateway: Live, tab: Studio) -> None:
    said = {"prompt": "a picture from elsewhere", "seed": 77, "width": 64, "height": 64, "steps": 2}
    body = {**said, "cfg_scale": 1, "send_images": True}
    drawn = httpx.post(f"{gateway.url}/sdapi/v1/txt2img", json=body, timeout=60).json()["images"][0]
    tab.page.evaluate(GIVEN, [drawn, "drop"])
    tab.page.wait_for_selector("dialog .frame img")
    tab.page.click("#use-dropped")
    assert tab.page.input_value("#prompt") == said["prompt"]
    assert [tab.page.input_value(f"#{name}") for name in ("seed", "width", "steps")] == ["77", "64", "2"]
    tab.page.evaluate(GIVEN, [drawn, "paste"])
    tab.page.wait_for_selector("#input-slot img")


def test_studio_dropped_picture_of_another_program_fills_in_its_settings(tab: Studio) -> None:
    graph = comfy_graph()
    graph["3"]["inputs"]["seed"] = 2**64 - 1
    del graph["10"]["inputs"]["model"]  # its model is not known, nor its LoRAs
    graph["3"]["inputs"]["model"] = ["98", 0]
    del graph["3"]["inputs"]["cfg"]
    before = tab.page.input_value("#guidance")
    tab.page.evaluate(GIVEN, [base64.b64encode(comfy(graph)).decode(), "drop"])
    tab.page.wait_for_selector("dialog .frame img")
    facts = tab.page.inner_text("dialog .facts-list")
    assert "ComfyUI" in facts
    assert "512 × 768" in facts
    assert "dpmpp_2m, karras" in facts
    assert "undefined" not in tab.page.inner_text("dialog")
    tab.page.click("#use-dropped")
    assert tab.page.input_value("#prompt") == PROMPT
    names = ("seed", "width", "height", "steps", "guidance")
    assert [tab.page.input_value(f"#{name}") for name in names] == [str(2**64 - 1), "512", "768", "8", before]
    assert tab.page.locator(".toast").count() == 0


# ---- strangers' words ----------------------------------------------------------------------------


def test_studio_shows_foreign_text_as_text_and_never_as_html_xss(gateway: Live, tab: Studio) -> None:
    """S-42: prompt, model name, error."""
    page = tab.page
    page.select_option("#model", MODEL)
    tab.draw(CANARY)
    page.wait_for_selector(".tile.there .caption:has-text('onerror')")
    page.locator(".tile.there .open").first.click()
    page.wait_for_selector("dialog .quote:has-text('onerror')")
    page.keyboard.press("Escape")
    page.click("#open-models")
    page.wait_for_selector("dialog .title:has-text('onclick=canary')")
    page.keyboard.press("Escape")
    page.route(
        "**/api/v1/jobs?status=failed*",
        lambda route: route.fulfill(
            json={
                "jobs": [
                    {
                        "job_id": "0" * 32,
                        "status": "failed",
                        "type": "txt2img",
                        "protocol": CANARY,
                        "prompt": CANARY,
                        "error": CANARY,
                        "completed_at": page.evaluate("new Date().toISOString()"),
                        "created_at": CANARY,
                    }
                ]
            }
        ),
    )
    page.reload(wait_until="commit")
    page.wait_for_selector(".job[data-status=failed] .facts:has-text('onerror')")
    assert page.locator("main img[src=x], dialog img[src=x]").count() == 0
    assert page.locator(".job[data-status=failed] .eta").is_hidden()


# ---- and after a restart ---------------------------------------------------------------------------


def test_studio_shows_all_jobs_after_a_gateway_restart(gateway: Live, tab: Studio) -> None:
    """Last, since the others share it."""
    tab.draw("over a restart", count=3)
    tab.page.wait_for_selector(".job[data-status=generating]")
    tab.draw("behind that")
    tab.job("behind that").wait_for()
    gateway.stop()
    tab.page.wait_for_selector("#banner:visible")
    assert tab.job("behind that").count() == 1
    gateway.start()
    tab.see("over a restart")
    tab.see("behind that")
    tab.complaints = [text for text in tab.complaints if "ERR_" not in text]
