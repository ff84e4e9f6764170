"""/sdapi/v1 over a real socket against the fake engine: meaning, options, progress, interrupt."""

from __future__ import annotations

import base64
import io
import json
import threading
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest
from PIL import Image, ImageChops

from engine.catalog import EMBEDDED_PATH
from tests.support.live import Live, live
from tests.support.sdapi import INIT, SMALL, fixtures, opened

STEP_S = 0.25


NO_EDIT = {"path": str(EMBEDDED_PATH), "like": "z-image-turbo"}
MODELS = {"aliases": {"klein": "flux2-tiny"}, "local": {"no-edit": NO_EDIT}}
"""Any folder of weights will do: the fake backend reads none."""

CONFIG = {"models": MODELS, "generation": {"sign_pictures": False}, "engine": {"memory_gb": 100}}
gateway, client = fixtures(config=CONFIG)
slow_gateway, slow = fixtures("slow_gateway", "slow", fake_script={"step_seconds": STEP_S})


# ---- meaning ---------------------------------------------------------------------------------------


def test_image_i_of_a_batch_equals_the_single_image_of_seed_plus_i(client: httpx.Client) -> None:
    batch = client.post("txt2img", json={**SMALL, "seed": 41, "batch_size": 3}).json()["images"]
    single = client.post("txt2img", json={**SMALL, "seed": 43}).json()["images"]
    assert opened(base64.b64decode(batch[2])).tobytes() == opened(base64.b64decode(single[0])).tobytes()
    assert len({opened(base64.b64decode(image)).tobytes() for image in batch}) == 3


def test_denoising_strength_0_returns_the_init_image_and_1_ignores_it(client: httpx.Client) -> None:
    def drawn(strength: float) -> bytes:
        body = {**SMALL, "seed": 1, "init_images": [INIT], "denoising_strength": strength}
        return opened(base64.b64decode(client.post("img2img", json=body).json()["images"][0])).tobytes()

    fresh = client.post("txt2img", json={**SMALL, "seed": 1}).json()["images"][0]
    assert drawn(0.0) == Image.new("RGB", (64, 64), "blue").tobytes()
    assert drawn(1.0) == opened(base64.b64decode(fresh)).tobytes()


def test_send_images_false_sends_the_texts_alone(client: httpx.Client) -> None:
    answer = client.post("txt2img", json={**SMALL, "send_images": False}).json()
    assert answer["images"] == []
    assert len(json.loads(answer["info"])["infotexts"]) == 1


def test_sizes_that_are_multiples_of_8_are_rounded_down_with_an_adjustment(client: httpx.Client) -> None:
    answer = client.post("txt2img", json={**SMALL, "width": 72, "height": 88}).json()
    info = json.loads(answer["info"])
    assert (info["width"], info["height"]) == (64, 80)
    adjustments = {item["param"]: (item["asked"], item["used"]) for item in info["adjustments"]}
    assert adjustments["width"] == (72, 64)
    assert adjustments["height"] == (88, 80)


def pictures(answer: dict[str, Any]) -> list[Image.Image]:
    return [opened(base64.b64decode(image)) for image in answer["images"]]


def of(picture: Image.Image) -> str:
    out = io.BytesIO()
    picture.save(out, "PNG")
    return base64.b64encode(out.getvalue()).decode()


def halves(size: tuple[int, int] = (128, 96)) -> tuple[Image.Image, Image.Image]:
    """A picture of many colours, and the mask of a square in its right half."""
    picture = Image.linear_gradient("L").resize(size).convert("RGB")
    mask = Image.new("L", size)
    mask.paste(255, (80, 32, 112, 64))
    return picture, mask


@pytest.mark.parametrize(("full_res", "fill"), [(True, 0), (False, 0), (True, 1), (False, 2), (True, 3)])
def test_inpainting_keeps_what_is_not_masked_to_the_last_pixel(client: httpx.Client, full_res: bool, fill: int) -> None:
    picture, mask = halves()
    body = {
        "init_images": [of(picture)],
        "mask": of(mask),
        "mask_blur": 2,
        "inpainting_fill": fill,
        "inpaint_full_res": full_res,
        "inpaint_full_res_padding": 8,
        "width": 128,
        "height": 96,
        "seed": 3,
    }
    answer = client.post("img2img", json={**SMALL, **body}).json()
    (drawn,) = pictures(answer)
    assert drawn.size == picture.size
    left, top, right, bottom = ImageChops.difference(drawn, picture).convert("L").getbbox() or (0, 0, 0, 0)
    assert 64 <= left < right <= 128
    assert 16 <= top < bottom <= 80
    pairs = json.loads(answer["info"])["extra_generation_params"]
    assert pairs["Mask blur"] == 2.0


def test_an_inverted_mask_repaints_the_rest_and_a_blank_one_everything(client: httpx.Client) -> None:
    picture, mask = halves()
    body = {**SMALL, "init_images": [of(picture)], "mask": of(mask), "mask_blur": 0, "inpainting_mask_invert": True}
    (drawn,) = pictures(client.post("img2img", json={**body, "inpaint_full_res": False}).json())
    assert drawn.size == (64, 64)
    blank = {**body, "mask": of(Image.new("L", picture.size)), "inpainting_mask_invert": 0}
    answer = client.post("img2img", json=blank).json()
    assert "mask" in [item["param"] for item in json.loads(answer["info"])["adjustments"]]


def test_hires_fix_answers_the_larger_picture(client: httpx.Client) -> None:
    answer = client.post("txt2img", json={**SMALL, "enable_hr": True, "hr_scale": 1.5, "batch_size": 2}).json()
    assert [picture.size for picture in pictures(answer)] == [(96, 96)] * 2
    info = json.loads(answer["info"])
    assert (info["width"], info["height"]) == (64, 64)


def test_several_init_images_are_redrawn_in_turn(client: httpx.Client) -> None:
    starts = [of(Image.new("RGB", (64, 64), colour)) for colour in ("red", "blue")]
    body = {**SMALL, "init_images": starts, "batch_size": 2, "denoising_strength": 0}
    drawn = pictures(client.post("img2img", json={**body, "n_iter": 2}).json())
    assert [picture.getpixel((1, 1)) for picture in drawn] == [(255, 0, 0), (0, 0, 255)] * 2
    response = client.post("img2img", json={**body, "batch_size": 1})
    assert (response.status_code, response.json()["error"]) == (500, "RuntimeError")


def test_image_subseed_interpolates_between_images(client: httpx.Client) -> None:
    def drawn(**fields: Any) -> bytes:
        return pictures(client.post("txt2img", json={**SMALL, **fields}).json())[0].tobytes()

    assert drawn(seed=1, subseed=2, subseed_strength=1) == drawn(seed=2)
    assert drawn(seed=1, subseed=2, subseed_strength=0.5) not in (drawn(seed=1), drawn(seed=2))


def test_references_that_the_model_cannot_use_are_left_out_with_an_adjustment(client: httpx.Client) -> None:
    body = {**SMALL, "model": "no-edit", "init_images": [INIT], "mode": "edit", "extra_images": [INIT, INIT]}
    info = json.loads(client.post("img2img", json=body).json()["info"])
    adjustments = {item["param"]: (item["asked"], item["used"]) for item in info["adjustments"]}
    assert adjustments["mode"] == ("edit", "img2img")
    assert adjustments["extra_images"] == (2, None)


# ---- options ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["klein", "flux2-tiny [0123456789]", "flux2-tiny"])
def test_a_known_checkpoint_becomes_the_default(client: httpx.Client, name: str) -> None:
    response = client.post("options", json={"sd_model_checkpoint": name})
    assert (response.status_code, response.text) == (200, "null")
    current = client.get("options").json()["sd_model_checkpoint"]
    assert current == name.partition(" ")[0]
    assert current in [row["title"] for row in client.get("sd-models").json()]
    drawn = client.post("txt2img", json=SMALL).json()
    assert json.loads(drawn["info"])["sd_model_name"] == "flux2-tiny"


@pytest.mark.parametrize("name", ["sd_xl_base_1.0.safetensors", "flux2-klein-9b", "../../etc/passwd"])
def test_an_unavailable_checkpoint_changes_no_option(client: httpx.Client, name: str) -> None:
    before = client.get("options").json()
    response = client.post("options", json={"sd_model_checkpoint": name})
    assert response.status_code == 500
    assert response.json()["error"] == "RuntimeError"
    assert response.json()["detail"]
    assert response.json()["errors"]
    assert client.get("options").json() == before


@pytest.mark.parametrize("body", [{}, {"anything": [1, {}]}, {"sd_model_checkpoint": None}, {"tiling": True}])
def test_options_without_effect_are_accepted(client: httpx.Client, body: dict[str, Any]) -> None:
    before = client.get("options").json()
    assert client.post("options", json=body).json() is None
    assert client.get("options").json() == before


def test_options_with_an_effect_are_stored_and_override_settings_override_them(client: httpx.Client) -> None:
    assert client.post("options", json={"send_seed": False, "samples_format": "webp"}).json() is None
    options = client.get("options").json()
    assert (options["send_seed"], options["samples_format"]) == (False, "webp")
    assert pictures(client.post("txt2img", json=SMALL).json())[0].format == "WEBP"
    override = {"override_settings": {"samples_format": "jpg"}, "override_settings_restore_afterwards": False}
    assert pictures(client.post("txt2img", json={**SMALL, **override}).json())[0].format == "JPEG"
    assert client.get("options").json()["samples_format"] == "jpg"
    client.post("options", json={"send_seed": True, "samples_format": "png"})


def test_an_infotext_draws_its_image_again(client: httpx.Client) -> None:
    first = client.post("txt2img", json={**SMALL, "seed": 77}).json()
    text = json.loads(first["info"])["infotexts"][0]
    again = client.post("txt2img", json={"infotext": text}).json()
    assert pictures(again)[0].tobytes() == pictures(first)[0].tobytes()
    assert json.loads(again["info"])["infotexts"] == [text]


def test_an_unknown_model_is_an_error_that_lists_the_models(client: httpx.Client) -> None:
    for body in ({"model": "schnell"}, {"override_settings": {"sd_model_checkpoint": "schnell"}}):
        response = client.post("txt2img", json={**SMALL, **body})
        answer = response.json()
        assert response.status_code == 404
        assert answer["code"] == "MODEL_NOT_FOUND"
        assert answer["error"].startswith("Model 'schnell' not found.")
        assert "flux2-klein-4b" in answer["details"]["available_models"]
        assert all(isinstance(answer[key], str) for key in ("error", "detail", "body", "errors"))


# ---- progress and interrupt ------------------------------------------------------------------------


@pytest.fixture
def background() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(4) as pool:
        yield pool


def wait_for_progress(client: httpx.Client, at_least: float, timeout_s: float = 20.0) -> dict[str, Any]:
    end = time.monotonic() + timeout_s
    while time.monotonic() < end:
        body: dict[str, Any] = client.get("progress").json()
        if body["progress"] >= at_least and body["state"]["sampling_step"] > 0:
            return body
        time.sleep(0.02)
    raise AssertionError(f"progress never came to {at_least}")


def drawing(pool: ThreadPoolExecutor, client: httpx.Client, **fields: Any) -> Future[httpx.Response]:
    return pool.submit(client.post, "txt2img", json={**SMALL, **fields})


def test_progress_of_a_running_picture_shows_steps_and_a_picture(
    slow: httpx.Client, background: ThreadPoolExecutor
) -> None:
    answer = drawing(background, slow, steps=8)
    body = wait_for_progress(slow, 0.2)
    while body["current_image"] is None and not answer.done():
        body = wait_for_progress(slow, 0.2)
    picture = opened(base64.b64decode(body["current_image"], validate=True))
    assert picture.format == "JPEG"
    assert 0 < body["progress"] <= 1
    assert 0 < body["eta_relative"] <= 8 * STEP_S * 3
    state = body["state"]
    assert state["job_count"] >= 1
    assert state["job"] == "scripts_txt2img"
    assert 1 <= state["sampling_step"] <= state["sampling_steps"] == 8
    assert slow.get("progress", params={"skip_current_image": "true"}).json()["current_image"] is None
    assert answer.result().status_code == 200
    assert slow.get("progress").json()["state"]["job_count"] == 0


def test_progress_of_another_clients_job_shows_no_details(slow: httpx.Client, background: ThreadPoolExecutor) -> None:
    answer = drawing(background, slow, steps=8)
    wait_for_progress(slow, 0.4)
    seen = slow.get("progress", headers={"x-client-id": "somebody-else"}).json()
    assert seen["current_image"] is None
    assert seen["state"]["job_count"] >= 1
    slow.post("interrupt", headers={"x-client-id": "somebody-else"})
    assert len(answer.result().json()["images"]) == 1


def test_interrupt_answers_the_waiting_request_with_what_is_finished(
    slow: httpx.Client, background: ThreadPoolExecutor
) -> None:
    answer = drawing(background, slow, steps=4, batch_size=4, seed=5)
    wait_for_progress(slow, 0.3)
    began = time.monotonic()
    assert slow.post("interrupt").json() == {}
    assert time.monotonic() - began < 2
    reply = answer.result()
    assert reply.status_code == 200
    info = json.loads(reply.json()["info"])
    assert 1 <= len(reply.json()["images"]) == len(info["infotexts"]) < 4
    assert info["seed"] == 5


def test_skip_ends_one_picture_and_the_job_goes_on(slow: httpx.Client, background: ThreadPoolExecutor) -> None:
    answer = drawing(background, slow, steps=8, batch_size=2, seed=5)
    wait_for_progress(slow, 0.05)
    assert slow.post("skip").text == "null"
    reply = answer.result().json()
    assert len(reply["images"]) == 2
    adjustments = [item for item in json.loads(reply["info"])["adjustments"] if item["param"] == "steps"]
    assert "picture 0 was skipped" in adjustments[-1]["reason"]


def test_task_progress_distinguishes_the_callers_own_task_while_jobs_wait(
    slow_gateway: Live, slow: httpx.Client, background: ThreadPoolExecutor
) -> None:
    def asked(task: str) -> dict[str, Any]:
        answer: dict[str, Any] = httpx.post(f"{slow_gateway.url}/internal/progress", json={"id_task": task}).json()
        return answer

    first = drawing(background, slow, steps=8, batch_size=8, force_task_id="task(1)")
    wait_for_progress(slow, 0.05)
    second = drawing(background, slow, steps=8, force_task_id="task(2)")
    end = time.monotonic() + 20
    while not asked("task(2)")["queued"] and time.monotonic() < end:
        time.sleep(0.02)
    running, waiting = asked("task(1)"), asked("task(2)")
    assert (running["active"], running["completed"]) == (True, False)
    assert (waiting["active"], waiting["queued"]) == (False, True)
    pending = httpx.get(f"{slow_gateway.url}/internal/pending-tasks").json()
    assert pending == {"size": 2, "tasks": ["task(1)", "task(2)"]}
    slow.post("interrupt")
    assert first.result().status_code == second.result().status_code == 200
    assert asked("task(1)")["completed"] is True


def test_an_interrupt_while_idle_stops_no_job(slow: httpx.Client) -> None:
    assert slow.post("interrupt", content='""').json() == {}
    assert len(slow.post("txt2img", json=SMALL).json()["images"]) == 1


def test_an_interrupt_leaves_the_waiting_jobs_alone(slow: httpx.Client, background: ThreadPoolExecutor) -> None:
    first = drawing(background, slow, steps=8)
    wait_for_progress(slow, 0.1)
    second = drawing(background, slow, steps=2)
    time.sleep(0.1)
    slow.post("interrupt")
    assert first.result().json()["images"] == []
    assert len(second.result().json()["images"]) == 1


def test_concurrent_requests_are_queued_and_none_is_refused(
    client: httpx.Client, background: ThreadPoolExecutor
) -> None:
    answers = [drawing(background, client, seed=i) for i in range(4)]
    assert [answer.result().status_code for answer in answers] == [200] * 4


def test_a_client_that_disconnects_stops_its_job(slow_gateway: Live, slow: httpx.Client) -> None:
    def leave() -> None:
        with httpx.Client(base_url=slow.base_url, timeout=0.6) as gone, pytest.raises(httpx.ReadTimeout):
            gone.post("txt2img", json={**SMALL, "steps": 8, "batch_size": 10})

    thread = threading.Thread(target=leave)
    thread.start()
    thread.join()
    end = time.monotonic() + 15
    while slow.get("progress").json()["state"]["job_count"] and time.monotonic() < end:
        time.sleep(0.05)
    assert slow.get("progress").json()["state"]["job_count"] == 0


def test_a_failed_picture_is_a_500_with_its_sentence_and_the_next_one_works(tmp_path: Path) -> None:
    script = {"oom_at_step": 2, "crash_times": 2, "counter_path": str(tmp_path / "count")}
    with (
        live(tmp_path, fake_script=script) as started,
        httpx.Client(base_url=f"{started.url}/sdapi/v1/", timeout=60) as client,
    ):
        response = client.post("txt2img", json=SMALL)
        answer = response.json()
        assert response.status_code == 500
        assert answer["code"] == "OOM_ERROR"
        assert answer["error"] == answer["detail"] == answer["errors"] != ""
        assert answer["details"]["suggestion"]
        assert client.post("txt2img", json=SMALL).status_code == 200


def test_the_picture_on_disk_holds_no_prompt_where_pictures_are_not_signed(gateway: Live, client: httpx.Client) -> None:
    client.post("txt2img", json={**SMALL, "prompt": "canary-prompt"})
    for file in (gateway.folder / "output").iterdir():
        assert b"canary-prompt" not in file.read_bytes()
        with Image.open(io.BytesIO(file.read_bytes())) as picture:
            assert not picture.info
