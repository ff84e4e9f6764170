"""Pictures coming in at /v1, over a socket: forms and JSON as clients write them, and as nobody should."""

from __future__ import annotations

import base64
import io
import json
import random
from typing import Any

import httpx
import pytest
from PIL import Image

from tests.support.v1 import (
    MODEL,
    SKETCH,
    UNDISTILLED,
    assert_openai_error,
    hole_mask,
    input_png,
    opened,
    white_mask,
)

APPLE = {"prompt": "an apple"}
EDITS, VARIATIONS = (f"/v1/images/{name}" for name in ("edits", "variations"))
DATA_URL = "data:image/png;base64," + base64.b64encode(input_png()).decode()


def post(plain: httpx.Client, path: str, files: Any = None, **fields: Any) -> httpx.Response:
    files = {"image": ("upload", input_png())} if files is None else files
    return plain.post(path, data={**APPLE, **fields}, files=files)


def first(answer: httpx.Response) -> Image.Image:
    assert answer.status_code == 200, answer.text[:500]
    return opened(answer.json()["data"][0]["b64_json"])


def told(answer: httpx.Response) -> list[str]:
    return [adjustment["param"] for adjustment in answer.json()["adjustments"]]


# ---- what the pictures do --------------------------------------------------------------------------


@pytest.mark.parametrize("path", [EDITS, VARIATIONS])
def test_a_picture_without_a_size_keeps_its_own(plain: httpx.Client, path: str) -> None:
    assert post(plain, path).json()["size"] == "96x64"
    assert post(plain, path, size="original").json()["size"] == "96x64"
    assert post(plain, path, size="auto").json()["size"] == "96x64"
    assert post(plain, path, size="64*128").json()["size"] == "64x128"


@pytest.mark.parametrize("path", [EDITS, VARIATIONS])
def test_edit_result_resembles_the_input_picture_by_strength(plain: httpx.Client, path: str) -> None:
    near = first(post(plain, path, strength="0.1", seed="7"))
    far = first(post(plain, path, strength="1.0", seed="7"))
    assert distance(near, opened(input_png())) < distance(far, opened(input_png()))
    assert first(post(plain, path, strength="0")).tobytes() == opened(input_png()).tobytes()


def distance(one: Image.Image, other: Image.Image) -> float:
    return sum(abs(a - b) for a, b in zip(one.tobytes(), other.tobytes(), strict=True)) / len(one.tobytes())


def test_edit_by_a_model_without_edit_reports_what_was_done_instead(plain: httpx.Client) -> None:
    answer = post(plain, EDITS, model=SKETCH)
    (adjustment,) = answer.json()["adjustments"]
    assert (adjustment["param"], adjustment["asked"], adjustment["used"]) == ("image", "edit", "image-to-image")
    assert told(post(plain, VARIATIONS, model=SKETCH)) == []


def test_edit_by_an_edit_model_uses_all_pictures(plain: httpx.Client) -> None:
    other = io.BytesIO()
    Image.new("RGB", (80, 80), "yellow").save(other, "JPEG")
    ask = {"model": UNDISTILLED, "size": "96x64", "seed": "3", "steps": "1"}
    one = post(plain, EDITS, **ask)
    both = [("image[]", ("a.png", input_png())), ("image[]", ("b.jpg", other.getvalue()))]
    two = post(plain, EDITS, both, **ask)
    assert told(one) == told(two) == []
    pictures = {first(answer).tobytes() for answer in (one, two)}
    text = plain.post("/v1/images/generations", json={**APPLE, **ask}).json()
    assert len(pictures | {opened(text["data"][0]["b64_json"]).tobytes()}) == 3


@pytest.mark.parametrize("mask", [hole_mask(), white_mask()], ids=["transparent", "white"])
@pytest.mark.parametrize("model", [MODEL, UNDISTILLED])
def test_mask_of_either_meaning_leaves_the_picture_outside_unchanged(
    plain: httpx.Client, mask: bytes, model: str
) -> None:
    files = {"image": ("image.png", input_png()), "mask": ("mask.png", mask)}
    answer = post(plain, EDITS, files, model=model, steps="2", seed="11")
    assert told(answer) == (["size"] if model == MODEL else [])
    drawn, before = first(answer), opened(input_png())
    right, left = (48, 0, 96, 64), (0, 0, 48, 64)
    assert drawn.crop(right).tobytes() == before.crop(right).tobytes()
    assert drawn.crop(left).tobytes() != before.crop(left).tobytes()


def test_a_variation_needs_no_prompt_and_no_model(plain: httpx.Client) -> None:
    """LiteLLM sends the picture alone."""
    answer = plain.post(VARIATIONS, files={"image": ("upload", input_png())})
    assert first(answer).size == (96, 64)


@pytest.mark.parametrize("output_format", ["png", "jpeg", "webp"])
def test_an_edit_comes_in_the_format_asked_for(plain: httpx.Client, output_format: str) -> None:
    assert first(post(plain, EDITS, output_format=output_format)).format == output_format.upper()


# ---- how they come in ------------------------------------------------------------------------------

JSON_BODIES: list[dict[str, Any]] = [
    {"images": [{"image_url": DATA_URL}]},
    {"images": [{"image_url": {"url": DATA_URL}}]},
    {"images": [DATA_URL]},
    {"image": DATA_URL},
    {"image": DATA_URL.partition(",")[2]},
    {"image": [DATA_URL], "mask": None, "size": None},
    {"image": {"image_url": DATA_URL}, "n": 1, "response_format": None},
    {"image": {"url": DATA_URL}},
    {"images": [{"b64_json": DATA_URL.partition(",")[2]}]},
    {"image": {"type": "input_image", "image_url": DATA_URL, "detail": "high"}},
    {"image": DATA_URL.replace("image/png", "application/octet-stream")},
    {"image": DATA_URL.replace("image/png", "")},
]


@pytest.mark.parametrize("body", JSON_BODIES, ids=lambda body: repr(body)[:30])
@pytest.mark.parametrize("path", [EDITS, VARIATIONS])
def test_json_with_data_urls_is_the_same_as_a_form(plain: httpx.Client, path: str, body: dict[str, Any]) -> None:
    answer = plain.post(path, json={**APPLE, **body, "seed": 5})
    assert first(answer).tobytes() == first(post(plain, path, seed="5")).tobytes()


def test_mask_is_accepted_in_json_too(plain: httpx.Client) -> None:
    mask = {"image_url": "data:image/png;base64," + base64.b64encode(hole_mask()).decode()}
    answer = plain.post(EDITS, json={**APPLE, "images": [{"image_url": DATA_URL}], "mask": mask, "seed": 5})
    files = {"image": ("a", input_png()), "mask": ("b", hole_mask())}
    assert first(answer).tobytes() == first(post(plain, EDITS, files, seed="5")).tobytes()


NO_PICTURES: list[Any] = [
    5,
    0,
    True,
    False,
    {},
    {"data": DATA_URL},
    {"url": 5},
    {"url": {"url": {"url": DATA_URL}}},
    {"url": DATA_URL, "b64_json": DATA_URL},
    {"image_url": {}},
    {"b64_json": ""},
    {"url": ""},
    {"url": [DATA_URL]},
    [DATA_URL, 5],
    [DATA_URL, ""],
    [DATA_URL, None],
    [[DATA_URL]],
    [{"url": "x"}],
    [{}],
]


@pytest.mark.parametrize("picture", NO_PICTURES, ids=lambda picture: repr(picture)[:40])
@pytest.mark.parametrize("field", ["image", "images", "mask", "reference_images", "markup"])
def test_picture_field_in_an_unknown_form_is_refused_and_never_ignored(
    plain: httpx.Client, field: str, picture: object
) -> None:
    body = {**APPLE, "image": DATA_URL, field: picture}
    assert assert_openai_error(plain.post(EDITS, json=body), 400)["param"] == field


@pytest.mark.parametrize("kind", ["url", "b64_json"])
def test_mask_given_as_an_object_is_used(plain: httpx.Client, kind: str) -> None:
    text = base64.b64encode(hole_mask()).decode()
    mask = {kind: text if kind == "b64_json" else f"data:image/png;base64,{text}"}
    answer = plain.post(EDITS, json={**APPLE, "image": DATA_URL, "mask": mask, "seed": 5})
    files = {"image": ("a", input_png()), "mask": ("b", hole_mask())}
    assert first(answer).tobytes() == first(post(plain, EDITS, files, seed="5")).tobytes()


def form_part(name: str, data: bytes, *, said: str = "", kind: str = "") -> bytes:
    typed = f"Content-Type: {kind}\r\n" if kind else ""
    head = f'--b\r\nContent-Disposition: form-data; name="{name}"{said}\r\n{typed}\r\n'
    return head.encode() + data + b"\r\n"


def posted(plain: httpx.Client, path: str, *parts: bytes) -> httpx.Response:
    headers = {"Content-Type": "multipart/form-data; boundary=b"}
    return plain.post(path, content=b"".join(parts) + b"--b--\r\n", headers=headers)


NO_MASK = {
    "a browser's empty file": form_part("mask", b"", said='; filename=""', kind="application/octet-stream"),
    "an empty field": form_part("mask", b""),
}


@pytest.mark.parametrize("mask", NO_MASK.values(), ids=NO_MASK)
@pytest.mark.parametrize("path", [EDITS, "/v1/images/inpainting"])
def test_form_part_that_is_empty_counts_as_no_file(plain: httpx.Client, path: str, mask: bytes) -> None:
    fields = (form_part("prompt", b"an apple"), form_part("image", input_png(), said='; filename="a.png"'))
    answer = posted(plain, path, *fields, mask)
    if path == EDITS:
        assert first(answer).size == (96, 64)
    else:
        assert assert_openai_error(answer, 400)["param"] == "mask_image"


WITHOUT_A_NAME = {
    "bytes": form_part("image", input_png(), kind="image/png"),
    "bytes without a type": form_part("image[]", input_png()),
    "a name in RFC 5987's spelling": form_part("image", input_png(), said="; filename*=UTF-8''a.png"),
    "base64": form_part("image", DATA_URL.partition(",")[2].encode()),
    "a data URL": form_part("image", DATA_URL.encode(), kind="text/plain"),
}


@pytest.mark.parametrize("image", WITHOUT_A_NAME.values(), ids=WITHOUT_A_NAME)
def test_form_part_without_a_file_name_is_still_a_picture(plain: httpx.Client, image: bytes) -> None:
    fields = (form_part("prompt", b"an apple"), form_part("seed", b"5"))
    assert first(posted(plain, EDITS, *fields, image)).tobytes() == first(post(plain, EDITS, seed="5")).tobytes()


def test_form_field_of_base64_may_be_as_long_as_a_picture(plain: httpx.Client) -> None:
    out = io.BytesIO()
    Image.frombytes("RGB", (512, 512), random.Random(1).randbytes(512 * 512 * 3)).save(out, "PNG")
    text = base64.b64encode(out.getvalue())
    assert len(text) > 1_000_000
    fields = (form_part("prompt", b"an apple"), form_part("size", b"64x64"))
    assert first(posted(plain, EDITS, *fields, form_part("image", text))).size == (64, 64)


@pytest.mark.parametrize("name", ["image", "image[]", "images", "images[]", "image[0]"])
def test_every_name_of_the_picture_field_is_understood(plain: httpx.Client, name: str) -> None:
    assert first(post(plain, EDITS, {name: ("image", input_png(), "application/octet-stream")})).size == (96, 64)


BOTH = {"b64_json", "url"}
WRITTEN: list[tuple[str, dict[str, str], str, tuple[str, bytes, str], set[str]]] = [
    (
        "Open WebUI 0.12",
        {"model": "dall-e-2", "n": "1", "size": "64x64", "response_format": "b64_json"},
        "image",
        ("image.png", input_png(), "image/png"),
        {"b64_json"},
    ),
    (
        "Open WebUI 0.12, gpt-image",
        {"model": "gpt-image-1", "n": "1", "size": "64x64"},
        "image",
        ("image.png", input_png(), "image/png"),
        {"b64_json"},
    ),
    (
        "LiteLLM",
        {"model": MODEL, "size": "64x64"},
        "image[]",
        ("image_edit.png", input_png(), "application/octet-stream"),
        BOTH,
    ),
    (
        "AI SDK",
        {"model": MODEL, "n": "1", "size": "64x64", "output_format": "webp"},
        "image",
        ("blob", input_png("WEBP"), "image/webp"),
        BOTH,
    ),
    (
        "vLLM-Omni's clients",
        {"num_inference_steps": "2", "true_cfg_scale": "4.0", "flow_shift": "3", "size": "64x64"},
        "image",
        ("upload", input_png(), "application/octet-stream"),
        BOTH,
    ),
]


@pytest.mark.parametrize(("who", "fields", "name", "file", "rows"), WRITTEN, ids=[row[0] for row in WRITTEN])
def test_form_of_a_known_client_is_answered_with_the_fields_it_reads(
    plain: httpx.Client, who: str, fields: dict[str, str], name: str, file: Any, rows: set[str]
) -> None:
    answer = plain.post(EDITS, data={**APPLE, **fields}, files=[(name, file)])
    assert answer.status_code == 200, answer.text[:500]
    (row,) = answer.json()["data"]
    assert {key for key in ("b64_json", "url") if row[key] is not None} == rows
    assert answer.json()["size"] == "64x64"


def test_lists_and_objects_of_a_form_are_understood(plain: httpx.Client) -> None:
    """`extra_body` of openai: `loras[]`, `name[key]`."""
    refused = post(plain, EDITS, **{"loras[]": ["x", "y"]})
    assert assert_openai_error(refused, 400)["param"] == "loras"
    assert post(plain, EDITS, **{"d[k]": "true", "unknown": "1"}).status_code == 200


def test_kwargs_of_a_form_are_understood(plain: httpx.Client) -> None:
    answer = post(plain, VARIATIONS, kwargs=json.dumps({"seed": 77, "strength": 0.2}))
    assert answer.json()["data"][0]["seed"] == 77


def test_the_same_key_and_form_is_the_same_job(plain: httpx.Client) -> None:
    key = {"Idempotency-Key": "an-edit"}
    ask = {"data": APPLE, "files": {"image": ("upload", input_png())}, "headers": key}
    ids = [plain.post(EDITS, **ask).headers["x-request-id"] for _ in range(2)]  # type: ignore[arg-type]
    assert ids[0] == ids[1]


def test_a_form_of_unknown_length_is_read(plain: httpx.Client) -> None:
    """Node sends a file stream in chunks, without a content-length."""
    form = httpx.Request("POST", "http://x", data=APPLE, files={"image": ("upload", input_png())})
    body, kind = form.read(), form.headers["content-type"]
    answer = plain.post(EDITS, content=iter([body[:100], body[100:]]), headers={"Content-Type": kind})
    assert first(answer).size == (96, 64)


def test_file_type_is_detected_by_its_bytes(plain: httpx.Client) -> None:
    assert first(post(plain, EDITS, {"image": ("x.txt", input_png("WEBP"), "text/plain")})).size == (96, 64)


# ---- what nobody should send -----------------------------------------------------------------------

BAD: list[tuple[str, dict[str, Any], str | None]] = [
    ("no picture", {"json": {**APPLE}}, "image"),
    ("an empty picture", {"data": APPLE, "files": {"image": ("x", b"")}}, "image"),
    ("no prompt", {"files": {"image": ("x", input_png())}}, "prompt"),
    ("no image bytes", {"data": APPLE, "files": {"image": ("x", b"not a picture")}}, "image"),
    ("a cut picture", {"data": APPLE, "files": {"image": ("x", input_png()[:100])}}, "image"),
    ("a bad mask", {"data": APPLE, "files": {"image": ("x", input_png()), "mask": ("x", b"no")}}, "mask"),
    ("a remote picture", {"json": {**APPLE, "image": "http://127.0.0.1:1/x.png"}}, "image"),
    ("a remote url", {"data": {**APPLE, "url": "https://example.com/x.png"}, "files": {"x": (None, b"1")}}, "url"),
    ("a file id", {"json": {**APPLE, "images": [{"file_id": "file-1"}]}}, "images"),
    ("a number", {"json": {**APPLE, "image": 5}}, "image"),
    ("no base64", {"json": {**APPLE, "image": "data:image/png;base64,???"}}, "image"),
    ("a gif", {"json": {**APPLE, "image": "data:image/gif;base64,R0lGODlh"}}, "image"),
    ("three pictures", {"data": APPLE, "files": [("image[]", ("x", input_png()))] * 3}, "image"),
    ("a list", {"json": [1]}, None),
    ("a file elsewhere", {"data": APPLE, "files": {"image": ("x", input_png()), "prompt2": ("x", b"y")}}, "prompt2"),
    ("a long name", {"data": APPLE, "files": {"image": ("x" * 300, input_png())}}, "image"),
    ("too many files", {"data": APPLE, "files": [("image[]", ("x", b"1"))] * 30}, None),
    ("too many fields", {"data": {f"f{i}": "1" for i in range(99)}, "files": {"image": ("x", b"1")}}, None),
    ("a long field", {"data": {"prompt": "x" * 70_000}, "files": {"image": ("x", b"1")}}, None),
    ("NUL", {"data": {"prompt": "a\0b"}, "files": {"image": ("x", b"1")}}, None),
    ("a prompt twice", {"data": {"prompt": ["a", "b"]}, "files": {"image": ("x", input_png())}}, "prompt"),
    ("a value and an object", {"data": {"a[b]": "1"}, "files": {"a": (None, b"1"), "image": ("x", b"1")}}, None),
    ("a size", {"data": {**APPLE, "size": "9999x9999"}, "files": {"image": ("x", input_png())}}, "size"),
    ("a strength", {"data": {**APPLE, "strength": "1.5"}, "files": {"image": ("x", input_png())}}, "strength"),
    ("transparent", {"data": {**APPLE, "background": "transparent"}, "files": {"image": ("x", b"1")}}, "background"),
    ("no boundary", {"content": b"x", "headers": {"Content-Type": "multipart/form-data"}}, None),
    ("no form", {"content": b"x", "headers": {"Content-Type": "multipart/form-data; boundary=b"}}, None),
    ("utf-7", {"content": b"x", "headers": {"Content-Type": "multipart/form-data; boundary=b; charset=utf-7"}}, None),
]


@pytest.mark.parametrize(("name", "body", "param"), BAD, ids=[name for name, _, _ in BAD])
def test_invalid_edit_request_is_a_400_in_the_openai_error_form(
    plain: httpx.Client, name: str, body: dict[str, Any], param: str | None
) -> None:
    error = assert_openai_error(plain.post(EDITS, **body), 400)
    assert error["type"] == "invalid_request_error"
    if param is not None:
        assert error["param"] == param
    assert plain.get("/v1/models").status_code == 200


def test_a_mask_that_changes_nothing_is_refused(plain: httpx.Client) -> None:
    black = io.BytesIO()
    Image.new("RGB", (96, 64)).save(black, "PNG")
    files = {"image": ("a", input_png()), "mask": ("b", black.getvalue())}
    assert assert_openai_error(post(plain, EDITS, files), 400)["param"] == "mask"


def test_a_picture_of_too_many_bytes_is_refused(plain: httpx.Client) -> None:
    assert_openai_error(post(plain, EDITS, {"image": ("x", b"\x89PNG" + bytes(51 * 2**20))}), 400)
    assert_openai_error(post(plain, EDITS, {"image": ("x", bytes(129 * 2**20))}), 413)


def test_image_decompression_bomb_is_refused_by_its_header(plain: httpx.Client) -> None:
    bomb = io.BytesIO()
    Image.new("1", (8192, 8192)).save(bomb, "PNG")
    assert assert_openai_error(post(plain, EDITS, {"image": ("x", bomb.getvalue())}), 400)["param"] == "image"


def test_a_variation_cannot_be_streamed(plain: httpx.Client) -> None:
    assert assert_openai_error(post(plain, VARIATIONS, stream="true"), 400)["param"] == "stream"


def test_missing_model_is_refused_before_any_picture_is_read(plain: httpx.Client) -> None:
    answer = post(plain, EDITS, {"image": ("x", b"not a picture")}, model="none-such")
    assert assert_openai_error(answer, 404)["code"] == "model_not_found"


# ---- the stream ------------------------------------------------------------------------------------


@pytest.mark.parametrize("word", ["true", "True"])
def test_an_edit_streams_from_a_form(plain: httpx.Client, word: str) -> None:
    answer = post(plain, EDITS, model=SKETCH, stream=word, partial_images="2", n="2")
    assert answer.headers["content-type"].startswith("text/event-stream")
    lines = [line for line in answer.text.splitlines() if line]
    assert not [line for line in lines if line.startswith("id")]
    events = [json.loads(line[6:]) for line in lines if line.startswith("data: ")]
    assert [e["type"] for e in events].count("image_edit.completed") == 2
    assert {e["type"] for e in events} <= {"image_edit.completed", "image_edit.partial_image"}
    for event in events:
        assert opened(event["b64_json"]).size == (96, 64)
        assert event["size"] == "96x64"
    assert events[-1]["adjustments"][0]["param"] == "image"
    assert events[-1]["usage"]["total_tokens"] == 0
