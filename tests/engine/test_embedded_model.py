"""The embedded model as shipped: size, drawing by prompt, determinism, quantising, img2img, inpainting, its LoRA."""

import base64
import io
import json
from collections import Counter
from collections.abc import Iterator
from random import Random
from typing import Any

import httpx
import pytest
from PIL import Image, ImageChops

from engine.catalog import EMBEDDED_PATH
from tests.support.live import Live, live
from tools.train_embedded.judging import edit_cases, evaluation_scenes, icon_scenes, judge, pair_cases, ranked_icons
from tools.train_embedded.reading import background, is_night, nearest_kind, objects
from tools.train_embedded.scenes import Style, prompt, render

MAX_BYTES = 18_000_000
MAX_LORA_BYTES = 300_000
CIRCLE = "a red circle on a blue background"


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Live]:
    pytest.importorskip("mlx.core")
    with live(tmp_path_factory.mktemp("embedded"), backend="mlx") as gateway:
        yield gateway


def draw(gateway: Live, text: str, seed: int = 1, **said: Any) -> Image.Image:
    """By the A1111 dialect, which has every way to draw."""
    body = {"prompt": text, "seed": seed, "width": 128, "height": 128, **said}
    route = "img2img" if "init_images" in said else "txt2img"
    answer = httpx.post(f"{gateway.url}/sdapi/v1/{route}", json=body, timeout=120)
    assert answer.status_code == 200, answer.text
    return Image.open(io.BytesIO(base64.b64decode(answer.json()["images"][0]))).convert("RGB")


def encoded(image: Image.Image) -> str:
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return base64.b64encode(buffer.getvalue()).decode()


def shows(picture: Image.Image, ground: str, kind: str, colour: str) -> bool:
    seen = [(thing.colour, nearest_kind(thing)) for thing in objects(picture)]
    return background(picture) == ground and seen == [(colour, kind)]


def test_embedded_model_reports_words_beyond_its_limit(gateway: Live) -> None:
    body = {"prompt": f"{CIRCLE} {'red ' * 20}star", "seed": 1, "width": 128, "height": 128}
    info = json.loads(httpx.post(f"{gateway.url}/sdapi/v1/txt2img", json=body, timeout=120).json()["info"])
    (told,) = (item for item in info["adjustments"] if item["param"] == "prompt")
    assert (told["asked"], told["used"]) == (28, 19)
    assert told["reason"].endswith("red star")
    assert info["comments"].startswith("Warning: too many input tokens; some (9) have been truncated:\nred ")


def test_embedded_model_folder_is_small_with_plain_file_types() -> None:
    files = [path for path in EMBEDDED_PATH.rglob("*") if path.is_file()]
    assert {path.suffix for path in files} <= {".safetensors", ".json", ".txt"}
    assert sum(path.stat().st_size for path in files) <= MAX_BYTES
    assert {path.parent.name for path in files} >= {"transformer", "text_encoder", "vae", "tokenizer"}


def test_embedded_model_lora_file_is_small() -> None:
    assert 0 < (EMBEDDED_PATH.parent / "loras" / "night.safetensors").stat().st_size <= MAX_LORA_BYTES


def test_training_record_has_no_traces_of_a_machine() -> None:
    text = (EMBEDDED_PATH / "training.json").read_text(encoding="utf-8")
    facts = json.loads(text)
    assert {"seed", "kinds", "machine", "versions", "vae", "flow"} <= facts.keys()
    assert '"/' not in text, "an absolute path"


def test_embedded_model_draws_the_readme_example(gateway: Live) -> None:
    assert all(shows(draw(gateway, CIRCLE, seed), "blue", "circle", "red") for seed in range(1, 6))


def test_embedded_model_follows_prompts_outside_training(gateway: Live) -> None:
    """benchmarks/embedded_quality.py prints the whole measure; this is a slice of it with some room."""
    rng, right, asked = Random(1), Counter[str](), Counter[str]()
    for number, scene in enumerate(evaluation_scenes(24, 1)):
        verdict = judge(scene, draw(gateway, prompt(scene, rng), number))
        asked.update(verdict.keys())
        right.update(name for name, holds in verdict.items() if holds)
    shares = {name: right[name] / asked[name] for name in asked}
    assert shares["background"] >= 0.95, shares
    assert min(shares["colour"], shares["count"], shares["shape"], shares["relation"]) >= 0.8, shares


def test_embedded_model_draws_recognisable_everyday_objects(gateway: Live) -> None:
    rng, likest, three = Random(2), 0, 0
    scenes = icon_scenes(2, each=1)[::2]
    for number, scene in enumerate(scenes):
        ranked = ranked_icons(scene, draw(gateway, prompt(scene, rng), number))
        likest += ranked[:1] == [scene.groups[0].kind]
        three += scene.groups[0].kind in ranked[:3]
    assert likest >= 0.75 * len(scenes)
    assert three >= 0.85 * len(scenes)


def test_embedded_model_edits_reference_image_as_prompted(gateway: Live) -> None:
    rng, right, cases = Random(3), 0, edit_cases(20, 3)
    for number, edit in enumerate(cases):
        before = io.BytesIO()
        render(edit.before, Style.sample(rng)).save(before, "PNG")
        form = {"prompt": edit.words, "model": "flux2-tiny", "seed": str(number), "response_format": "b64_json"}
        answer = httpx.post(
            f"{gateway.url}/v1/images/edits", data=form, files={"image": before.getvalue()}, timeout=120
        )
        picture = Image.open(io.BytesIO(base64.b64decode(answer.json()["data"][0]["b64_json"]))).convert("RGB")
        right += all(judge(edit.after, picture).values())
    assert right >= 0.6 * len(cases)


def edited(gateway: Live, words: str, seed: int, *pictures: Image.Image) -> Image.Image:
    """By the OpenAI dialect, in which clients send several pictures."""
    form = {"prompt": words, "model": "flux2-tiny", "seed": str(seed), "response_format": "b64_json"}
    files = [("image[]", base64.b64decode(encoded(picture))) for picture in pictures]
    answer = httpx.post(f"{gateway.url}/v1/images/edits", data=form, files=files, timeout=120)
    assert answer.status_code == 200, answer.text
    return Image.open(io.BytesIO(base64.b64decode(answer.json()["data"][0]["b64_json"]))).convert("RGB")


def test_embedded_model_draws_objects_of_two_images_side_by_side(gateway: Live) -> None:
    rng, right, cases = Random(3), 0, pair_cases(16, 3)
    for number, pair in enumerate(cases):
        first, second = (render(scene, Style.sample(rng)) for scene in (pair.first, pair.second))
        right += all(judge(pair.after, edited(gateway, pair.words, number, first, second)).values())
    assert right >= 0.5 * len(cases)


def test_embedded_model_understands_common_names_of_two_input_images(gateway: Live) -> None:
    apple, star = draw(gateway, "a red apple on white"), draw(gateway, "a blue star on yellow")
    by_number = edited(gateway, "the apple of picture 1 beside the star of picture 2", 1, apple, star)
    said = "Please put the apple from the first image beside the star of the second one"
    assert edited(gateway, said, 1, apple, star).tobytes() == by_number.tobytes()
    assert background(by_number) == "white"
    assert {thing.colour for thing in objects(by_number)} >= {"blue"}


TWELVE = [
    f"a {colour} {kind} on a {ground} background"
    for colour, ground in (("red", "blue"), ("green", "yellow"), ("purple", "white"))
    for kind in ("circle", "square", "triangle", "star")
]


@pytest.mark.parametrize(
    "tags",
    ["best quality, absurdres, masterpiece, ", "(Masterpiece:1.1), detailed, intricate, colorful, "],
    ids=["SillyTavern", "text-generation-webui"],
)
def test_embedded_model_prompt_tags_of_programs_change_nothing_and_are_reported(gateway: Live, tags: str) -> None:
    for seed, text in enumerate(TWELVE):
        picture = draw(gateway, tags + text, seed)
        if seed < 3:
            assert picture.tobytes() == draw(gateway, text, seed).tobytes()
        _, colour, kind, *_, ground, _ = text.split()
        assert shows(picture, ground, kind, colour), text
    body = {"prompt": tags + TWELVE[0], "model": "flux2-tiny", "wait": False}
    job = httpx.post(f"{gateway.url}/api/v1/generate", json=body, timeout=60).json()["job_id"]
    with httpx.stream("GET", f"{gateway.url}/api/v1/jobs/{job}/stream", timeout=60) as stream:
        stream.read()
    told = httpx.get(f"{gateway.url}/api/v1/jobs/{job}", timeout=60).json()["adjustments"]
    [unread] = [one for one in told if one["param"] == "prompt"]
    assert "asterpiece".lower() in unread["asked"]
    assert unread["used"] is None


def test_embedded_model_reports_prompt_without_known_words(gateway: Live) -> None:
    body = {"prompt": "an astronaut riding a horse", "model": "flux2-tiny", "response_format": "b64_json"}
    answer = httpx.post(f"{gateway.url}/v1/images/generations", json=body, timeout=120).json()
    [told] = [one for one in answer["adjustments"] if one["param"] == "prompt"]
    assert told["asked"] == "astronaut, riding, horse"
    assert "knows no word of it" in told["reason"]


def test_embedded_model_lora_turns_day_into_night_by_scale_and_is_removed_again(gateway: Live) -> None:
    by_day = [scene for scene in evaluation_scenes(12, 4) if scene.background != "black"][:4]
    prompts = [prompt(scene, Random(number)) for number, scene in enumerate(by_day)]
    for number, text in enumerate(prompts):
        day, night = (draw(gateway, said, number) for said in (text, f"{text} <lora:night:1>"))
        assert is_night(night)
        assert not is_night(day)
    last = len(prompts) - 1
    assert draw(gateway, prompts[last], last).tobytes() == day.tobytes()
    assert draw(gateway, f"{prompts[last]} <lora:night:0>", last).tobytes() == day.tobytes()


def test_seed_decides_the_pixels(gateway: Live) -> None:
    one, again, other = (draw(gateway, CIRCLE, seed).tobytes() for seed in (1, 1, 2))
    assert one == again
    assert one != other


@pytest.mark.parametrize("bits", [8, 4])
def test_embedded_model_quantised_still_draws_the_prompt(bits: int, tmp_path: Any) -> None:
    with live(tmp_path, backend="mlx", config={"models": {"quantize": bits}}) as gateway:
        assert shows(draw(gateway, CIRCLE), "blue", "circle", "red")


def test_img2img_keeps_the_picture_or_follows_the_prompt(gateway: Live) -> None:
    start = draw(gateway, "a yellow square on a green background")
    untouched, kept, followed = (
        draw(gateway, CIRCLE, init_images=[encoded(start)], denoising_strength=denoise) for denoise in (0.0, 0.3, 0.9)
    )
    assert ImageChops.difference(untouched, start).getbbox() is None
    assert ImageChops.difference(kept, start).getbbox() is not None
    assert shows(kept, "green", "square", "yellow")
    assert shows(followed, "blue", "circle", "red")


def test_image_object_is_inpainted_inside_mask_only(gateway: Live) -> None:
    start = Image.new("RGB", (256, 256), (40, 80, 220))
    mask = Image.new("L", (256, 256))
    mask.paste(255, (20, 140, 120, 240))
    said = {"width": 256, "height": 256, "mask": encoded(mask), "mask_blur": 0, "inpaint_full_res": False}
    picture = draw(gateway, CIRCLE, init_images=[encoded(start)], denoising_strength=1.0, **said)
    assert shows(picture, "blue", "circle", "red")
    left, top, right, bottom = ImageChops.difference(picture, start).getbbox() or (0, 0, 0, 0)
    assert 20 <= left < right <= 120
    assert 140 <= top < bottom <= 240


def test_an_empty_prompt_is_a_prompt(gateway: Live) -> None:
    assert draw(gateway, "").size == (128, 128)
