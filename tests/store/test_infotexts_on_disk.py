"""Files of the output folder say how they were drawn in A1111's grammar, too, whichever protocol drew them."""

from __future__ import annotations

import base64
import io
import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import piexif
import piexif.helper
import pytest
from PIL import Image
from sd_parsers import ParserManager
from sd_prompt_reader.image_data_reader import ImageDataReader

from engine.catalog import EMBEDDED_PATH
from engine.protocol import Generate, Lora, SecondPass, Upscale
from gateway.images.codec import encode
from gateway.images.file_texts import texts
from gateway.images.infotext import VERSION, parse
from gateway.images.output import OutputFolder
from gateway.images.provenance import KEYWORD, MARK, Signature, carried, drawing_in, signed
from gateway.jobs.drawing import Drawing, to_text
from tests.support.foreign_pictures import comfy
from tests.support.live import Live, live
from tests.support.native import client_of, ended, submit

PROMPT, NEGATIVE = 'ein grüner Stern,\n"zwei" 猫: drei', "blurry, ugly"
MODEL = "takes-negatives"
CONFIG = {
    "models": {"default": MODEL, "local": {MODEL: {"path": str(EMBEDDED_PATH), "like": "qwen-image"}}},
    "engine": {"memory_gb": 100},
}
"""Any folder of weights will do: the fake backend reads none."""
PPM = b"P6 1 1 255\n" + bytes(3)
SIZE = {"width": 128, "height": 64}


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Live]:
    with live(tmp_path_factory.mktemp("infotexts"), config=CONFIG) as gateway:
        yield gateway


@pytest.fixture
def client(gateway: Live) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=gateway.url, timeout=60) as client:
        yield client


def by_sdapi(client: httpx.Client, prompt: str) -> None:
    body = {"prompt": prompt, "negative_prompt": NEGATIVE, **SIZE, "steps": 3, "seed": 7, "batch_size": 2}
    assert client.post("/sdapi/v1/txt2img", json=body).status_code == 200


def by_openai(client: httpx.Client, prompt: str) -> None:
    body = {"prompt": prompt, "size": "128x64", "n": 2, "seed": 7, "steps": 3, "negative_prompt": NEGATIVE}
    assert client.post("/v1/images/generations", json=body).status_code == 200


def by_native(client: httpx.Client, prompt: str) -> None:
    with client_of(str(client.base_url)) as native:
        job = submit(native, prompt=prompt, negative_prompt=NEGATIVE, **SIZE, steps=3, seed=7, num_images=2)
        ended(native, job["job_id"])


def by_mflux_server(client: httpx.Client, prompt: str) -> None:
    for seed in (7, 8):
        body = {"prompt": prompt, **SIZE, "steps": 3, "seed": seed}
        task = client.post("/api/generate", json=body).json()["task_id"]
        while client.get("/api/status", params={"task_id": task}).json()["status"] != "done":
            time.sleep(0.05)  # pytest's timeout bounds it


DRAW: dict[str, Callable[[httpx.Client, str], None]] = {
    "sdapi": by_sdapi,
    "openai": by_openai,
    "native": by_native,
    "mflux-server": by_mflux_server,
}


def drawn(gateway: Live, client: httpx.Client, protocol: str, prompt: str) -> list[Path]:
    """The files of two pictures, in the order of their seeds."""
    folder = gateway.folder / "output"
    before = set(folder.glob("*.png"))
    DRAW[protocol](client, prompt)
    new = set(folder.glob("*.png")) - before
    return sorted(new, key=lambda file: (drawing_in(file.read_bytes()) or Drawing(seed=0)).seed or 0)


@pytest.mark.parametrize("protocol", DRAW)
def test_infotext_in_output_files_is_read_by_other_programs(gateway: Live, client: httpx.Client, protocol: str) -> None:
    files = drawn(gateway, client, protocol, PROMPT)
    assert len(files) == 2
    negative = "" if protocol == "mflux-server" else NEGATIVE  # whose requests have none
    for seed, file in zip((7, 8), files, strict=True):
        found = ParserManager().parse(file)
        assert found is not None
        assert found.generator.value == "AUTOMATIC1111"
        (sampler,) = found.samplers
        assert [str(prompt) for prompt in found.prompts] == [PROMPT]
        assert [str(prompt) for prompt in found.negative_prompts] == ([negative] if negative else [])
        assert (sampler.parameters["seed"], sampler.parameters["steps"]) == (str(seed), "3")
        assert sampler.model is not None
        assert (sampler.model.name, found.metadata["Size"]) == (MODEL, "128x64")

        reader = ImageDataReader(str(file))
        assert (reader.status.name, reader.tool) == ("READ_SUCCESS", "A1111 webUI")
        assert (reader.positive, reader.negative) == (PROMPT, negative)
        assert {"seed": str(seed), "steps": "3", "size": "128x64", "model": MODEL}.items() <= (reader.parameter.items())

        with Image.open(file) as picture:
            assert picture.info.keys() >= {"parameters", KEYWORD}, "before the pixels: galleries look no further"
            assert parse(picture.info["parameters"])["Version"] == VERSION
        ours = drawing_in(file.read_bytes())
        assert ours is not None
        assert (ours.prompt, ours.seed, ours.program) == (PROMPT, seed, None)


@pytest.mark.parametrize("kind", ["jpeg", "webp"])
def test_image_download_in_another_format_carries_the_infotext_too(gateway: Live, kind: str) -> None:
    with client_of(gateway.url) as client:
        (own,) = ended(client, submit(client, prompt=PROMPT, seed=7)["job_id"])["image_ids"]
        file = client.get(f"/images/{own}").content
        data = client.get(f"/images/{own}", params={"format": kind}).content
    written = piexif.helper.UserComment.load(piexif.load(data)["Exif"][piexif.ExifIFD.UserComment])
    with Image.open(io.BytesIO(file)) as picture:
        assert written == picture.info["parameters"]
    assert drawing_in(data) == drawing_in(file)
    found = ParserManager().parse(io.BytesIO(data))
    assert found is not None
    assert [str(prompt) for prompt in found.prompts] == [PROMPT]
    reader = ImageDataReader(io.BytesIO(data))
    assert (reader.positive, reader.parameter["seed"]) == (PROMPT, "7")


@pytest.mark.parametrize("prompt", ["a" * 20_000, "ü" * 6_000])
def test_jpeg_image_holds_a_long_infotext_and_a_long_record_together(prompt: str) -> None:
    signature = Signature.of(plan(prompt=prompt), 0, 5)
    assert signature is not None
    said = carried(signed(encode(PPM), signature.drawing, signature.infotext))
    data = encode(PPM, format="jpeg", text=said.comment, description=said.description)
    assert drawing_in(data) == signature.drawing
    assert texts(data)["UserComment"] == signature.infotext


@pytest.mark.parametrize("prompt", ["a" * 40_000, "猫" * 20_000])
def test_exif_too_small_for_both_texts_keeps_our_own_record(prompt: str) -> None:
    signature = Signature.of(plan(prompt=prompt), 0, 5)
    assert signature is not None
    said = carried(signed(encode(PPM), signature.drawing, signature.infotext))
    assert said.description is None
    assert said.comment is not None
    assert said.comment.startswith(MARK)


@pytest.mark.parametrize("prompt", ["a " * 32_000, "猫" * 10_000, "x\n" * 10_000 + "end"])
def test_infotext_holds_a_long_prompt_completely(prompt: str) -> None:
    signature = Signature.of(plan(prompt=prompt), 0, 5)
    assert signature is not None
    assert parse(signature.infotext)["Prompt"] == "\n".join(line.strip() for line in prompt.strip().split("\n"))


def test_sdapi_image_responses_carry_the_infotext_of_their_own_reply(gateway: Live, client: httpx.Client) -> None:
    """The text of its own reply, once: the file's is A1111's too, and knows less of the request."""
    body = {"prompt": "a cat <unknown:x>", **SIZE, "steps": 2, "seed": 3, "send_images": True}
    answer = client.post("/sdapi/v1/txt2img", json=body).json()
    data = base64.b64decode(answer["images"][0])
    assert data.count(b"tEXtparameters\0") == 1
    with Image.open(io.BytesIO(data)) as picture:
        assert picture.info["parameters"] == json.loads(answer["info"])["infotexts"][0]
    off = client.post("/sdapi/v1/txt2img", json=body | {"override_settings": {"enable_pnginfo": False}}).json()
    with Image.open(io.BytesIO(base64.b64decode(off["images"][0]))) as picture:
        assert not picture.info.keys() & {"parameters", KEYWORD}


def test_openai_image_responses_carry_no_infotext(client: httpx.Client) -> None:
    body = {"prompt": "a secret", "size": "128x64", "response_format": "b64_json"}
    data = base64.b64decode(client.post("/v1/images/generations", json=body).json()["data"][0]["b64_json"])
    with Image.open(io.BytesIO(data)) as picture:
        assert picture.info == {}


@pytest.mark.parametrize(
    ("said", "keywords"),
    [({"write_infotexts": False}, {KEYWORD}), ({"sign_pictures": False}, set()), ({}, {KEYWORD, "parameters"})],
)
def test_settings_decide_which_texts_are_written_into_image_files(
    tmp_path: Path, said: dict[str, Any], keywords: set[str]
) -> None:
    with live(tmp_path, config={"generation": said}) as gateway:
        with httpx.Client(base_url=gateway.url, timeout=60) as client:
            (file, _) = drawn(gateway, client, "sdapi", "a fox")
        with Image.open(file) as picture:
            assert picture.info.keys() & {KEYWORD, "parameters"} == keywords


# ---- the text itself ---------------------------------------------------------------------------------


def plan(**said: Any) -> Generate:
    values = {"prompt": "a cat", "width_px": 64, "height_px": 32, "steps": 4, "guidance": 1.0, "seeds": (5, 6)}
    return Generate(model="flux2-tiny", **values | said)


def infotext(of: Generate, image: int = 0) -> str:
    signature = Signature.of(of, image, of.seeds[image])
    assert signature is not None
    return signature.infotext


def test_infotext_of_each_of_several_images_has_its_own_seed() -> None:
    line = "Sampler: Euler, Schedule type: Simple, CFG scale: 1, Seed: 6, Size: 64x32, Model: flux2-tiny"
    assert infotext(plan(), 1) == f"a cat\nSteps: 4, {line}, Version: {VERSION}"


def test_infotext_of_variations_second_pass_and_loras_has_the_a1111_form() -> None:
    found = parse(
        infotext(
            plan(
                subseeds=(9, 10),
                subseed_strength=0.5,
                second_pass=SecondPass(width_px=128, height_px=64, steps=2, denoise=0.6),
                loras=(Lora(name="ink", scale=0.8), Lora(name="fur", scale=1.0)),
            ),
            1,
        )
    )
    assert found["Prompt"] == "a cat <lora:ink:0.8> <lora:fur:1>"
    assert {key: found[key] for key in ("Variation seed", "Variation seed strength", "Denoising strength")} == {
        **{"Variation seed": "10", "Variation seed strength": "0.5", "Denoising strength": "0.6"},
    }
    assert (found["Hires resize-1"], found["Hires steps"], found["Hires upscaler"]) == ("128", "2", "Lanczos")


def test_infotext_of_an_image_with_init_image_has_its_denoise_strength() -> None:
    assert parse(infotext(plan(init_image="0" * 64, denoise=0.75)))["Denoising strength"] == "0.75"


def test_upscaled_image_of_another_program_keeps_its_infotext() -> None:
    found = drawing_in(comfy())
    assert found is not None
    larger = Upscale(
        model="seedvr2-3b", image="0" * 64, width_px=128, height_px=96, short_px=96, seed=3, drawn=to_text(found)
    )
    signature = Signature.of(larger, 0, 3)
    assert signature is not None
    assert signature.drawing.model_copy(update={"enlarged": None}) == found
    said = parse(signature.infotext)
    assert (said["Seed"], said["Sampler"], said["Schedule type"]) == ("1234567890123", "DPM++ 2M", "Karras")
    assert said["Postprocess upscaler"] == "seedvr2-3b"
    assert "Version" not in said


def test_image_files_keep_both_our_record_and_the_infotext(tmp_path: Path) -> None:
    spooled = tmp_path / "picture.ppm"
    spooled.write_bytes(PPM)
    output = OutputFolder(tmp_path / "output")
    output.prepare()
    name = f"{'0' * 32}.1.0.png"
    output.keep(spooled, name, Signature.of(plan(), 0, 5))
    with Image.open(tmp_path / "output" / name) as picture:
        assert picture.info["parameters"] == infotext(plan())
