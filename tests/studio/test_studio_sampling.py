"""The studio with a Stable Diffusion checkpoint: sampler, schedule and clip skip. With the fake engine."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from tests.support.checkpoint_files import SD1, write_header
from tests.support.chromium import chromium
from tests.support.live import Live, live
from tests.support.studio import Studio, studio

CHOSEN = {"sampler": "DPM++ 2M SDE", "schedule": "Karras", "clip_skip": 2}


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Live]:
    root = tmp_path_factory.mktemp("webui")
    write_header(root / "models" / "Stable-diffusion" / "dreams.safetensors", SD1)
    with live(tmp_path_factory.mktemp("gateway"), arguments=("--a1111-dir", str(root)), fake_script={}) as running:
        yield running


@pytest.fixture
def tab(gateway: Live) -> Iterator[Studio]:
    with chromium() as browser, studio(browser, gateway) as tab:
        yield tab


def drawings(gateway: Live) -> list[dict[str, Any]]:
    """How the images were drawn, newest first."""
    return [row["drawing"] for row in httpx.get(f"{gateway.url}/api/v1/images").json()["images"]]


def test_sampling_is_chosen_for_stable_diffusion_and_restored_from_an_image(gateway: Live, tab: Studio) -> None:
    page = tab.page
    assert page.locator("#sampling").is_hidden()
    page.select_option("#model", "dreams")
    page.select_option("#sampler", CHOSEN["sampler"])
    page.select_option("#schedule", CHOSEN["schedule"])
    tab.draw("a red circle", **{"clip-skip": 2, "width": 64, "height": 64, "seed": 5})
    tab.see("a red circle")
    (first,) = drawings(gateway)
    assert {name: first["sampling"][name] for name in CHOSEN} == CHOSEN
    page.select_option("#sampler", "")
    page.locator("#clip-skip").fill("")
    tab.tile("a red circle").click()
    page.click("dialog >> text=Use these settings")
    assert page.input_value("#sampler") == CHOSEN["sampler"]
    page.locator("#prompt").fill("a red circle again")
    page.click("#draw")
    tab.see("a red circle again")
    again, _ = drawings(gateway)
    assert again["sampling"] == first["sampling"]
    page.select_option("#model", "flux2-tiny")
    assert page.locator("#sampling").is_hidden()
