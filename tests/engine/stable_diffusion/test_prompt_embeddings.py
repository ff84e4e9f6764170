"""Textual inversion files, recognised by their headers."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import pytest

from engine.prompts.embeddings import NotAnEmbedding, bundled_embeddings, read_embedding, recognise_tensors
from engine.safetensors import Tensor, UnsafeFile


def tensors(**shapes: tuple[int, ...]) -> dict[str, Tensor]:
    return {name: Tensor("F16", shape, 0, 0) for name, shape in shapes.items()}


def write(file: Path, shapes: Mapping[str, tuple[int, ...]]) -> Path:
    header, position = {}, 0
    for name, shape in shapes.items():
        size = 4 * shape[0] * shape[1]
        header[name] = {"dtype": "F32", "shape": list(shape), "data_offsets": [position, position + size]}
        position += size
    text = json.dumps(header).encode()
    file.write_bytes(len(text).to_bytes(8, "little") + text + bytes(position))
    file.chmod(0o644)
    return file


@pytest.mark.parametrize(
    ("shapes", "family", "vectors"),
    [
        ({"emb_params": (8, 768)}, "sd1", 8),
        ({"anything": (1, 1024)}, "sd2", 1),
        ({"one": (768,)}, "sd1", 1),
        ({"clip_g": (4, 1280), "clip_l": (4, 768)}, "sdxl", 4),
        ({"emb_params": (2, 1280)}, "sdxl_refiner", 2),
        ({"emb_params": (2, 32)}, None, 2),
    ],
)
def test_embedding_is_recognised_by_the_widths_of_its_vectors(
    shapes: dict[str, tuple[int, ...]], family: str | None, vectors: int
) -> None:
    header = recognise_tensors(tensors(**shapes), "a.safetensors")
    assert (header.family, header.vectors) == (family, vectors)


def test_embedding_fits_only_models_with_text_encoders_of_its_widths() -> None:
    header = recognise_tensors(tensors(clip_l=(4, 32), clip_g=(4, 64)), "a.safetensors")
    assert header.fits((32, 64))
    assert not header.fits((32,))
    assert not header.fits((64, 32))


@pytest.mark.parametrize(
    ("shapes", "why"),
    [
        ({"a": (1, 768), "b": (1, 768)}, "2 tensors"),
        ({"a": (2, 3, 768)}, "no list of vectors"),
        ({"a": ()}, "no list of vectors"),
        ({"a": (76, 768)}, "76 vectors"),
        ({"a": (0, 768)}, "0 vectors"),
        ({"clip_l": (1, 768), "clip_g": (2, 1280)}, "different numbers"),
    ],
)
def test_embedding_of_other_shapes_is_refused_with_the_reason(shapes: dict[str, tuple[int, ...]], why: str) -> None:
    with pytest.raises(NotAnEmbedding, match=why):
        recognise_tensors(tensors(**shapes), "a.safetensors")


def test_embedding_of_integers_is_refused() -> None:
    with pytest.raises(NotAnEmbedding):
        recognise_tensors({"a": Tensor("I64", (1, 768), 0, 0)}, "a.safetensors")


def test_embedding_file_is_read_from_its_header(tmp_path: Path) -> None:
    assert read_embedding(write(tmp_path / "easynegative.safetensors", {"emb_params": (3, 768)})).vectors == 3


@pytest.mark.parametrize(
    ("name", "why"), [("a.pt", "pickle"), ("a.BIN", "pickle"), ("a.png", "image"), ("a.txt", "not a safetensors file")]
)
def test_embedding_in_another_format_is_refused_without_being_opened(tmp_path: Path, name: str, why: str) -> None:
    with pytest.raises(NotAnEmbedding, match=why):
        read_embedding(tmp_path / name)


def test_embedding_file_that_is_damaged_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "a.safetensors"
    file.write_bytes(b"{")
    with pytest.raises(UnsafeFile):
        read_embedding(file)


def test_bundled_embeddings_of_a_lora_are_found_by_name() -> None:
    found = bundled_embeddings(
        {
            "lora_unet_a.lora_up.weight": Tensor("F16", (4, 4), 0, 0),
            "bundle_emb.sks.string_to_param.*": Tensor("F16", (2, 768), 0, 0),
            "bundle_emb.xl.clip_l": Tensor("F16", (2, 768), 0, 0),
            "bundle_emb.xl.clip_g": Tensor("F16", (2, 1280), 0, 0),
            "bundle_emb": Tensor("F16", (2, 1280), 0, 0),
        },
        "lora.safetensors",
    )
    assert {name: header.family for name, header in found.items()} == {"sks": "sd1", "xl": "sdxl"}
    assert found["xl"].tensors == (("bundle_emb.xl.clip_l", 768), ("bundle_emb.xl.clip_g", 1280))
