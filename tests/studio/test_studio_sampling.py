"""The studio with checkpoints of Stable Diffusion, and what it reads of them: over HTTP and in headless Chromium."""

from __future__ import annotations

import base64
import time
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from tests.models.test_loras_stable_diffusion import kohya
from tests.studio.test_studio import GIVEN
from tests.studio.test_studio_craft import violations
from tests.support.checkpoint_files import SD1, SDXL, VAE, write_header
from tests.support.chromium import chromium
from tests.support.foreign_pictures import png
from tests.support.live import Live, live
from tests.support.lora import save_lora
from tests.support.studio import Studio, studio

DREAM, XL = "dreamshaper_8", "xl"
VAE_NAME = "ft-mse.safetensors"
HASH_WAIT_S = 60


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Live]:
    """With a folder of AUTOMATIC1111, and the fake engine."""
    root = tmp_path_factory.mktemp("webui")
    checkpoints = root / "models" / "Stable-diffusion"
    write_header(checkpoints / f"{DREAM}.safetensors", SD1)
    write_header(checkpoints / f"{XL}.safetensors", SDXL)
    write_header(root / "models" / "VAE" / VAE_NAME, VAE)
    write_header(root / "embeddings" / "easynegative.safetensors", {"emb_params": (3, 768)})
    write_header(root / "embeddings" / "xl-style.safetensors", {"clip_l": (2, 768), "clip_g": (2, 1280)})
    for family in ("sd1", "sdxl"):
        save_lora(root / "models" / "Lora", f"ink-{family}", kohya(family))
    with live(tmp_path_factory.mktemp("gateway"), arguments=("--a1111-dir", str(root)), fake_script={}) as running:
        yield running


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with chromium() as browser:
        yield browser


@pytest.fixture
def tab(browser: Any, gateway: Live) -> Iterator[Studio]:
    with studio(browser, gateway) as tab:
        yield tab


def listed(gateway: Live) -> dict[str, Any]:
    answer: dict[str, Any] = httpx.get(f"{gateway.url}/api/v1/models").json()
    return answer


def infotext(gateway: Live) -> str:
    """Of a picture that an older A1111 drew with this checkpoint under another name; waits for its hash."""
    for _ in range(HASH_WAIT_S):
        digits = next(row["hash"] for row in listed(gateway)["models"] if row["title"] == DREAM)
        if digits:
            break
        time.sleep(1)
    return (
        "a harbour\nNegative prompt: fog\n"
        "Steps: 24, Sampler: DPM++ 2S a Karras, CFG scale: 6.25, Seed: 77, Size: 264x328, "
        f"Model hash: {digits}, Model: renamed, Clip skip: 2, ENSD: 31337, Version: v1.7.0-300"
    )


def settings_in(gateway: Live, text: str) -> dict[str, Any]:
    image = base64.b64encode(png({"parameters": text})).decode()
    found: dict[str, Any] = httpx.post(f"{gateway.url}/api/v1/images/drawing", json={"image": image}).json()["drawing"]
    return found


# ---- what the studio reads -------------------------------------------------------------------------


def test_models_say_how_they_can_be_sampled(gateway: Live) -> None:
    can = {row["title"]: row["capabilities"] for row in listed(gateway)["models"]}
    dream, turbo, other = can[DREAM], can["sd-turbo"], can["flux2-tiny"]
    assert (dream["default_sampler"], dream["default_schedule"], dream["clip_skip"]) == ("Euler", "Automatic", True)
    assert dream["unscheduled_samplers"] == ["DDIM", "DDIM CFG++", "PLMS", "UniPC"]
    assert (can[XL]["clip_skip"], can[XL]["text_widths"]) == (False, [768, 1280])
    assert (turbo["default_schedule"], turbo["guidance"], turbo["negative_prompt"]) == ("SGM Uniform", False, False)
    assert (other["default_sampler"], other["unscheduled_samplers"], other["text_widths"]) == (None, [], [])


def test_model_list_has_vae_files_and_textual_inversions(gateway: Live) -> None:
    answer = listed(gateway)
    assert answer["vaes"] == [VAE_NAME]
    assert answer["embeddings"] == [
        {"name": "easynegative", "vectors": 3, "widths": [768]},
        {"name": "xl-style", "vectors": 2, "widths": [768, 1280]},
    ]


def test_loras_name_the_checkpoints_that_they_fit(gateway: Live) -> None:
    rows = {row["name"]: row for row in httpx.get(f"{gateway.url}/api/v1/loras").json()["loras"]}
    assert DREAM in rows["ink-sd1"]["models"]
    assert XL not in rows["ink-sd1"]["models"]
    assert rows["ink-sdxl"]["models"][-1] == XL
    assert not {DREAM, XL} & set(rows["night"]["models"])


def test_infotext_names_its_checkpoint_by_hash_and_its_sampler_by_name(gateway: Live) -> None:
    found = settings_in(gateway, infotext(gateway))
    assert (found["model"], found["program"]) == (DREAM, "AUTOMATIC1111")
    sampling = found["sampling"]
    assert (sampling["sampler"], sampling["schedule"]) == ("DPM++ 2S a", "Karras")
    assert (sampling["clip_skip"], sampling["random_source"]) == (2, "NV")
    unknown = settings_in(gateway, infotext(gateway).replace("Model hash: ", "Model hash: 0"))
    assert unknown["model"] == "renamed"
    by_name = settings_in(gateway, infotext(gateway).replace("Model hash: ", "Model hash: 0").replace("renamed", XL))
    assert by_name["model"] == XL


# ---- in the browser --------------------------------------------------------------------------------


def values(tab: Studio, *names: str) -> list[str]:
    return [tab.page.input_value(f"#{name}") for name in names]


def test_studio_shows_the_sampling_of_stable_diffusion_alone_and_draws_with_it(gateway: Live, tab: Studio) -> None:
    page = tab.page
    assert page.is_hidden("#sampling")
    assert page.text_content("#guidance-label") == "Guidance"
    page.select_option("#model", DREAM)
    assert page.is_visible("#negative-field")
    assert page.text_content("#guidance-label") == "CFG scale"
    assert [page.get_attribute("#guidance", name) for name in ("min", "max", "step")] == ["1", "30", "0.5"]
    assert values(tab, "sampler", "schedule", "vae", "clip-skip", "guidance", "width") == [
        *("Euler", "Automatic", "Automatic", "1", "7", "512"),
    ]
    assert page.locator("#sampler option").count() == 20
    page.select_option("#sampler", "DDIM")
    assert page.is_disabled("#schedule")
    page.select_option("#sampler", "DPM++ 2M")
    page.select_option("#schedule", "Exponential")
    page.select_option("#vae", VAE_NAME)
    page.select_option("#clip-skip", "2")
    page.locator("#guidance").fill("6.5")
    assert page.locator("#inversion option").all_text_contents() == ["easynegative"]
    page.click("#inversion-negative")
    page.click("#lora-add")
    assert page.locator(".lora select option").all_text_contents() == ["ink-sd1"]
    assert violations(tab) == []
    page.select_option("#model", XL)
    assert page.is_hidden("#clip-skip-field")
    assert values(tab, "sampler", "schedule") == ["Euler", "Automatic"]
    assert page.locator("#inversion option").all_text_contents() == ["xl-style"]
    assert page.locator(".lora").count() == 0
    page.reload(wait_until="commit")
    tab.wait()
    page.select_option("#model", DREAM)
    page.locator("#guidance").fill("6.5")
    tab.draw("a lighthouse", width=136, height=72, steps=3)
    tab.see("a lighthouse")
    drawing = httpx.get(f"{gateway.url}/api/v1/images", params={"search": "lighthouse"}).json()["images"][0]["drawing"]
    assert (drawing["width"], drawing["guidance"], drawing["negative_prompt"]) == (136, 6.5, "easynegative")
    sampling = {"sampler": "DPM++ 2M", "schedule": "Exponential", "clip_skip": 2, "vae": VAE_NAME}
    assert drawing["sampling"] == {**sampling, "random_source": "CPU"}
    facts = page.inner_text("#stage .facts-list")
    for fact in ("Sampler\nDPM++ 2M", "Schedule\nExponential", "Clip skip\n2", "CFG scale\n6.5"):
        assert fact in facts
    page.select_option("#model", "flux2-tiny")
    assert page.is_hidden("#sampling")
    assert page.is_hidden("#inversions")
    tab.draw("a boat", width=64, height=64)
    tab.see("a boat")
    assert tab.complaints == []


def test_studio_dropped_infotext_restores_model_sampler_clip_skip_and_what_else_it_has(
    gateway: Live, tab: Studio
) -> None:
    page = tab.page
    picture = png({"parameters": infotext(gateway)})
    page.evaluate(GIVEN, [base64.b64encode(picture).decode(), "drop"])
    page.wait_for_selector("dialog .frame img")
    assert "Clip skip\n2" in page.inner_text("dialog .facts-list")
    page.click("#use-dropped")
    assert values(tab, "model", "sampler", "schedule", "clip-skip") == [DREAM, "DPM++ 2S a", "Karras", "2"]
    assert values(tab, "seed", "guidance", "width", "height") == ["77", "6.25", "264", "328"]
    assert "random source NV" in page.inner_text("#further-text")
    page.click("#draw")
    tab.see("a harbour")
    drawing = httpx.get(f"{gateway.url}/api/v1/images", params={"search": "harbour"}).json()["images"][0]["drawing"]
    sampling = drawing["sampling"]
    assert (drawing["model"], drawing["seed"], drawing["guidance"]) == (DREAM, 77, 6.25)
    assert (sampling["sampler"], sampling["random_source"]) == ("DPM++ 2S a", "NV")
    assert (sampling["clip_skip"], sampling["eta_noise_seed_delta"]) == (2, 31337)
    page.click("#further-remove")
    assert page.is_hidden("#further")
    page.select_option("#sampler", "LMS")
    page.click("#stage button:has-text('Use these settings')")
    assert values(tab, "sampler", "guidance") == ["DPM++ 2S a", "6.25"]
    assert "31337" in page.inner_text("#further-text")
    assert page.locator(".toast").count() == 0
    tab.draw("a harbour again")
    tab.see("a harbour again")
    again = httpx.get(f"{gateway.url}/api/v1/images", params={"search": "again"}).json()["images"][0]["drawing"]
    assert again["sampling"] == sampling
