"""What a file says, at its worst: LoRAs and the notes beside them, styles, texts that pictures carry."""

from __future__ import annotations

import base64
import io
import json
import os
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from PIL import ExifTags, Image, PngImagePlugin

from adapters.sdapi.styles import STYLES_MOST, Style, styles_of
from engine.safetensors import UnsafeFile, inspect
from engine.safetensors_header import MAX_NAME_BYTES, MAX_TENSORS, MAX_TEXT_BYTES
from gateway.models.lora_layers import fit_of
from gateway.models.loras import LoraLibrary
from tests.support.hostile import REPEATS, Probe, hostile
from tests.support.live import Live, live
from tests.support.lora import TINY, save_lora

FREEZE_S = 10.0
ONE = {"w": {"dtype": "U8", "shape": [1], "data_offsets": [0, 1]}}


def raw(file: Path, header: bytes, length: int | None = None) -> None:
    file.parent.mkdir(exist_ok=True)
    file.write_bytes((len(header) if length is None else length).to_bytes(8, "little") + header + b"x")
    file.chmod(0o644)


def header(**entries: Any) -> bytes:
    return json.dumps({**ONE, **entries}).encode()


def entry(**changes: Any) -> dict[str, Any]:
    return {"w": ONE["w"] | changes}


BROKEN: dict[str, bytes] = {
    "key of numbers": header(**{hostile("1_", 40_000): ONE["w"]}),
    "rank": json.dumps(entry(shape=[1] * 5000)).encode(),
    "huge numbers": json.dumps(entry(shape=[10**300] * 3)).encode(),
    "large numbers": json.dumps(entry(shape=[2**60, 0])).encode(),
    "offsets": json.dumps(entry(data_offsets=[2**63, 2**63 + 1])).encode(),
    "too many": json.dumps({f"t{i}": ONE["w"] for i in range(100_000)}).encode(),
    "blanks": b"{" + b" " * 2_000_000 + header()[1:],
    "numbers": b'{"w":[' + b"1," * 1_000_000 + b"1]}",
    "depth": b'{"w":' * 100_000,
    "string": b'{"' + b"a" * 4_000_000,
    "escapes": b'{"' + b"\\n" * 2_000_000 + b'":1}',
    "metadata": b'{"__metadata__":{' + b",".join(b'"%d":""' % i for i in range(100_000)) + b"}," + header()[1:],
    "float": json.dumps(entry(shape=[1e300])).encode(),
}


@pytest.mark.parametrize("name", BROKEN)
def test_lora_header_with_extra_content_is_refused(tmp_path: Path, name: str) -> None:
    raw(tmp_path / "x.safetensors", BROKEN[name])
    with pytest.raises(UnsafeFile):
        inspect(tmp_path / "x.safetensors")


@pytest.mark.parametrize("length", [2**63, 2**63 - 1, 2**64 - 1, 2**40])
def test_metadata_lengths_are_compared_before_use(tmp_path: Path, length: int) -> None:
    raw(tmp_path / "x.safetensors", header(), length)
    with pytest.raises(UnsafeFile):
        inspect(tmp_path / "x.safetensors")
    library = LoraLibrary([tmp_path])
    lora = library.find("x")
    assert lora is not None
    assert lora.trouble is not None
    hashes = library.hashes(lora)
    assert hashes is not None
    assert hashes.sha256 is not None


def test_metadata_as_large_as_in_real_files_is_read(tmp_path: Path) -> None:
    many = {f"a{i}": {"dtype": "U8", "shape": [0] * 8, "data_offsets": [0, 0]} for i in range(MAX_TENSORS // 2)}
    notes = {"ss_tag_frequency": hostile('\\"tag\\": 1, ', 3_000_000), "short": "é", "edge": "x" * MAX_TEXT_BYTES}
    raw(tmp_path / "x.safetensors", header(__metadata__=notes, **many, **{"n" * MAX_NAME_BYTES: many["a0"]}))
    found = inspect(tmp_path / "x.safetensors")
    assert len(found.tensors) == MAX_TENSORS // 2 + 2
    assert {key: len(text) for key, text in found.metadata.items()} == {"short": 1, "edge": MAX_TEXT_BYTES}


def test_lora_fit_is_detected_for_any_layer_names() -> None:
    shapes = {f"{hostile('1_', 480)}{i}.lora_A.weight": (4, 4) for i in range(5000)}
    assert fit_of({**shapes, **TINY}).known


HOSTILE_NOTES = (
    '{"preferred weight": 1e999}',
    '{"preferred weight": NaN, "sd version": "\\ud800"}',
    '{"preferred weight": 1' + "0" * 400 + "}",
    '{"activation text": "\\ud800\\u0000\\u001b[31m", "description": "' + "<" * 100_000 + '"}',
    '{"description": "' + "<a" * 100_000 + '", "model": {"name": "\\udfff"}}',
    '{"trainedWords": [' + ",".join(['"' + "a," * 500 + '"'] * 900) + "]}",
    '{"trainedWords": [' + "[" * 900 + "]" * 900 + "]}",
    '{"model": [], "trainedWords": {}, "baseModel": 5, "description": {}}',
    "[" * 500_000,
    "9" * 500_000,
    '"' + "\\n" * 300_000 + '"',
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of LoRAs with every hostile file in it."""
    made = tmp_path_factory.mktemp("loras")
    for name, written in BROKEN.items():
        raw(made / f"broken {name}.safetensors", written)
    for at, length in enumerate((2**63, 2**64 - 1)):
        raw(made / f"length {at}.safetensors", header(), length)
    (made / "seven.safetensors").write_bytes(b"1234567")
    for at, unit in enumerate(REPEATS):
        texts = dict.fromkeys(("ss_output_name", "modelspec.title", "modelspec.description"), hostile(unit, 100_000))
        save_lora(made, f"said {at}", TINY, **texts, **{(unit * 20)[:80]: unit})
    save_lora(made, "surrogate", TINY, ss_output_name="\ud800", **{"modelspec.title": "\udfff\0\n", "\ud800": "x"})
    for at, text in enumerate(HOSTILE_NOTES):
        file = save_lora(made, f"notes {at}", TINY)
        for suffix in (".json", ".civitai.info"):
            file.with_suffix(suffix).write_text(text)
    save_lora(made, "line\nend", TINY)
    (made / "byte \udcff.safetensors").write_bytes(b"x")
    os.mkfifo(made / "pipe.safetensors")
    os.mkfifo(save_lora(made, "beside a pipe", TINY).with_suffix(".json"))
    return made


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory, folder: Path) -> Iterator[Live]:
    styles = tmp_path_factory.mktemp("styles") / "styles.yaml"
    styles.write_text('- {name: "\\uD800", prompt: "a"}\n- {name: twice, prompt: "{prompt} {prompt}"}\n')
    config = {"loras": {"folders": [str(folder)]}, "generation": {"styles_file": str(styles)}}
    with live(tmp_path_factory.mktemp("gateway"), config=config) as started:
        yield started


@pytest.fixture(name="client")
def connected(gateway: Live) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=gateway.url, timeout=60) as made:
        yield made


def test_lora_lists_of_both_protocols_answer_for_any_folder_content(gateway: Live, client: httpx.Client) -> None:
    probe = Probe(gateway.url, every_s=0.05)
    with probe.running():
        native, a1111 = client.get("/api/v1/loras"), client.get("/sdapi/v1/loras")
        assert (native.status_code, a1111.status_code) == (200, 200)
        rows = {row["name"]: row for row in native.json()["loras"]}
        for name, row in rows.items():
            shown = client.get(f"/api/v1/loras/{name}")
            assert shown.status_code == 200, name
            assert (row["trouble"] is not None) == name.startswith(("broken", "length", "seven")), name
    assert probe.slowest_s < FREEZE_S
    assert {row["name"] for row in a1111.json()} == {name for name, row in rows.items() if row["trouble"] is None}
    assert len(native.content) < 30_000 * len(rows)
    assert len(rows) > len(BROKEN) + len(REPEATS) + len(HOSTILE_NOTES)


def test_prompt_with_lora_tag_is_drawn_with_all_other_options(client: httpx.Client) -> None:
    body = {"prompt": "a <lora:surrogate:0.5>", "width": 64, "height": 64, "steps": 1}
    assert client.post("/sdapi/v1/txt2img", json=body).status_code == 200


def test_sdapi_prompt_styles_are_sanitised_and_bounded(client: httpx.Client, tmp_path: Path) -> None:
    assert client.get("/sdapi/v1/prompt-styles").status_code == 200
    small = {"prompt": "a", "width": 64, "height": 64, "steps": 1}
    assert client.post("/sdapi/v1/txt2img", json={**small, "styles": ["twice"]}).status_code == 200
    for names in (["twice"] * STYLES_MOST, ["twice"] * (STYLES_MOST + 1)):
        answer = client.post("/sdapi/v1/txt2img", json={**small, "styles": names})
        assert (answer.status_code, answer.json()["detail"][0]["loc"]) == (422, ["body", "styles"])
    aliases = "a: &a [x,x]\n" + "".join(
        f"{b}: &{b} [*{a},*{a}]\n" for a, b in zip("abcdefghijk", "bcdefghijkl", strict=True)
    )
    (tmp_path / "s.yaml").write_text(f"- {{name: ok, prompt: {'x' * 9}}}\n- {{name: [1, 2]}}\n")
    assert styles_of(tmp_path / "s.yaml") == (Style("ok", "x" * 9),)
    for at, text in enumerate(("[" * 5000, aliases, '- {name: "a\\0b"}')):
        (tmp_path / f"{at}.yaml").write_text(text)
        styles_of(tmp_path / f"{at}.yaml")


def png(**texts: str) -> bytes:
    out, chunks = io.BytesIO(), PngImagePlugin.PngInfo()
    for at, (key, text) in enumerate(texts.items()):
        chunks.add_text(key, text, zip=at % 2 == 1)
    Image.new("RGB", (16, 16)).save(out, "PNG", pnginfo=chunks)
    return out.getvalue()


def with_exif(text: str, kind: str) -> bytes:
    out, exif = io.BytesIO(), Image.Exif()
    exif.get_ifd(ExifTags.IFD.Exif)[ExifTags.Base.UserComment] = b"UNICODE\0" + text[:8000].encode("utf-16-be")
    Image.new("RGB", (16, 16)).save(out, kind, exif=exif.tobytes())
    return out.getvalue()


def gif(text: str) -> bytes:
    out = io.BytesIO()
    Image.new("P", (16, 16)).save(out, "GIF", comment=text.encode())
    return out.getvalue()


def pictures(unit: str) -> Iterator[bytes]:
    text = hostile(unit, 250_000)
    yield png(parameters=text, Comment=text, Software="NovelAI", Description=text)
    yield png(parameters=f"a\nSteps: 1, Sampler: Euler, Seed: 1, x: {text}")
    yield png(**{"mflux-gateway": text})
    yield gif(text)
    yield with_exif(text, "JPEG")
    yield with_exif(text, "WEBP")


def test_metadata_texts_in_images_do_not_block_other_requests(gateway: Live, client: httpx.Client) -> None:
    probe = Probe(gateway.url, every_s=0.05)
    with probe.running():
        for at, unit in enumerate(REPEATS):
            for data in [*pictures(unit)][at % 2 :: 2]:
                sent = {"image": base64.b64encode(data).decode()}
                for path in ("/sdapi/v1/png-info", "/api/v1/images/drawing"):
                    answer = client.post(path, json=sent)
                    assert answer.status_code in (200, 400, 422), (unit, path, answer.text[:200])
    assert probe.slowest_s < FREEZE_S


@pytest.mark.parametrize("spelled", ["\\ud800", "\\u0000", "\\udfff\\ud800"])
def test_metadata_escapes_yield_no_unwritable_text(client: httpx.Client, spelled: str) -> None:
    line = f'a\nSteps: 1, Sampler: Euler, Seed: 1, Hires prompt: "{spelled}, b", Model: "x,{spelled}"'
    novel = json.dumps({"steps": 1, "scale": 2, "seed": 3, "sampler": "x", "uc": "UC"}).replace("UC", spelled)
    ours = json.dumps({"prompt": "P", "model": "m", "width": 1, "height": 1, "steps": 1, "guidance": 1, "seed": 1})
    for data in (
        png(parameters=line),
        png(Software="NovelAI", Comment=novel),
        png(**{"mflux-gateway": ours.replace("P", spelled)}),
        gif(line),
    ):
        for path in ("/sdapi/v1/png-info", "/api/v1/images/drawing"):
            answer = client.post(path, json={"image": base64.b64encode(data).decode()})
            assert answer.status_code in (200, 422, 400), answer.text
            assert "\0" not in str(answer.json())
    body = {"infotext": line, "enable_hr": True, "width": 64, "height": 64, "steps": 1}
    assert client.post("/sdapi/v1/txt2img", json=body).status_code == 200


def test_image_gif_of_tiny_blocks_is_not_scanned_to_end(client: httpx.Client) -> None:
    data = b"GIF89a" + bytes(7) + b"!\xff" + b"\x01a" * 9_000_000
    answer = client.post("/sdapi/v1/png-info", json={"image": base64.b64encode(data).decode()})
    assert answer.status_code in (200, 422)


def test_metadata_decompressing_beyond_its_limit_is_omitted(client: httpx.Client) -> None:
    assert len(zlib.compress(b"<" * 5_000_000)) < 10_000
    data = png(a="x", parameters="<" * 5_000_000)
    answer = client.post("/sdapi/v1/png-info", json={"image": base64.b64encode(data).decode()})
    assert answer.status_code in (200, 422)
    assert len(answer.content) < 400_000
