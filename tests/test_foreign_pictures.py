"""Pictures of other programs: what each says of how it was drawn is read, and nothing is added to it."""

from __future__ import annotations

import base64
import io
import json
import time
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

from adapters.sdapi.infotext import parse
from adapters.sdapi.png_info import answer
from gateway.exif_text import comment
from gateway.foreign import comfyui, said_in
from gateway.picture_text import USER_COMMENT, texts
from gateway.provenance import Drawing, drawing_by, drawing_in, to_infotext
from tests.foreign_pictures import (
    DRAW_THINGS,
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
    comfy,
    comfy_graph,
    comment_exif,
    exif_picture,
    node,
    picture,
    png,
    stealth,
)
from tests.live import Live, live


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Live]:
    with live(tmp_path_factory.mktemp("foreign")) as gateway:
        yield gateway


@pytest.fixture(scope="module")
def client(gateway: Live) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=gateway.url, timeout=60) as client:
        yield client


def drawing_of(client: httpx.Client, data: bytes) -> dict[str, Any] | None:
    answer = client.post("/api/v1/images/drawing", files={"image": ("a", data)})
    assert answer.status_code == 200, answer.text
    found = answer.json()["drawing"]
    assert found is None or isinstance(found, dict)
    return found


def png_info(client: httpx.Client, data: bytes) -> dict[str, Any]:
    answer = client.post("/sdapi/v1/png-info", json={"image": base64.b64encode(data).decode()})
    assert answer.status_code == 200, answer.text
    return dict(answer.json())


# ---- every program, by both routes -------------------------------------------------------------------


@pytest.mark.parametrize("name", FILES)
def test_a_picture_of_each_program_says_how_it_was_drawn(client: httpx.Client, name: str) -> None:
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
def test_png_info_tells_it_in_a1111s_grammar(client: httpx.Client, name: str) -> None:
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


def test_what_says_nothing_is_told_nothing_of(client: httpx.Client) -> None:
    camera = exif_picture(
        "JPEG",
        piexif.dump(
            {
                "0th": {piexif.ImageIFD.Make: b"Apple", piexif.ImageIFD.Model: b"iPhone", 0x010E: b"a day out"},
                "Exif": {piexif.ExifIFD.UserComment: b"ASCII\0\0\0Screenshot"},
            }
        ),
    )
    for data in (camera, png({}), png({"Comment": "Created with GIMP"}), png({"prompt": "a word"}), b"no picture"):
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
    from gateway.hidden_text import hidden_texts

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
def test_a_comment_is_read_in_whatever_code_it_stands(body: bytes, order: str) -> None:
    assert comment(body, order) == WORDS
    for kind in ("JPEG", "WEBP"):
        data = exif_picture(kind, comment_exif(body, {"<": "II", ">": "MM"}[order]))
        assert texts(data)[USER_COMMENT] == WORDS


@pytest.mark.parametrize("order", ["<", ">"])
def test_where_no_letter_shows_it_the_order_is_the_blocks(order: str) -> None:
    text = "猫犬鳥"
    assert comment(UNICODE + text.encode("utf-16-le" if order == "<" else "utf-16-be"), order) == text


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=64), st.sampled_from("<>"))
def test_no_comment_raises(body: bytes, order: str) -> None:
    assert "\0" not in comment(body, order).strip("\0")[:0]
    comment(UNICODE + body, order)


# ---- what is said and what is not --------------------------------------------------------------------


def in_words(**found: object) -> Mapping[str, Any]:
    said = drawing_by({name: json.dumps(value) for name, value in found.items()})
    return {} if said is None else said.model_dump(exclude_defaults=True)


def test_a_strength_counts_where_a_picture_was_begun_from() -> None:
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


def test_novelais_characters_have_lines_of_their_own() -> None:
    captions = {"base_caption": "two cats", "char_captions": [{"char_caption": "black"}, {"char_caption": "white"}]}
    written = json.dumps(NOVELAI_COMMENT | {"v4_prompt": {"caption": captions}})
    assert getattr(drawing_by(NOVELAI | {"Comment": written}), "prompt", "") == "two cats\nblack\nwhite"


def test_guidance_is_that_which_guided_a_distilled_model() -> None:
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
def test_a_value_that_cannot_be_is_left_out_and_the_others_stay(wrong: dict[str, Any], left_out: str) -> None:
    before = in_words(invokeai_metadata=INVOKEAI)
    assert in_words(invokeai_metadata=INVOKEAI | wrong) == {k: v for k, v in before.items() if k != left_out}


def test_our_own_words_come_before_all_others() -> None:
    from gateway.provenance import signed

    ours = Drawing(prompt="ours", model="m", width=1, height=1, steps=1, guidance=1, seed=1)
    assert drawing_in(signed(FILES["comfyui"][1], ours)) == ours
    assert answer(signed(png({}), ours))["info"].startswith("ours\nSteps: 1, Sampler: Euler, Schedule type: Simple, ")


def test_a_drawing_told_in_a1111s_grammar_is_read_back() -> None:
    for name in ("comfyui", "swarmui", "fooocus"):
        told = said(name)
        again = drawing_in(png({"parameters": to_infotext(told)}))
        assert again is not None
        same = {"sampler", "scheduler", "program"}
        assert again.model_dump(exclude=same) == told.model_dump(exclude=same)
        assert (again.sampler, again.scheduler) == ("DPM++ 2M", "Karras")


# ---- ComfyUI's graphs --------------------------------------------------------------------------------


def graph_says(graph: Mapping[str, Any]) -> dict[str, Any]:
    found = drawing_in(comfy_only(graph))
    return {} if found is None else found.model_dump(exclude_defaults=True)


def comfy_only(graph: Mapping[str, Any]) -> bytes:
    return png({"prompt": json.dumps(graph)}, packed=True)


def flux_graph() -> dict[str, Any]:
    """ComfyUI's FLUX template with a custom sampler, a joined prompt and a zeroed negative."""
    return {
        "1": node("UNETLoader", unet_name="flux1-dev-fp8.safetensors", weight_dtype="default"),
        "2": node("ModelSamplingFlux", max_shift=1.15, base_shift=0.5, width=1024, height=768, model=["1", 0]),
        "3": node("PrimitiveStringMultiline", value="a fox"),
        "4": node("StringConcatenate", string_a=["3", 0], string_b="in the snow", delimiter=" "),
        "5": node("CLIPTextEncodeFlux", clip_l=["4", 0], t5xxl=["4", 0], guidance=1, clip=["99", 0]),
        "6": node("FluxGuidance", guidance=3.5, conditioning=["5", 0]),
        "7": node("BasicGuider", model=["2", 0], conditioning=["6", 0]),
        "8": node("RandomNoise", noise_seed=["9", 0]),
        "9": node("PrimitiveInt", value=77),
        "10": node("KSamplerSelect", sampler_name="euler"),
        "11": node("BasicScheduler", scheduler="beta", steps=28, denoise=1, model=["2", 0]),
        "12": node("EmptySD3LatentImage", width=["14", 0], height=768, batch_size=1),
        "13": node(
            "SamplerCustomAdvanced",
            **{"noise": ["8", 0], "guider": ["7", 0], "sampler": ["10", 0], "sigmas": ["11", 0]},
            latent_image=["12", 0],
        ),
        "14": node("PrimitiveInt", value=1024),
        "15": node("VAEDecode", samples=["13", 0], vae=["98", 0]),
        "16": node("SaveImage", images=["15", 0]),
    }


def test_a_graph_of_custom_sampling_is_walked_through_its_parts() -> None:
    assert graph_says(flux_graph()) == {
        **{"program": "ComfyUI", "prompt": "a fox in the snow", "model": "flux1-dev-fp8", "guidance": 3.5, "seed": 77},
        **{"width": 1024, "height": 768, "steps": 28, "sampler": "euler", "scheduler": "beta"},
    }


def test_a_guider_of_two_sides_and_a_zeroed_negative() -> None:
    graph = flux_graph()
    graph["7"] = node("CFGGuider", model=["2", 0], positive=["6", 0], negative=["20", 0], cfg=4)
    graph["20"] = node("ConditioningZeroOut", conditioning=["6", 0])
    assert "negative_prompt" not in graph_says(graph)
    graph["20"] = node("ControlNetApplyAdvanced", positive=["6", 0], negative=["21", 0], strength=1, image=["30", 0])
    graph["21"] = node("CLIPTextEncode", text="blurry", clip=["99", 0])
    graph["7"]["inputs"]["positive"] = ["20", 0]
    graph["7"]["inputs"]["negative"] = ["20", 1]
    found = graph_says(graph)
    assert (found["prompt"], found["negative_prompt"]) == ("a fox in the snow", "blurry")


def test_sampling_in_two_stages_is_told_by_the_first() -> None:
    graph = comfy_graph()
    stage = {"add_noise": "enable", "noise_seed": 5, "steps": 25, "cfg": 8, "sampler_name": "euler"}
    links = {"model": ["4", 0], "positive": ["6", 0], "negative": ["7", 0]}
    graph["3"] = node("KSamplerAdvanced", **stage, **links, scheduler="normal", start_at_step=0, latent_image=["5", 0])
    graph["21"] = node("KSamplerAdvanced", **stage | {"noise_seed": 6}, **links, latent_image=["3", 0])
    found = graph_says(graph)
    assert (found["seed"], found["steps"], found["width"]) == (5, 25, 512)
    assert "loras" not in found


def test_a_picture_that_was_begun_from_has_no_size_in_the_graph() -> None:
    graph = comfy_graph()
    graph["3"]["inputs"] |= {"latent_image": ["40", 0], "denoise": 0.55}
    graph |= {"40": node("VAEEncode", pixels=["41", 0], vae=["4", 2]), "41": node("LoadImage", image="cat.png")}
    found = graph_says(graph)
    assert found["image_strength"] == 0.55
    assert not found.keys() & {"width", "height"}


def test_of_several_outputs_only_what_they_share_is_told() -> None:
    graph = comfy_graph()
    other = graph["3"]["inputs"] | {"seed": 4, "positive": ["7", 0]}
    graph |= {"50": node("KSampler", **other), "51": node("VAEDecode", samples=["50", 0], vae=["4", 2])}
    graph["52"] = node("SaveImage", images=["51", 0])
    found = graph_says(graph)
    assert not found.keys() & {"seed", "prompt"}
    assert found["steps"] == 20


def test_loras_that_are_off_are_not_told() -> None:
    graph = comfy_graph()
    graph["10"] = node(
        "Power Lora Loader (rgthree)",
        **{"lora_1": {"on": True, "lora": "a/x.safetensors", "strength": 0.5}, "model": ["4", 0]},
        **{"lora_2": {"on": False, "lora": "y.safetensors", "strength": 1}, "PowerLoraLoaderHeaderWidget": {}},
    )
    assert graph_says(graph)["loras"] == ({"name": "x", "scale": 0.5},)
    graph["10"] = node("LoraLoaderModelOnly", lora_name="z.safetensors", strength_model=0, model=["4", 0])
    assert "loras" not in graph_says(graph)


def test_graphs_of_one_node_for_all_are_read() -> None:
    found = graph_says(
        {
            "1": node(
                "Efficient Loader",
                **{"ckpt_name": "x.safetensors", "lora_name": "None", "positive": "a fox", "negative": "blurry"},
                **{"empty_latent_width": 640, "empty_latent_height": 480},
            ),
            "2": node(
                "KSampler (Efficient)",
                **{"seed": 1, "steps": 9, "cfg": 3, "sampler_name": "euler", "scheduler": "normal", "denoise": 1.0},
                **{"model": ["1", 0], "positive": ["1", 1], "negative": ["1", 2], "latent_image": ["1", 3]},
            ),
            "3": node("PreviewImage", images=["2", 5]),
        }
    )
    assert (found["prompt"], found["negative_prompt"], found["model"]) == ("a fox", "blurry", "x")
    assert (found["width"], found["height"]) == (640, 480)


def test_nan_in_a_graph_is_no_reason_to_give_up() -> None:
    """ComfyUI writes it where a node always runs again."""
    graph = comfy_graph()
    graph["5"]["is_changed"] = [float("nan")]
    assert graph_says(graph)["width"] == 512


# ---- hostile files -----------------------------------------------------------------------------------


def chain(count: int, kind: str = "LatentUpscale", name: str = "samples") -> dict[str, Any]:
    return {str(i): node(kind, **{name: [str(i + 1), 0]}) for i in range(count)}


def doubling(depth: int) -> dict[str, Any]:
    graph = {
        str(i): node("StringConcatenate", string_a=[str(i + 1), 0], string_b=[str(i + 1), 0]) for i in range(depth)
    }
    graph[str(depth)] = node("PrimitiveString", value="x" * 1000)
    sampler = {"seed": 1, "steps": 1, "positive": ["e", 0], "latent_image": ["e", 0]}
    return graph | {
        "e": node("CLIPTextEncode", text=["0", 0]),
        "k": node("KSampler", **sampler),
        "s": node("SaveImage", images=["k", 0]),
    }


def samplers(count: int) -> dict[str, Any]:
    """Each takes the one after it, and its own text."""
    return {
        str(i): node("KSampler", seed=i, steps=1, positive=["t", 0], latent_image=[str(i + 1), 0]) for i in range(count)
    } | {"t": node("CLIPTextEncode", text="x"), "s": node("SaveImage", images=["0", 0])}


HOSTILE: dict[str, str] = {
    "nested": "[" * 200_000,
    "nested objects": '{"a":' * 40_000,
    "nested in a graph": '{"1":{"class_type":"x","inputs":{"a":' + "[" * 100_000 + "]" * 100_000 + "}}}",
    "NaN": '{"c": "x", "seed": NaN, "steps": Infinity, "sampler": "y"}',
    "long numbers": '{"c": "x", "sampler": "y", "seed": ' + "9" * 100_000 + ', "steps": 1e999}',
    "equal keys": '{"c": "x", "c": "y", "sampler": "z", "seed": 1, "seed": 2}',
    "surrogates": '{"c": "\\ud800 \\u0000", "sampler": "\\udfff"}',
    "cycle": json.dumps(
        {
            "1": node(
                "KSampler", seed=["1", 0], steps=["2", 0], positive=["2", 0], model=["2", 0], latent_image=["1", 0]
            ),
            "2": node("Reroute", a=["3", 0]),
            "3": node("Reroute", a=["2", 0]),
            "4": node("SaveImage", images=["1", 0]),
        }
    ),
    "long chain": json.dumps(chain(3500) | {"3500": node("KSampler", seed=1, steps=1, positive=["0", 0])}),
    "long reroutes": json.dumps(chain(3000, "Reroute", "a") | {"s": node("SaveImage", images=["0", 0])}),
    "many samplers": json.dumps(samplers(1500)),
    "many outputs": json.dumps(chain(1000) | {f"s{i}": node("SaveImage", images=["0", 0]) for i in range(2000)}),
    "wide": json.dumps({"k": node("KSampler", **{f"i{i}": ["k", 0] for i in range(15_000)})}),
    "doubling": json.dumps(doubling(60)),
    "wrong types": json.dumps(
        {"1": {"class_type": 5, "inputs": []}, "2": [], "3": node("KSampler", seed={}, positive=[])}
    ),
    "brackets": '"' + "[" * 100_000 + '" -s 1',
    "tags": "<lora:" * 40_000 + ">",
    "switches": '"x" ' + "-s " * 60_000,
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_texts_are_read_in_no_time_and_raise_nothing(name: str) -> None:
    text = HOSTILE[name]
    began = time.process_time()
    for keyword in ("prompt", "parameters", "invokeai_metadata", "sd-metadata", "Dream", "Comment", USER_COMMENT):
        drawing_by({keyword: text, "Software": "NovelAI"})
    packet = f"<exif:UserComment><rdf:li>{text}</rdf:li></exif:UserComment>"
    drawing_by({"XML:com.adobe.xmp": packet})
    drawing_by({"XML:com.adobe.xmp": "<exif:UserComment" * 10_000})
    assert time.process_time() - began < 10, "under a second on a machine that does nothing else"


def test_of_hostile_numbers_and_keys_the_sound_rest_is_told() -> None:
    found = drawing_by({USER_COMMENT: HOSTILE["equal keys"]})
    assert found is not None
    assert (found.prompt, found.seed) == ("y", 2)
    for name in ("NaN", "long numbers"):
        found = drawing_by({USER_COMMENT: HOSTILE[name]})
        assert found is not None
        assert (found.prompt, found.seed, found.steps) == ("x", None, None)
    surrogates = drawing_by({USER_COMMENT: HOSTILE["surrogates"]})
    assert surrogates is not None
    assert surrogates.prompt == "\ufffd \ufffd"


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_files_are_answered_by_both_routes(client: httpx.Client, name: str) -> None:
    data = png(dict.fromkeys(("prompt", "parameters", "Comment"), HOSTILE[name]), packed=True)
    drawing_of(client, data)
    png_info(client, data)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)
KEYS = sorted(
    {*INVOKEAI, *NOVELAI_COMMENT, *SWARMUI["sui_image_params"], *DRAW_THINGS, "image", "class_type", "inputs"}
)


@settings(max_examples=300, deadline=None)
@given(
    st.dictionaries(st.sampled_from(KEYS), JSON, max_size=8),
    st.sampled_from(["parameters", "invokeai_metadata", "sd-metadata", "Comment", USER_COMMENT, "prompt"]),
    st.booleans(),
)
def test_whatever_stands_where_values_should_be_raises_nothing(value: Any, keyword: str, nested: bool) -> None:
    for whole in (
        value,
        {"sui_image_params": value},
        {"image": value},
        {"1": {"class_type": "KSampler", "inputs": value}},
    ):
        found = {keyword: json.dumps(whole), "Software": "NovelAI"}
        said_in(found)
        drawing_by(found)


INPUTS = (
    *("seed", "steps", "cfg", "positive", "negative", "model", "latent_image", "samples", "images", "text", "guider"),
    *("sigmas", "noise", "sampler", "value", "string_a", "string_b", "conditioning", "width", "height", "ckpt_name"),
    "lora_name",
)


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_graphs_linked_at_random_end(data: st.DataObject) -> None:
    names = [str(i) for i in range(8)]
    links = st.sampled_from(names).map(lambda name: [name, 0]) | st.text(max_size=4) | st.integers()
    inputs = st.dictionaries(
        st.sampled_from(INPUTS),
        links,
        max_size=8,
    )
    kinds = st.sampled_from(["KSampler", "SaveImage", "Reroute", "CLIPTextEncode", "EmptyLatentImage", "x"])
    graph = {name: {"class_type": data.draw(kinds), "inputs": data.draw(inputs)} for name in names}
    comfyui.read({"prompt": json.dumps(graph)})
    drawing_by({"prompt": json.dumps(graph)})


@pytest.mark.parametrize("length", [0, 1, 7, 2**31, 2**32 - 1])
def test_a_hidden_text_of_a_false_length_says_nothing(client: httpx.Client, length: int) -> None:
    """Only what the picture has room for is looked at."""
    image = picture("RGBA")
    image.putalpha(255)
    bits = [byte >> (7 - i) & 1 for byte in b"stealth_pnginfo" + length.to_bytes(4) for i in range(8)]
    for at, bit in enumerate(bits):
        x, y = divmod(at, image.height)
        image.putpixel((x, y), (1, 2, 3, 254 | bit))
    out = io.BytesIO()
    image.save(out, "PNG")
    assert drawing_of(client, out.getvalue()) is None
    assert png_info(client, out.getvalue())["info"] == ""


def test_a_hidden_bomb_says_nothing(client: httpx.Client) -> None:
    assert drawing_of(client, stealth("x" * 2_000_000)) is None
    assert drawing_of(client, stealth("no gzip", "stealth_pnginfo").replace(b"x", b"x")) is not None


def test_graphs_of_both_layouts_in_one_picture_are_told_once() -> None:
    both = png({"parameters": INFOTEXT.replace("a red fox", "a blue fox"), "prompt": json.dumps(comfy_graph())})
    found = drawing_in(both)
    assert found is not None
    assert found.prompt == PROMPT.replace("red", "blue")
    assert drawing_in(comfy()) == drawing_in(comfy_only(comfy_graph()))
