"""Texts of other programs' pictures made to be slow, deep, endless or wrong: read within bounds."""

from __future__ import annotations

import io
import json
import time
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.images.file_texts import USER_COMMENT
from gateway.images.foreign import comfyui, fields_in
from gateway.images.foreign.values import MAX_JSON_CHARS
from gateway.images.provenance import drawing_by
from tests.support.foreign_pictures import (
    DRAW_THINGS,
    INVOKEAI,
    NOVELAI_COMMENT,
    SWARMUI,
    drawing_of,
    picture,
    png,
    png_info,
    stealth,
)
from tests.support.live import live


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx.Client]:
    with (
        live(tmp_path_factory.mktemp("hostile")) as gateway,
        httpx.Client(base_url=gateway.url, timeout=60) as client,
    ):
        yield client


def node(kind: str, **inputs: object) -> dict[str, Any]:
    return {"class_type": kind, "inputs": inputs}


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
    "long chain": json.dumps(chain(3000) | {"3000": node("KSampler", seed=1, steps=1, positive=["0", 0])}),
    "long reroutes": json.dumps(chain(3400, "Reroute", "a") | {"s": node("SaveImage", images=["0", 0])}),
    "many samplers": json.dumps(samplers(1500)),
    "many outputs": json.dumps(chain(1000) | {f"s{i}": node("SaveImage", images=["0", 0]) for i in range(1500)}),
    "wide": json.dumps({"k": node("KSampler", **{f"i{i}": ["k", 0] for i in range(13_000)})}),
    "doubling": json.dumps(doubling(60)),
    "wrong types": json.dumps(
        {"1": {"class_type": 5, "inputs": []}, "2": [], "3": node("KSampler", seed={}, positive=[])}
    ),
    "brackets": '"' + "[" * 100_000 + '" -s 1',
    "tags": "<lora:" * 40_000 + ">",
    "switches": '"x" ' + "-s " * 60_000,
}


@pytest.mark.parametrize("name", HOSTILE)
def test_metadata_hostile_texts_are_parsed_fast_without_exceptions(name: str) -> None:
    text = HOSTILE[name]
    assert len(text) <= MAX_JSON_CHARS, "else nothing of it is read"
    began = time.process_time()
    for keyword in (
        "prompt",
        "workflow",
        "parameters",
        "invokeai_metadata",
        "sd-metadata",
        "Dream",
        "Comment",
        USER_COMMENT,
    ):
        drawing_by({keyword: text, "Software": "NovelAI"})
    packet = f"<exif:UserComment><rdf:li>{text}</rdf:li></exif:UserComment>"
    drawing_by({"XML:com.adobe.xmp": packet})
    drawing_by({"XML:com.adobe.xmp": "<exif:UserComment" * 10_000})
    assert time.process_time() - began < 10, "under a second on a machine that does nothing else"


def test_metadata_with_hostile_numbers_and_keys_keeps_valid_remainder() -> None:
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
def test_image_hostile_files_are_answered_by_both_routes(client: httpx.Client, name: str) -> None:
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


@settings(max_examples=100, deadline=None)
@given(
    st.dictionaries(st.sampled_from(KEYS), JSON, max_size=8),
    st.sampled_from(["parameters", "invokeai_metadata", "sd-metadata", "Comment", USER_COMMENT, "prompt"]),
    st.booleans(),
)
def test_metadata_with_wrong_value_types_raises_nothing(value: Any, keyword: str, nested: bool) -> None:
    for whole in (
        value,
        {"sui_image_params": value},
        {"image": value},
        {"1": {"class_type": "KSampler", "inputs": value}},
    ):
        found = {keyword: json.dumps(whole), "Software": "NovelAI"}
        fields_in(found)
        drawing_by(found)


INPUTS = (
    *("seed", "steps", "cfg", "positive", "negative", "model", "latent_image", "samples", "images", "text", "guider"),
    *("sigmas", "noise", "sampler", "value", "string_a", "string_b", "conditioning", "width", "height", "ckpt_name"),
    "lora_name",
)


@settings(max_examples=100, deadline=None)
@given(st.data())
def test_metadata_comfyui_randomly_linked_graphs_terminate(data: st.DataObject) -> None:
    names = [str(i) for i in range(8)]
    links = st.sampled_from(names).map(lambda name: [name, 0]) | st.text(max_size=4) | st.integers()
    inputs = st.dictionaries(
        st.sampled_from(INPUTS),
        links,
        max_size=8,
    )
    modes = st.sampled_from([0, 2, 4]) | JSON
    kinds = st.sampled_from(["KSampler", "SaveImage", "Reroute", "CLIPTextEncode", "EmptyLatentImage", "x"])
    graph = {name: {"class_type": data.draw(kinds), "inputs": data.draw(inputs)} for name in names}
    comfyui.read({"prompt": json.dumps(graph)})
    drawing_by({"prompt": json.dumps(graph)})
    rows = [{"id": name, "type": node["class_type"], "mode": data.draw(modes), **node} for name, node in graph.items()]
    drawing_by({"workflow": json.dumps({"nodes": rows, "links": data.draw(st.lists(st.lists(JSON, max_size=6)))})})


@pytest.mark.parametrize("length", [0, 1, 7, 2**31, 2**32 - 1])
def test_metadata_hidden_text_with_false_length_yields_nothing(client: httpx.Client, length: int) -> None:
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


def test_metadata_hidden_decompression_bomb_yields_nothing(client: httpx.Client) -> None:
    assert drawing_of(client, stealth("x" * 2_000_000)) is None
    assert drawing_of(client, stealth("no gzip", "stealth_pnginfo").replace(b"x", b"x")) is not None
