"""Pictures in fields that nobody reads: refused by name, or told where A1111's clients expect leniency."""

from __future__ import annotations

import base64
import io
import json
from typing import Any

import httpx
import pytest
from PIL import Image

from adapters.sdapi.control import unit_of
from gateway.errors import InvalidRequest
from gateway.http.unknown_images import is_image, unknown_images
from gateway.images.codec import base64_image
from tests.support.sdapi import translated
from tests.support.v1 import MODEL, assert_openai_error, input_png

TEXT = base64.b64encode(input_png()).decode()
URL = f"data:image/png;base64,{TEXT}"
WORDS = (
    "",
    " ",
    "a red apple",
    "/9j/",
    "iVBORw0KGgo=",
    "data:text/plain,hello",
    "data:",
    "x" * 300,
    "R0lGOD" + "!" * 90,
)
NESTED: tuple[Any, ...] = (TEXT, URL, [URL], [[URL]], {"src": URL}, {"source": {"data": TEXT}}, [None, {"a": [TEXT]}])
NAMES = ("image_data", "initImage", "picture", "img", "photo", "x")


def encoded(kind: str) -> str:
    out = io.BytesIO()
    Image.new("RGB", (64, 64), "red").save(out, kind)
    return base64.b64encode(out.getvalue()).decode()


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "GIF", "TIFF", "AVIF"])
def test_image_format_is_detected_by_first_bytes(kind: str) -> None:
    text = encoded(kind)
    assert is_image(text)
    assert is_image(f"\n {text}")
    assert is_image(f"data:application/octet-stream;base64,{text}")
    assert is_image(f" DATA:IMAGE/{kind};charset=x;base64,")


@pytest.mark.parametrize("words", WORDS)
def test_image_detection_rejects_plain_words(words: str) -> None:
    assert not is_image(words)


@pytest.mark.parametrize("value", NESTED)
def test_image_in_unknown_field_is_found_at_any_depth_and_known_fields_are_skipped(value: Any) -> None:
    assert unknown_images({"a": value, "b": value, "c": ["words", 7, None]}, {"b"}) == ["a"]


# ---- the protocols ---------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("value", NESTED[:5])
def test_image_in_unknown_field_is_refused_by_v1_with_its_name(plain: httpx.Client, name: str, value: Any) -> None:
    ask = {"prompt": "x", "size": "64x64", name: value}
    for path, more in (("generations", {}), ("edits", {"image": URL}), ("variations", {"image": URL})):
        refused = plain.post(f"/v1/images/{path}", json={**ask, **more})
        assert assert_openai_error(refused, 400)["param"] == name
    assert assert_openai_error(plain.post("/v1/images/ocr", json={"image": URL, name: value}), 400)["param"] == name
    kwargs = json.dumps({name: value})
    assert_openai_error(plain.post("/v1/images/generations", json={"prompt": "x", "kwargs": kwargs}), 400)


@pytest.mark.parametrize("name", ["image_url", "input_image", "init_images", "control_image", "mask_url", "mask_b64"])
@pytest.mark.parametrize("value", [{"x": 1}, 7, ["a"], "word", URL])
def test_image_field_of_other_protocols_is_refused_by_v1_in_any_shape(
    plain: httpx.Client, name: str, value: Any
) -> None:
    for path, more in (("generations", {}), ("edits", {"image": URL})):
        refused = plain.post(f"/v1/images/{path}", json={"prompt": "x", **more, name: value})
        assert assert_openai_error(refused, 400)["param"] == name


@pytest.mark.parametrize("name", ["url", "markup", "mask_image", "reference_image"])
def test_image_generation_v1_refuses_malformed_value_in_its_image_fields(plain: httpx.Client, name: str) -> None:
    refused = plain.post("/v1/images/generations", json={"prompt": "x", name: {"x": 1}})
    assert assert_openai_error(refused, 400)["param"] == name


def test_image_ocr_accepts_one_image_and_no_mask(plain: httpx.Client) -> None:
    for name in ("mask", "markup", "reference_images"):
        refused = plain.post("/v1/images/ocr", json={"image": URL, name: URL})
        assert assert_openai_error(refused, 400)["param"] == name


@pytest.mark.parametrize("name", ["image", "init_image", "mask_image", "image_url", *NAMES])
def test_image_in_unknown_field_is_refused_by_native_and_mflux_server(plain: httpx.Client, name: str) -> None:
    refused = plain.post("/api/v1/generate", json={"prompt": "x", "model": MODEL, name: URL})
    assert (refused.status_code, refused.json()["details"]["param"]) == (400, name)
    if name != "init_image":
        refused = plain.post("/api/generate", json={"prompt": "x", name: TEXT})
        assert (refused.status_code, list(refused.json()["errors"])) == (400, [name])
    if name != "image":
        refused = plain.post("/api/v1/upscale", json={"image": URL, name: {"a": URL}})
        assert (refused.status_code, refused.json()["details"]["param"]) == (400, name)


@pytest.mark.parametrize("name", ["image", "mask_image", "firstpass_image", "latent_mask", "controlnet_units", *NAMES])
def test_image_in_unknown_sdapi_field_is_reported_and_not_refused(name: str) -> None:
    found, plain = translated(**{name: [{"a": TEXT}]}), translated()
    assert found.request == plain.request
    assert [item.param for item in found.adjustments] == [name]
    assert translated(**{name: {"a": "words"}}).adjustments == ()


# ---- ControlNet ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "script",
    [
        {"args": [TEXT]},
        {"args": [["unit"]]},
        {"args": [[{"image": TEXT}]]},
        {"args": [7]},
        {"args": TEXT},
        {"image": TEXT},
        {"args": [{"image": TEXT}], "mask": TEXT},
        {"args": [{"image": TEXT, "batch_images": [TEXT]}]},
        {"args": [{"pic": {"a": URL}}]},
        [{"image": TEXT}],
        TEXT,
    ],
)
def test_a_controlnet_unit_in_an_unknown_shape_is_refused(script: Any) -> None:
    with pytest.raises(InvalidRequest) as caught:
        unit_of({"ControlNet": script})
    assert caught.value.param == "alwayson_scripts"


@pytest.mark.parametrize(
    "script",
    [
        {"args": []},
        {},
        {"args": [None, False]},
        {"args": [{"enabled": False, "pic": TEXT}]},
        {"args": [{"enabled": 0}]},
    ],
)
def test_controlnet_units_without_a_request_are_ignored(script: Any) -> None:
    assert unit_of({"controlnet": script}) is None


# ---- base64 ----------------------------------------------------------------------------------------


def test_image_data_url_percent_encoding_is_decoded_across_chunk_boundaries() -> None:
    raw = bytes(range(256)) * 9000
    text = base64.b64encode(raw).decode()
    escaped = text.replace("+", "%2B").replace("/", "%2f").replace("=", "%3d")
    lines = "%0D%0A".join(text[at : at + 997].replace("+", "%2B") for at in range(0, len(text), 997))
    for sent in (
        text.rstrip("="),
        f"data:image/png;base64,{escaped}",
        f" data:;base64,{escaped}",
        f"data:image/png;base64,{lines}",
    ):
        assert base64_image(sent) == raw
    for shift in range(3):  # the cut between two pieces falls into an escape
        assert (
            base64_image("data:image/png;base64," + "%20" * shift + " " * shift + "%2B" * 600_000)[:3]
            == b"\xfb\xef\xbe"
        )


@pytest.mark.parametrize(
    "sent", ["data:image/png;base64,AA%41A", "AA%2BA", "data:image/png;base64,AAA%", "data:image/png;base64,%2"]
)
def test_image_base64_with_other_escapes_is_refused(sent: str) -> None:
    with pytest.raises(InvalidRequest, match="not valid base64"):
        base64_image(sent)
