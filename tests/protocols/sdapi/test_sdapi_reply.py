"""/sdapi/v1, the way out: reply, infotext, progress, lists, errors."""

from __future__ import annotations

import base64
import json
from dataclasses import replace
from typing import Any

import pytest

from adapters.sdapi import ADAPTER
from adapters.sdapi.checkpoints import checkpoint_rows
from adapters.sdapi.errors import render_error
from adapters.sdapi.init_images import InputImages
from adapters.sdapi.options import options_of, output_options
from adapters.sdapi.png_info import infotext_of
from adapters.sdapi.progress import progress_of, running_task, waiting_task
from adapters.sdapi.request_schemas import Img2Img, Txt2Img
from adapters.sdapi.responses import info, infotext, parameters, to_body
from adapters.sdapi.state import MOST_TASKS
from adapters.shared.recent_ids import RecentIds
from engine.catalog import CATALOG
from engine.protocol import Generate, Load, Preview, SecondPass, StepDone
from gateway import errors
from gateway.errors import GatewayError
from gateway.images.png_chunks import with_text
from gateway.jobs.facts import Queued, Started
from gateway.jobs.job import Job, Progress, State
from tests.support import a_job, a_plan
from tests.support.sampling import Models
from tests.support.sdapi import BASE, TINY, an_image, opened, told

# ---- the reply -------------------------------------------------------------------------------------

INFO_KEYS = (
    "prompt, all_prompts, negative_prompt, all_negative_prompts, seed, all_seeds, subseed, all_subseeds, "
    "subseed_strength, width, height, sampler_name, cfg_scale, steps, batch_size, restore_faces, "
    "face_restoration_model, sd_model_name, sd_model_hash, sd_vae_name, sd_vae_hash, seed_resize_from_w, "
    "seed_resize_from_h, denoising_strength, extra_generation_params, index_of_first_image, infotexts, styles, "
    "job_timestamp, clip_skip, is_using_inpainting_conditioning, version"
)
"""Source: docs/sdapi.md, "info"; every one of them is always there."""


def test_info_has_every_key_and_the_values_that_were_used() -> None:
    body = {"prompt": "a <lora:x:1> cat", "steps": 20, "cfg_scale": 7, "seed": 42, "batch_size": 2, "width": 520}
    found = info(told({**body, "negative_prompt": "dog", "sampler_name": "Euler a"}))
    assert set(INFO_KEYS.split(", ")) <= set(found)
    assert found["prompt"] == "a <lora:x:1> cat"
    assert found["all_prompts"] == ["a <lora:x:1> cat"] * 2
    assert found["all_seeds"] == [42, 43]
    assert found["seed"] == 42
    assert (found["width"], found["height"]) == (512, 512)
    assert found["steps"] == 8
    assert found["cfg_scale"] == 1.0
    assert found["sampler_name"] == "Euler"
    assert len(found["infotexts"]) == 2
    assert {item["param"] for item in found["adjustments"]} == {
        "sampler_name",
        "negative_prompt",
        "prompt",
        "width",
        "steps",
        "cfg_scale",
    }


def test_info_has_the_random_seed_that_was_drawn() -> None:
    assert info(told({"seed": -1}))["seed"] == 7
    assert parameters(told({"seed": -1}))["seed"] == -1


def test_the_infotext_has_a1111s_grammar() -> None:
    text = infotext(told({"prompt": "a cat\non a mat", "negative_prompt": "dog", "seed": 42, "n_iter": 2}), 1)
    lines = text.split("\n")
    assert lines[:3] == ["a cat", "on a mat", "Negative prompt: dog"]
    pairs = dict(part.split(": ") for part in lines[3].split(", "))
    assert list(pairs) == ["Steps", "Sampler", "Schedule type", "CFG scale", "Seed", "Size", "Model", "Version"]
    assert pairs["Seed"] == "43"
    assert pairs["Size"] == "512x512"


def test_an_empty_prompt_leaves_one_line() -> None:
    assert infotext(told({}), 0).startswith("Steps: 4, ")


def test_the_infotext_of_img2img_has_the_denoising_strength() -> None:
    found = told({"init_images": ["a"], "image_strength": 0.4}, model=Img2Img)
    assert info(found)["denoising_strength"] == 0.4
    assert ", Denoising strength: 0.4, " in infotext(found, 0)
    assert info(told({}))["denoising_strength"] == 0.75


def test_the_echo_has_every_field_and_images_only_on_request() -> None:
    echo = parameters(told({"prompt": "x", "unknown": 1}))
    assert set(echo) == set(Txt2Img.model_fields)
    assert echo["steps"] == 4
    assert echo["model"] == "flux2-tiny"
    assert parameters(told({"init_images": ["a"]}, model=Img2Img))["init_images"] is None
    kept = told({"init_images": ["a"], "include_init_images": True}, model=Img2Img)
    assert parameters(kept)["init_images"] == ["a"]


@pytest.mark.parametrize("prompt", ["a cat", "ein Käse", '猫 "quoted", with: signs\nand lines', "🙂"])
def test_the_response_is_json_whose_images_have_their_infotext(prompt: str) -> None:
    found = told({"prompt": prompt, "batch_size": 2})
    reply = json.loads(to_body(found, [an_image(), an_image(colour="blue")]))
    assert set(reply) == {"images", "parameters", "info"}
    notes = json.loads(reply["info"])
    for image, text in zip(reply["images"], notes["infotexts"], strict=True):
        picture = opened(base64.b64decode(image, validate=True))
        assert picture.info["parameters"] == text
    assert notes["prompt"] == prompt


def test_an_interrupted_job_answers_with_its_finished_images() -> None:
    found = told({"batch_size": 3}, pictures=1)
    reply = json.loads(to_body(found, [an_image()]))
    assert len(reply["images"]) == 1
    assert len(json.loads(reply["info"])["infotexts"]) == 1
    nothing = json.loads(to_body(told({}, pictures=0), []))
    assert nothing["images"] == []


def test_an_adjustment_has_the_size_at_which_a_scaled_image_was_drawn() -> None:
    found = told({"width": 512, "height": 256})
    image = found.job.images[0].model_copy(update={"drawn_px": (128, 128)})
    scaled = replace(found, job=replace(found.job, images=(image,)))
    (size,) = [item for item in info(scaled)["adjustments"] if item["param"] == "size"]
    assert (size["asked"], size["used"]) == ("512x256", "128x128")


def test_subseeds_count_up_while_the_seed_stays() -> None:
    found = told({"seed": 5, "subseed": 9, "subseed_strength": "0.5", "batch_size": 2})
    notes = info(found)
    assert (notes["seed"], notes["all_seeds"]) == (5, [5, 5])
    assert (notes["subseed"], notes["all_subseeds"], notes["subseed_strength"]) == (9, [9, 10], 0.5)
    assert ", Variation seed: 10, Variation seed strength: 0.5, " in infotext(found, 1)
    assert "Variation" not in infotext(told({"subseed": 9}), 0)


def test_info_has_the_second_pass_and_the_size_of_the_first() -> None:
    found = told({"enable_hr": True, "hr_scale": 1.5, "width": 64, "height": 64, "denoising_strength": 0.6})
    notes = info(found)
    assert (notes["width"], notes["height"]) == (64, 64)
    assert notes["extra_generation_params"] == {"Hires upscale": 1.5, "Hires upscaler": "Lanczos"}
    assert ", Denoising strength: 0.6, Hires upscale: 1.5, Hires upscaler: Lanczos, Version: " in infotext(found, 0)


def test_info_has_the_mask_parameters() -> None:
    masked = InputImages(init_images=("0" * 64,), mask="1" * 64)
    body = {
        "init_images": ["a"],
        "mask": "b",
        "mask_blur": 6,
        "inpainting_mask_invert": 1,
        "inpaint_full_res_padding": 8,
    }
    assert info(told(body, model=Img2Img, images=masked))["extra_generation_params"] == {
        "Mask blur": 6.0,
        "Mask mode": "Inpaint not masked",
        "Inpaint area": "Only masked",
        "Masked area padding": 8,
        "Masked content": "fill",
    }


@pytest.mark.parametrize(("name", "format"), [("png", "PNG"), ("jpg", "JPEG"), ("jpeg", "JPEG"), ("webp", "WEBP")])
def test_images_have_the_requested_format_and_their_infotext(name: str, format: str) -> None:
    found = replace(told({"prompt": "猫"}), output=output_options({}, {"samples_format": name}))
    reply = json.loads(to_body(found, [an_image()]))
    data = base64.b64decode(reply["images"][0], validate=True)
    assert opened(data).format == format
    assert infotext_of(data)[0] == json.loads(reply["info"])["infotexts"][0]
    silent = replace(found, output=output_options({}, {"samples_format": name, "enable_pnginfo": False}))
    assert infotext_of(base64.b64decode(json.loads(to_body(silent, [an_image()]))["images"][0]))[0] == ""


def test_a_skipped_image_gives_an_adjustment() -> None:
    found = told({"batch_size": 2})
    image = found.job.images[1].model_copy(update={"cut_short": True})
    cut = replace(found, job=replace(found.job, images=(found.job.images[0], image)))
    assert [item["reason"] for item in info(cut)["adjustments"]] == ["picture 1 was skipped and finished as it stood"]


def test_png_text_changes_no_pixel_and_refuses_other_files() -> None:
    png = an_image((5, 7), "green")
    assert opened(with_text(png, "parameters", "ü")).info == {"parameters": "ü"}
    assert opened(with_text(png, "parameters", "猫")).tobytes() == opened(png).tobytes()
    with pytest.raises(ValueError, match="not a PNG"):
        with_text(b"GIF89a" + bytes(40), "parameters", "x")


# ---- progress --------------------------------------------------------------------------------------


def running(plan: Generate | Load, owner: str = "me") -> Job:
    job = Job.of(a_job(plan=plan, owner=owner), 1)
    return job.apply(Queued(), 10.0).apply(Started(attempt=1), 20.0)


def test_idle_progress_is_zero_without_jobs() -> None:
    body = progress_of(None, None, owner="me", with_image=True)
    assert body["progress"] == 0
    assert body["state"]["job_count"] == 0
    assert type(body["state"]["job_count"]) is int
    assert body["state"]["job"] == ""
    assert body["current_image"] is None


def test_progress_of_a_running_job_counts_steps_and_pictures() -> None:
    job = running(a_plan(seeds=(1, 2)))
    newest = Progress(job.id, 2).apply(StepDone(image=1, step=2, steps=4, seconds=0.5))
    newest = newest.apply(Preview(image=1, step=2, jpeg_base64="/9j/"))
    body = progress_of(job, newest, owner="me", with_image=True)
    assert body["progress"] == pytest.approx(0.76)
    assert body["eta_relative"] == pytest.approx(1.0)
    assert body["current_image"] == "/9j/"
    assert body["state"]["job"] == "Batch 2 out of 2"
    assert (body["state"]["job_no"], body["state"]["job_count"]) == (1, 2)
    assert (body["state"]["sampling_step"], body["state"]["sampling_steps"]) == (2, 4)
    assert progress_of(job, newest, owner="me", with_image=False)["current_image"] is None


@pytest.mark.parametrize(
    ("image", "step", "no", "at"), [(0, 2, 0, (2, 4)), (0, 5, 1, (1, 2)), (1, 4, 2, (4, 4)), (1, 6, 3, (2, 2))]
)
def test_a_second_pass_doubles_job_count_in_progress(image: int, step: int, no: int, at: tuple[int, int]) -> None:
    second = SecondPass(width_px=128, height_px=128, steps=4, denoise=0.5)
    job = running(a_plan(seeds=(1, 2), second_pass=second))
    newest = Progress(job.id, 2).apply(StepDone(image=image, step=step, steps=6, seconds=0.5))
    state = progress_of(job, newest, owner="me", with_image=True)["state"]
    assert (state["job_count"], state["job_no"]) == (4, no)
    assert (state["sampling_step"], state["sampling_steps"]) == at


def test_a_task_that_runs_shows_a_preview_once() -> None:
    newest = Progress("x", 1).apply(StepDone(image=0, step=2, steps=4, seconds=0.5))
    newest = newest.apply(Preview(image=0, step=2, jpeg_base64="/9j/"))
    body = running_task(newest, seen=-1, with_image=True)
    assert (body["active"], body["progress"], body["eta"]) == (True, 0.5, 1.0)
    assert body["live_preview"] == "data:image/jpeg;base64,/9j/"
    again = running_task(newest, seen=body["id_live_preview"], with_image=True)
    assert (again["live_preview"], again["id_live_preview"]) == (None, body["id_live_preview"])


@pytest.mark.parametrize(
    ("state", "place", "told_as"),
    [
        (State.QUEUED, (2, 3), (True, False, "In queue: 2/3")),
        (State.SUCCEEDED, None, (False, True, "Waiting...")),
        (None, None, (False, False, "Waiting...")),
    ],
)
def test_a_task_that_does_not_run_is_waiting_or_completed(
    state: State | None, place: tuple[int, int] | None, told_as: tuple[bool, bool, str]
) -> None:
    body = waiting_task(state, place)
    assert (body["queued"], body["completed"], body["textinfo"]) == told_as
    assert body["active"] is False


def test_tasks_belong_to_their_owners_and_the_oldest_are_forgotten() -> None:
    tasks = RecentIds(MOST_TASKS)
    tasks.put("me", "a", "job1")
    tasks.put("other", "b", "job2")
    assert tasks.of("me") == {"a": "job1"}
    assert tasks.job_of("me", "b") is None
    for i in range(MOST_TASKS):
        tasks.put("me", f"t{i}", "job")
    assert tasks.job_of("me", "a") is None


def test_progress_of_another_owners_job_has_no_preview_and_no_name() -> None:
    job = running(a_plan(), owner="other")
    newest = Progress(job.id, 1).apply(Preview(image=0, step=1, jpeg_base64="/9j/"))
    body = progress_of(job, newest, owner="me", with_image=True)
    assert body["current_image"] is None
    assert body["state"]["job_count"] == 1
    assert body["state"]["job"] == "another client's job"


@pytest.mark.parametrize(
    ("plan", "name"),
    [
        (a_plan(), "scripts_txt2img"),
        (a_plan(init_image="0" * 64), "scripts_img2img"),
        (Load(model="flux2-tiny"), "load_model"),
    ],
)
def test_progress_has_the_name_of_a_running_job(plan: Generate | Load, name: str) -> None:
    job = running(plan)
    assert progress_of(job, Progress(job.id, 1), owner="me", with_image=True)["state"]["job"] == name


def test_the_seconds_left_are_unknown_before_the_first_step() -> None:
    assert Progress("x", 2).seconds_left is None


# ---- lists -----------------------------------------------------------------------------------------


def test_models_are_listed_where_they_are_on_disk_and_the_current_one_always() -> None:
    library: Any = Models(CATALOG, [TINY], {"klein": "flux2-tiny", "big": BASE.name})
    rows = checkpoint_rows(library, BASE.name)
    assert [row["title"] for row in rows] == [BASE.name, "flux2-tiny", "klein"]
    assert all(row["model_name"] == row["title"] == row["filename"] for row in rows)


def test_options_have_the_checkpoint_and_no_forge_preset() -> None:
    options = options_of("flux2-tiny", {"samples_format": "webp"})
    assert options["sd_model_checkpoint"] == "flux2-tiny"
    assert options["samples_format"] == "webp"
    assert "forge_preset" not in options


# ---- errors ----------------------------------------------------------------------------------------


def every_error() -> list[type[GatewayError]]:
    return [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, GatewayError)]


@pytest.mark.parametrize("kind", every_error(), ids=lambda kind: kind.__name__)
def test_every_error_has_a_detail_and_no_empty_text(kind: type[GatewayError]) -> None:
    response = ADAPTER.render_error(kind())
    body = json.loads(response.body)
    assert response.status_code >= 400
    assert body["detail"]
    if isinstance(body["detail"], str) and "errors" in body:
        assert all(isinstance(body[key], str) for key in ("error", "detail", "body", "errors"))
        assert body["errors"]


def test_unknown_routes_and_methods_have_fastapis_messages() -> None:
    assert json.loads(render_error(errors.NotFound()).body) == {"detail": "Not Found"}
    assert json.loads(render_error(errors.MethodNotAllowed()).body) == {"detail": "Method Not Allowed"}


def test_an_unknown_model_has_the_seed_documents_error() -> None:
    details = {"available_models": ["flux2-klein-4b"]}
    response = render_error(errors.ModelNotFound("Model 'schnell' not found.", param="model", details=details))
    body = json.loads(response.body)
    assert response.status_code == 404
    assert body["error"] == body["detail"] == body["errors"] == "Model 'schnell' not found."
    assert body["code"] == "MODEL_NOT_FOUND"
    assert body["details"] == details


def test_out_of_memory_has_the_documented_code_and_a_suggestion() -> None:
    response = render_error(errors.GenerationFailed("Insufficient memory.", code="engine_oom"))
    body = json.loads(response.body)
    assert response.status_code == 500
    assert body["code"] == "OOM_ERROR"
    assert body["details"]["suggestion"]


@pytest.mark.parametrize(
    ("error", "detail"),
    [(errors.Unauthorized(), "Not authenticated"), (errors.WrongKey(), "Incorrect username or password")],
)
def test_a_missing_key_and_a_wrong_one_are_basic_auths_401(error: GatewayError, detail: str) -> None:
    response = render_error(error)
    assert response.status_code == 401
    assert json.loads(response.body)["detail"] == detail
