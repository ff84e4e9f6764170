"""/sdapi/v1's infotext: written, read, and read back from files."""

from __future__ import annotations

import io
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from adapters.sdapi.gif_comment import comment, is_gif
from adapters.sdapi.png_info import answer, with_defaults
from gateway.images.codec import Format, encode
from gateway.images.infotext import compose, parse
from gateway.images.png_chunks import with_text
from tests.support.sdapi import an_image

# Source: an A1111 1.10.1 file
A1111 = """a cat
on a mat
Negative prompt: dog,
ugly
Steps: 20, Sampler: DPM++ 2M, Schedule type: Karras, CFG scale: 7.5, Seed: 42, Size: 512x768, Model hash: abcdef1234, \
Model: name, Hires prompt: "a, b: c", Lora hashes: "fur: 0123456789ab", Version: v1.10.1"""


def test_an_infotext_of_a1111_is_parsed() -> None:
    found = parse(A1111)
    assert found["Prompt"] == "a cat\non a mat"
    assert found["Negative prompt"] == "dog,\nugly"
    assert (found["Size-1"], found["Size-2"]) == ("512", "768")
    assert found["Hires prompt"] == "a, b: c"
    assert found["Lora hashes"] == "fur: 0123456789ab"
    assert found["Version"] == "v1.10.1"


@pytest.mark.parametrize("text", ["", "just a prompt", "a cat\nSteps: 4, Seed: 1", "time: 5, place: here"])
def test_infotext_with_fewer_than_three_pairs_is_prompt(text: str) -> None:
    assert parse(text) == {"Prompt": text, "Negative prompt": ""}


def test_missing_infotext_keys_mean_a1111s_defaults() -> None:
    found = with_defaults(parse("x"))
    assert (found["Clip skip"], found["Hires resize-1"], found["RNG"]) == ("1", 0, "GPU")
    assert found["Schedule type"] == "Automatic"
    assert with_defaults(parse(A1111))["Schedule type"] == "Karras"


LINES = st.lists(
    st.text(st.characters(exclude_categories=["Cs", "Cc", "Zl", "Zp"]), max_size=20).map(str.strip), max_size=3
)


@settings(max_examples=200, deadline=None)
@given(prompt=LINES, value=st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\r\0"), max_size=20))
def test_a_composed_infotext_is_parsed_back(prompt: list[str], value: str) -> None:
    text = "\n".join(line for line in prompt if line and not line.startswith("Negative prompt:"))
    note = value.strip() or "x"
    found = parse(compose(text, "bad hands", {"Steps": 4, "Seed": 1, "Size": "64x32", "Note": note, "None": None}))
    assert found["Prompt"] == text
    assert found["Negative prompt"] == "bad hands"
    assert found["Size-1"] == "64"
    assert "None" not in found
    if '"' not in note and not note[0].isdigit():
        assert found["Note"] == note


@pytest.mark.parametrize("text", ["a" * 10**6, ":" * 10**6, "a:" * 10**5, '"' * 10**6, "a b" * 10**5 + ": x"])
def test_parsing_an_infotext_takes_linear_time(text: str) -> None:
    began = time.process_time()
    parse("x\n" + text)
    assert time.process_time() - began < 2


@pytest.mark.parametrize("kind", ["png", "jpeg", "webp"])
def test_png_info_reads_every_format(kind: Format) -> None:
    found = answer(encode(an_image(), format=kind, text=A1111))
    assert found["info"] == A1111
    assert found["parameters"]["Seed"] == "42"
    assert set(found["items"]) == (set() if kind == "png" else {"exif comment"})


def test_an_image_without_texts_has_an_empty_infotext() -> None:
    found = answer(an_image())
    assert (found["info"], found["items"]) == ("", {})
    assert found["parameters"]["Prompt"] == ""


def a_gif(comment: bytes | None, frames: int = 1) -> bytes:
    out = io.BytesIO()
    first, *more = [Image.linear_gradient("L").rotate(i) for i in range(frames)]
    said = {} if comment is None else {"comment": comment}
    first.save(out, "GIF", save_all=frames > 1, append_images=more, **said)
    return out.getvalue()


@pytest.mark.parametrize("frames", [1, 3])
def test_png_info_reads_the_comment_of_a_gif(frames: int) -> None:
    text = "猫\n" * 200 + A1111
    assert answer(a_gif(text.encode(), frames))["info"] == text
    assert answer(a_gif(None, frames))["info"] == ""


@settings(max_examples=300, deadline=None)
@given(st.integers(13, 400), st.binary(max_size=200))
def test_a_broken_gif_gives_no_comment_or_its_own(length: int, rest: bytes) -> None:
    assert comment(a_gif(b"x" * 300)[:length] + rest) is None or length > 13
    assert is_gif(b"GIF89a") is False


def test_parameters_of_novelai_are_written_in_a1111s_grammar() -> None:
    png = with_text(an_image(), "Comment", '{"steps": 28, "sampler": "k_euler", "scale": 11, "seed": 7, "uc": "bad"}')
    for keyword, text in (("Software", "NovelAI"), ("Description", "a cat")):
        png = with_text(png, keyword, text)
    assert parse(answer(png)["info"]) == {
        "Prompt": "a cat",
        "Negative prompt": "bad",
        "Steps": "28",
        "Sampler": "Euler",
        "CFG scale": "11",
        "Seed": "7",
        "Clip skip": "2",
        "ENSD": "31337",
    }
    assert answer(with_text(an_image(), "Software", "NovelAI"))["info"] == ""
