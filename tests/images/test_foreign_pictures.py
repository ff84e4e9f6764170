"""Pictures of other programs: what each says of how it was drawn is read, and nothing is added to it."""

from __future__ import annotations

import io
import json
import warnings
from collections.abc import Iterator, Mapping
from typing import Any

import httpx
import piexif.helper
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from sd_parsers import Eagerness, ParserManager
from sd_prompt_reader.image_data_reader import ImageDataReader

from adapters.sdapi.png_info import answer
from gateway.images.exif_text import comment
from gateway.images.file_texts import USER_COMMENT, texts
from gateway.images.infotext import parse
from gateway.images.provenance import KEYWORD, drawing_by, drawing_in, to_infotext
from gateway.jobs.drawing import Drawing
from gateway.jobs.sampling_request import SamplingRequest
from tests.support.foreign_pictures import (
    FILES,
    INFOTEXT,
    INVOKEAI,
    NEGATIVE,
    NO_LORAS,
    NOVELAI,
    NOVELAI_COMMENT,
    PROMPT,
    SWARMUI,
    TOLD,
    UNICODE,
    comfy_graph,
    comment_exif,
    drawing_of,
    exif_picture,
    png,
    png_info,
)
from tests.support.live import Live, live


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Live]:
    with live(tmp_path_factory.mktemp("foreign")) as gateway:
        yield gateway


@pytest.fixture(scope="module")
def client(gateway: Live) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=gateway.url, timeout=60) as client:
        yield client


# ---- every program, by both routes -------------------------------------------------------------------


@pytest.mark.parametrize("name", FILES)
def test_metadata_of_each_program_yields_its_drawing_parameters(client: httpx.Client, name: str) -> None:
    program, data = FILES[name]
    found = drawing_of(client, data)
    assert found is not None
    assert found["program"] == program
    assert {key: found[key] for key in TOLD} == TOLD
    assert found.get("loras", []) == ([] if name in NO_LORAS else [{"name": "snow", "scale": 0.75}])
    assert found["sampler"].lower().replace("++", "pp").replace(" ", "_").startswith(("dpmpp_2m", "k_dpmpp_2m"))
    assert found.get("model", "juggernautXL_v9") in ("juggernautXL_v9", "NovelAI Diffusion V4")
    assert not found.keys() & {"image_strength", "init_image", "enlarged"}, "none of them said so"


@pytest.mark.parametrize("name", FILES)
def test_metadata_png_info_returns_a1111_grammar(client: httpx.Client, name: str) -> None:
    program, data = FILES[name]
    found = png_info(client, data)
    if program == "AUTOMATIC1111":
        assert found["info"] == INFOTEXT
        return
    said = found["parameters"]
    lora = "" if name in NO_LORAS else " <lora:snow:0.75>"
    assert said["Prompt"] == f"{PROMPT}{lora}"
    assert said["Negative prompt"] == NEGATIVE
    assert [said[key] for key in ("Steps", "CFG scale", "Seed", "Size-1", "Size-2")] == [
        *("20", "7.5", "1234567890123", "512", "768"),
    ]
    assert "Version" not in said
    assert parse(found["info"]).items() <= said.items()


def test_png_info_keeps_the_texts_themselves(client: httpx.Client) -> None:
    graph = png_info(client, FILES["comfyui"][1])["items"]
    assert json.loads(graph["prompt"]) == comfy_graph()
    assert graph.keys() == {"prompt", "workflow"}
    assert json.loads(png_info(client, FILES["swarmui"][1])["items"]["parameters"]) == SWARMUI
    assert png_info(client, FILES["comfyui, webp"][1])["items"] == {}, "A1111 lists none of EXIF's but the comment"
    assert png_info(client, FILES["a1111, jpeg"][1])["items"] == {"exif comment": INFOTEXT}


def test_metadata_without_drawing_parameters_is_not_reported(client: httpx.Client) -> None:
    camera = exif_picture(
        "JPEG",
        piexif.dump(
            {
                "0th": {piexif.ImageIFD.Make: b"Apple", piexif.ImageIFD.Model: b"iPhone", 0x010E: b"a day out"},
                "Exif": {piexif.ExifIFD.UserComment: b"ASCII\0\0\0Screenshot"},
            }
        ),
    )
    others = [{}, {"Comment": "Created with GIMP"}, {"prompt": "a word"}, {"parameters": '{"a": 1}'}, {KEYWORD: "{}"}]
    for data in (camera, b"no picture", *map(png, others)):
        assert drawing_of(client, data) is None
    assert png_info(client, camera)["info"] == "Screenshot", "as A1111 shows it"
    assert png_info(client, png({"Software": "Paint"}))["info"] == ""


# ---- other readers -----------------------------------------------------------------------------------

BY_SD_PARSERS = (
    *("a1111", "a1111, packed", "a1111, jpeg", "a1111, webp", "a1111, stealth_pngcomp", "comfyui", "invokeai"),
    *("invokeai 2", "invokeai 1", "novelai", "novelai, hidden", "fooocus"),
)
BY_SD_PROMPT_READER = (
    *("a1111", "a1111, packed", "a1111, jpeg", "a1111, webp", "invokeai", "invokeai 2", "invokeai 1", "novelai"),
    *("novelai, hidden", "novelai, hidden, webp", "swarmui", "swarmui, before 0.6.2", "draw things"),
)


@pytest.mark.parametrize("name", BY_SD_PARSERS)
def test_sd_parsers_reads_the_same(name: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # Pillow's, of getdata
        found = ParserManager(eagerness=Eagerness.EAGER).parse(io.BytesIO(FILES[name][1]))
    assert found is not None
    ours = said(name)
    sampler = found.samplers[0]
    tags = " <lora:snow:0.75>" if name.startswith("a1111") else ""
    assert str(next(iter(found.prompts))) == f"{ours.prompt}{tags}"
    assert str(next(iter(found.negative_prompts))) == ours.negative_prompt
    assert (int(sampler.parameters["seed"]), sampler.name) == (ours.seed, ours.sampler)
    assert float(sampler.parameters["cfg_scale"]) == ours.guidance
    assert int(sampler.parameters.get("steps", 20)) == ours.steps
    if not name.startswith(("invokeai", "comfyui")):
        assert sampler.model is not None
        assert sampler.model.name == ours.model


@pytest.mark.parametrize("name", BY_SD_PROMPT_READER)
def test_sd_prompt_reader_reads_the_same(name: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        found = ImageDataReader(io.BytesIO(FILES[name][1]))
    ours, theirs = said(name), found.parameter
    assert found.status.name == "READ_SUCCESS"
    tags = " <lora:snow:0.75>" if name.startswith("a1111") else ""
    assert (found.positive, found.negative) == (f"{ours.prompt}{tags}", ours.negative_prompt)
    assert (int(theirs["seed"]), int(theirs["steps"]), float(theirs["cfg"])) == (ours.seed, ours.steps, ours.guidance)
    if name != "novelai":  # which takes the file's own size
        assert theirs["size"] == f"{ours.width}x{ours.height}"


def said(name: str) -> Drawing:
    from gateway.images.hidden_text import hidden_texts

    data = FILES[name][1]
    found = drawing_in(data) or drawing_by(hidden_texts(as_png(data)))
    assert found is not None
    return found


def as_png(data: bytes) -> bytes:
    out = io.BytesIO()
    with Image.open(io.BytesIO(data)) as image:
        image.save(out, "PNG")
    return out.getvalue()


# ---- EXIF's UserComment ------------------------------------------------------------------------------

WORDS = "Käse 猫\nSteps: 20, Seed: 1"


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize(
    "body",
    [
        UNICODE + WORDS.encode("utf-16-be"),
        UNICODE + WORDS.encode("utf-16-le"),
        UNICODE + b"\xfe\xff" + WORDS.encode("utf-16-be"),
        UNICODE + b"\xff\xfe" + WORDS.encode("utf-16-le"),
        UNICODE + WORDS.encode("utf-16-le") + b"\0\0",
        UNICODE + WORDS.encode(),
        b"ASCII\0\0\0" + WORDS.encode(),
        b"\0\0\0\0\0\0\0\0" + WORDS.encode(),
        WORDS.encode(),
        b"\xef\xbb\xbf" + WORDS.encode(),
        b"\xff\xfe" + WORDS.encode("utf-16-le"),
        b"\xfe\xff" + WORDS.encode("utf-16-be"),
        WORDS.encode() + b"\0",
    ],
)
def test_metadata_user_comment_is_read_in_any_encoding(body: bytes, order: str) -> None:
    assert comment(body, order) == WORDS
    for kind in ("JPEG", "WEBP"):
        data = exif_picture(kind, comment_exif(body, {"<": "II", ">": "MM"}[order]))
        assert texts(data)[USER_COMMENT] == WORDS


@pytest.mark.parametrize("order", ["<", ">"])
def test_metadata_comment_without_ascii_uses_byte_order_of_exif_block(order: str) -> None:
    text = "猫犬鳥"
    assert comment(UNICODE + text.encode("utf-16-le" if order == "<" else "utf-16-be"), order) == text


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=64), st.sampled_from("<>"))
def test_metadata_comment_parser_never_raises(body: bytes, order: str) -> None:
    assert "\0" not in comment(body, order).strip("\0")[:0]
    comment(UNICODE + body, order)


# ---- what is said and what is not --------------------------------------------------------------------


def in_words(**found: object) -> Mapping[str, Any]:
    said = drawing_by({name: json.dumps(value) for name, value in found.items()})
    return {} if said is None else said.model_dump(exclude_defaults=True)


def test_image_to_image_strength_applies_only_with_input_image() -> None:
    assert "image_strength" not in in_words(invokeai_metadata=INVOKEAI)
    assert in_words(invokeai_metadata=INVOKEAI | {"generation_mode": "sdxl_img2img"})["image_strength"] == 0.6
    for request, strength in (("PromptGenerateRequest", None), ("Img2ImgRequest", 0.7)):
        written = json.dumps(NOVELAI_COMMENT | {"request_type": request})
        assert getattr(drawing_by(NOVELAI | {"Comment": written}), "image_strength", "") == strength
    params = SWARMUI["sui_image_params"] | {"initimagecreativity": 0.3}
    assert "image_strength" not in in_words(parameters={"sui_image_params": params})
    assert in_words(parameters={"sui_image_params": params | {"initimage": "x"}})["image_strength"] == 0.3
    hires = INFOTEXT.replace("Version", "Denoising strength: 0.5, Hires upscale: 2, Version")
    assert getattr(drawing_in(png({"parameters": hires})), "image_strength", "") is None
    begun = INFOTEXT.replace("Version", "Denoising strength: 0.5, Version")
    assert getattr(drawing_in(png({"parameters": begun})), "image_strength", "") == 0.5


def test_metadata_novelai_character_prompts_have_their_own_lines() -> None:
    captions = {"base_caption": "two cats", "char_captions": [{"char_caption": "black"}, {"char_caption": "white"}]}
    written = json.dumps(NOVELAI_COMMENT | {"v4_prompt": {"caption": captions}})
    assert getattr(drawing_by(NOVELAI | {"Comment": written}), "prompt", "") == "two cats\nblack\nwhite"


def test_metadata_guidance_of_distilled_model_is_its_distilled_guidance() -> None:
    params = SWARMUI["sui_image_params"] | {"cfgscale": 1, "fluxguidancescale": 3.5}
    assert in_words(parameters={"sui_image_params": params})["guidance"] == 3.5
    forge = INFOTEXT.replace("CFG scale: 7.5", "Distilled CFG Scale: 3.5, CFG scale: 1")
    assert getattr(drawing_in(png({"parameters": forge})), "guidance", "") == 3.5


@pytest.mark.parametrize(
    ("wrong", "left_out"),
    [
        ({"seed": 2**64}, "seed"),
        ({"seed": "none"}, "seed"),
        ({"steps": 0}, "steps"),
        ({"steps": True}, "steps"),
        ({"width": -1}, "width"),
        ({"cfg_scale": float("inf")}, "guidance"),
        ({"positive_prompt": "x" * 70_000}, "prompt"),
        ({"positive_prompt": ["x"]}, "prompt"),
        ({"model": "a name"}, "model"),
        ({"model": {"name": "x" * 300}}, "model"),
        ({"loras": [{"weight": 1}, 5, None]}, "loras"),
        ({"scheduler": {}}, "sampler"),
    ],
)
def test_metadata_impossible_value_is_omitted_and_others_are_kept(wrong: dict[str, Any], left_out: str) -> None:
    before = in_words(invokeai_metadata=INVOKEAI)
    assert in_words(invokeai_metadata=INVOKEAI | wrong) == {k: v for k, v in before.items() if k != left_out}


def test_metadata_own_text_takes_precedence_over_others() -> None:
    from gateway.images.provenance import signed

    ours = Drawing(prompt="ours", model="m", width=1, height=1, steps=1, guidance=1, seed=1)
    assert drawing_in(signed(FILES["comfyui"][1], ours)) == ours
    assert answer(signed(png({}), ours))["info"].startswith("ours\nSteps: 1, Sampler: Euler, Schedule type: Simple, ")


def test_metadata_in_a1111_grammar_is_parsed_back() -> None:
    for name in ("comfyui", "swarmui", "fooocus"):
        told = said(name)
        again = drawing_in(png({"parameters": to_infotext(told)}))
        assert again is not None
        same = {"sampler", "scheduler", "program", "sampling"}
        assert again.model_dump(exclude=same) == told.model_dump(exclude=same)
        assert (again.sampler, again.scheduler) == ("DPM++ 2M", "Karras")
        assert again.sampling == SamplingRequest(sampler="DPM++ 2M", schedule="Karras", random_source="NV")
