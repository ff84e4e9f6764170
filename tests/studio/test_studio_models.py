"""The studio where models matter: what they need, what they enlarge, how they come and go. With the fake engine."""

from __future__ import annotations

import random
import re
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from tests.support.chromium import chromium
from tests.support.live import Live, live
from tests.support.native import put_weights
from tests.support.studio import Studio, a_picture, studio
from tests.support.toy_hub import ToyHub, hub_with

PULLED = "flux2-klein-4b"
CANNY = "flux1-schnell-controlnet-canny-4-bit"
HERE = ("seedvr2-3b/transformer", "FLUX.1-schnell/transformer", "FLUX.1-dev-Controlnet-Canny")
BIG, SIZE = "transformer/model.safetensors", 4_000_000
FILES = {
    BIG: random.Random(3).randbytes(SIZE),
    "vae/model.safetensors": b"v" * 1000,
    "text_encoder/model.safetensors": b"t" * 1000,
    "tokenizer/tokenizer.json": b"{}",
}


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[ToyHub, Live]]:
    folder = tmp_path_factory.mktemp("studio-models")
    for name in HERE:
        put_weights(folder / "models" / name)
    config = {"models": {"cache_dir": str(folder / "models")}, "engine": {"memory_gb": 500}}
    with (
        hub_with([PULLED], FILES, folder) as hub,
        live(folder, fake_script={"step_seconds": 0.01}, config=config) as gateway,
    ):
        yield hub, gateway


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with chromium() as browser:
        yield browser


@pytest.fixture
def tab(browser: Any, served: tuple[ToyHub, Live]) -> Iterator[Studio]:
    with studio(browser, served[1]) as tab:
        yield tab


def row(tab: Studio, model: str, state: str) -> Any:
    title = tab.page.locator(".title", has_text=re.compile(f"^{re.escape(model)}$"))
    return tab.page.locator(f"dialog .model[data-state={state}]", has=title)


def test_studio_model_is_downloaded_with_progress_loaded_unloaded_and_removed(
    served: tuple[ToyHub, Live], tab: Studio
) -> None:
    hub, page = served[0], tab.page
    hub.go_on.clear()
    hub.hold_at[BIG] = SIZE // 2
    page.click("#open-models")
    page.fill("dialog [aria-label='Search models']", PULLED)
    row(tab, PULLED, "hub").get_by_role("button", name="Download").click()
    coming = row(tab, PULLED, "downloading")
    coming.get_by_text("2 of 4 MB").wait_for()
    assert int(coming.locator("[role=progressbar]").get_attribute("aria-valuenow")) in range(35, 51)
    page.wait_for_selector(f".job .title:text-is('Download {PULLED}')", state="attached")
    hub.go_on.set()
    row(tab, PULLED, "disk").get_by_role("button", name="Load").click()
    row(tab, PULLED, "memory").get_by_role("button", name="Unload").click()
    page.wait_for_selector("dialog [aria-label='Memory of this machine']")
    row(tab, PULLED, "disk").get_by_role("button", name="Remove").click()
    page.click("dialog .draw:text-is('Remove')")
    row(tab, PULLED, "hub").wait_for()
    assert page.locator(f"#model option:text-is('{PULLED}')").count() == 1


def test_model_download_is_cancelled_and_resumed_where_it_stopped(served: tuple[ToyHub, Live], tab: Studio) -> None:
    hub, page = served[0], tab.page
    hub.go_on.clear()
    hub.hold_at[BIG] = SIZE // 2
    page.click("#open-models")
    row(tab, PULLED, "hub").get_by_role("button", name="Download").click()
    row(tab, PULLED, "downloading").get_by_role("button", name="Cancel").click()
    row(tab, PULLED, "hub").wait_for()
    hub.go_on.set()


@pytest.mark.parametrize(
    ("model", "asked", "offered", "least_steps"),
    [("qwen-image-2.1", 1000, 992, 2), ("ideogram-4", 100, 256, 1), (PULLED, 9000, 8192, 1)],
)
def test_sizes_and_steps_are_those_the_model_draws(
    tab: Studio, model: str, asked: int, offered: int, least_steps: int
) -> None:
    tab.page.select_option("#model", model)
    tab.page.fill("#width", str(asked))
    tab.page.press("#width", "Tab")
    assert tab.page.input_value("#width") == str(offered)
    assert tab.page.get_attribute("#steps", "min") == str(least_steps)
    assert tab.page.evaluate("width.validity.valid")


def test_studio_model_chosen_while_the_list_loads_stays_chosen(tab: Studio) -> None:
    asked: list[Any] = []
    tab.page.route("**/api/v1/models", lambda route: asked.append(route))
    tab.page.click("#open-models")
    while not asked:
        tab.page.wait_for_timeout(20)
    tab.page.select_option("#model", CANNY)
    for route in asked:
        route.continue_()
    tab.page.wait_for_selector("dialog .models")
    assert tab.page.input_value("#model") == CANNY


def test_picture_is_upscaled(tab: Studio) -> None:
    page = tab.page
    tab.draw("a small thing")
    tab.see("a small thing")
    page.click("#stage button:has-text('Enlarge')")
    page.select_option("#enlarge-scale", "3")
    page.click("dialog .draw")
    page.wait_for_selector("#stage .facts-list dd:text-is('384 × 384')")
    page.wait_for_selector("#stage .facts-list dd:text-is('from 128 × 128 by seedvr2')")
    page.fill("#width", "256")
    page.click("#stage button:has-text('Use these settings')")
    assert (page.input_value("#width"), page.input_value("#prompt")) == ("128", "a small thing")


def test_picture_drawn_by_outlines_and_its_settings_are_restored(served: tuple[ToyHub, Live], tab: Studio) -> None:
    page, gateway = tab.page, served[1]
    assert page.is_hidden("#control")
    page.select_option("#model", CANNY)
    tab.draw("along the lines", width=256, height=256)
    page.wait_for_selector("#refusal:has-text('send a control picture')")
    page.set_input_files("#control-slot input[type=file]", files=[a_picture()])
    page.check("#edges")
    page.locator("#strength").fill("1.5")
    page.click("#draw")
    tab.see("along the lines")
    (drawn,) = httpx.get(f"{gateway.url}/api/v1/images", params={"search": "along"}).json()["images"]
    control = drawn["drawing"]["control"]
    assert (control["type"], control["edges"], control["strength"]) == ("canny", True, 1.5)
    page.uncheck("#edges")
    page.click("#control-slot button:has-text('Remove')")
    page.click("#stage button:has-text('Use these settings')")
    page.wait_for_selector("#control-slot img")
    assert page.is_checked("#edges")
    assert page.input_value("#strength") == "1.5"
    tab.complaints = [text for text in tab.complaints if "status of 400" not in text]
