"""Texts of picture files, read as bytes: what Pillow writes, and what nobody should have written."""

from __future__ import annotations

import io
import json
import shutil
import struct
import subprocess
import zlib
from pathlib import Path

import piexif
import piexif.helper
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, PngImagePlugin
from sd_parsers import ParserManager

from gateway.images.codec import Format, encode
from gateway.images.file_texts import MAX_TEXT_BYTES, USER_COMMENT, texts
from gateway.images.png_chunks import SIGNATURE, with_text

TEXT = 'a cat, "quoted"\nNegative prompt: 猫 Käse\nSteps: 4'


def saved(**options: object) -> bytes:
    out = io.BytesIO()
    Image.new("RGB", (8, 8), "red").save(out, "PNG", **options)
    return out.getvalue()


@pytest.mark.parametrize("text", ["plain", "Käse", TEXT])
@pytest.mark.parametrize("packed", [False, True])
def test_metadata_every_kind_of_png_text_is_read(text: str, packed: bool) -> None:
    chunks = PngImagePlugin.PngInfo()
    chunks.add_text("parameters", text, zip=packed)
    chunks.add_itxt("other", text, "de", "anderes", zip=packed)
    assert texts(saved(pnginfo=chunks)) == {"parameters": text, "other": text}
    assert texts(with_text(saved(), "parameters", text)) == {"parameters": text}


@pytest.mark.parametrize("kind", ["jpeg", "webp"])
def test_the_user_comment_of_jpeg_and_webp_is_read(kind: Format) -> None:
    assert texts(encode(saved(), format=kind, text=TEXT)) == {USER_COMMENT: TEXT}
    assert texts(encode(saved(), format=kind)) == {}


@pytest.mark.parametrize("kind", ["jpeg", "webp"])
def test_metadata_user_comment_is_found_by_other_readers(kind: Format) -> None:
    """piexif is what A1111 and its clients read with; exiftool and Exiv2 take a comment of type UNDEFINED (7) only."""
    file = encode(saved(), format=kind, text=TEXT)
    assert piexif.helper.UserComment.load(piexif.load(file)["Exif"][piexif.ExifIFD.UserComment]) == TEXT
    block = file[file.index(b"MM\0*") :]
    assert struct.unpack_from(">HH", block, block.index(b"\x92\x86")) == (0x9286, 7)


INFOTEXT = (
    "a cat, <lora:night:0.8>, 猫\nNegative prompt: dog, (worst:1.2)\n"
    "Steps: 4, Sampler: Euler, Schedule type: Simple, CFG scale: 1, Seed: 6687000000000000007, Size: 64x64, "
    "Model: flux2-tiny"
)


@pytest.mark.parametrize("kind", ["png", "jpeg", "webp"])
def test_sd_parsers_reads_how_a_picture_was_drawn(kind: Format) -> None:
    found = ParserManager().parse(io.BytesIO(encode(saved(), format=kind, text=INFOTEXT)))
    assert found is not None
    assert found.generator.value == "AUTOMATIC1111"
    assert [str(prompt) for prompt in found.prompts] == ["a cat, <lora:night:0.8>, 猫"]
    assert [str(prompt) for prompt in found.negative_prompts] == ["dog, (worst:1.2)"]
    (sampler,) = found.samplers
    assert (sampler.name, sampler.parameters["seed"], sampler.parameters["steps"]) == (
        "Euler",
        "6687000000000000007",
        "4",
    )
    assert sampler.model is not None
    assert sampler.model.name == "flux2-tiny"


@pytest.mark.skipif(shutil.which("exiftool") is None, reason="exiftool is not installed")
@pytest.mark.parametrize(("kind", "tag"), [("png", "Parameters"), ("jpeg", "UserComment"), ("webp", "UserComment")])
def test_exiftool_reads_the_text_and_warns_of_nothing(tmp_path: Path, kind: Format, tag: str) -> None:
    file = tmp_path / f"picture.{kind}"
    file.write_bytes(encode(saved(), format=kind, text=INFOTEXT))
    asked = subprocess.run(["exiftool", "-json", "-warning", "-error", f"-{tag}", file], capture_output=True)
    (said,) = json.loads(asked.stdout)
    assert said[tag] == INFOTEXT
    assert not {"Warning", "Error"} & said.keys(), said


@pytest.mark.parametrize("kind", ["jpeg", "webp"])
@pytest.mark.parametrize("text", ["a" * 40_000, "猫" * 40_000, "😀" * 20_000])
def test_metadata_text_of_longest_prompt_is_written(kind: Format, text: str) -> None:
    """A JPEG segment ends at 64 KiB; two bytes a letter would not fit."""
    found = texts(encode(saved(), format=kind, text=text))[USER_COMMENT]
    assert found == text if text.isascii() else text.startswith(found.rstrip("\ufffd")) and len(found) > 16_000


def test_metadata_text_decompressing_beyond_limit_is_omitted() -> None:
    body = b"bomb\0\0" + zlib.compress(bytes(50 * MAX_TEXT_BYTES))
    chunk = struct.pack(">I", len(body)) + b"zTXt" + body + bytes(4)
    assert texts(SIGNATURE + chunk) == {}


@settings(max_examples=200, deadline=None)
@given(st.data())
def test_metadata_of_damaged_files_has_fewer_texts_and_raises_nothing(data: st.DataObject) -> None:
    file = bytearray(
        data.draw(st.sampled_from([with_text(saved(), "parameters", TEXT), encode(saved(), format="webp", text=TEXT)]))
    )
    for _ in range(data.draw(st.integers(1, 8))):
        file[data.draw(st.integers(0, len(file) - 1))] = data.draw(st.integers(0, 255))
    texts(bytes(file[: data.draw(st.integers(0, len(file)))]))


def test_metadata_of_non_image_has_no_texts() -> None:
    for data in (b"", b"\xff\xd8", b"RIFF\0\0\0\0WEBP", b"GIF89a", SIGNATURE, b"\xff\xd8\xff\xe1\0\0"):
        assert texts(data) == {}
