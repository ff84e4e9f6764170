"""Safetensors files looked at before anything loads them."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.catalog import EMBEDDED_PATH
from engine.safetensors import MAX_HEADER_BYTES, UnsafeFile, check_folder, inspect

ONE = {"w": {"dtype": "F32", "shape": [2, 3], "data_offsets": [0, 24]}}


def write(file: Path, header: Any, data: bytes = bytes(24)) -> Path:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    file.write_bytes(len(text).to_bytes(8, "little") + text + data)
    file.chmod(0o644)
    return file


def test_lora_valid_file_returns_tensors_and_metadata(tmp_path: Path) -> None:
    header = inspect(write(tmp_path / "a.safetensors", ONE | {"__metadata__": {"trained_words": "sks"}}))
    assert header.metadata == {"trained_words": "sks"}
    assert inspect(write(tmp_path / "mlx.safetensors", ONE | {"__metadata__": None})).metadata == {}
    assert header.tensors["w"].shape == (2, 3)
    assert header.tensors["w"].elements == 6


def test_embedded_model_files_are_valid() -> None:
    check_folder(EMBEDDED_PATH)


def entry(**changes: Any) -> dict[str, Any]:
    return {"w": ONE["w"] | changes}


@pytest.mark.parametrize(
    ("header", "why"),
    [
        (b"", "damaged"),
        (b"{}", "damaged"),
        (b"null", "damaged"),
        (b"[" * 100_000, "damaged"),
        (b"\xff\xfe", "damaged"),
        (b'{"w":1}', "damaged"),
        (json.dumps(ONE)[:-1].encode() + b"," + json.dumps(ONE)[1:].encode(), "damaged"),
        (ONE | {"__metadata__": {"a": 1}}, "damaged"),
        (ONE | {"__metadata__": []}, "damaged"),
        (entry(data_offsets=[0, 400], shape=[100]), "incomplete"),
        (entry(data_offsets=[-24, 0]), "damaged"),
        (entry(data_offsets=[0, 24.0]), "damaged"),
        (entry(data_offsets=[0]), "damaged"),
        (entry(shape=[2, 4]), "damaged"),
        (entry(shape=[-2, -3]), "damaged"),
        (entry(shape=[True]), "damaged"),
        (entry(dtype="OBJECT"), "not known"),
        (entry(dtype=["F32"]), "damaged"),
        (ONE | {"v": {"dtype": "U8", "shape": [4], "data_offsets": [20, 24]}}, "damaged"),
    ],
)
def test_lora_header_with_false_values_is_refused_without_naming_folder(header: Any, why: str, tmp_path: Path) -> None:
    with pytest.raises(UnsafeFile) as caught:
        inspect(write(tmp_path / "a.safetensors", header))
    assert why in caught.value.message
    assert str(tmp_path) not in caught.value.message


@pytest.mark.parametrize("start", [b"", b"\x00" * 7, (MAX_HEADER_BYTES + 1).to_bytes(8, "little"), b"\xff" * 8])
def test_lora_file_with_wrong_first_bytes_is_refused_unread(start: bytes, tmp_path: Path) -> None:
    file = tmp_path / "a.safetensors"
    file.write_bytes(start)
    with pytest.raises(UnsafeFile):
        inspect(file)


def test_lora_file_truncated_is_refused(tmp_path: Path) -> None:
    file = write(tmp_path / "a.safetensors", ONE)
    whole = file.read_bytes()
    for length in range(len(whole)):
        file.write_bytes(whole[:length])
        with pytest.raises(UnsafeFile):
            inspect(file)


@settings(deadline=None)
@given(st.binary(max_size=200))
def test_safetensors_file_of_any_bytes_raises_only_unsafe_file(
    tmp_path_factory: pytest.TempPathFactory, content: bytes
) -> None:
    file = tmp_path_factory.getbasetemp() / "any.safetensors"
    write(file, content)
    with pytest.raises(UnsafeFile):
        inspect(file)


def test_safetensors_file_writable_by_everybody_is_refused(tmp_path: Path) -> None:
    file = write(tmp_path / "a.safetensors", ONE)
    os.chmod(file, 0o666)
    with pytest.raises(UnsafeFile, match="every user"):
        inspect(file)


def test_model_part_only_as_pickle_is_refused(tmp_path: Path) -> None:
    for part in ("transformer", "vae"):
        (tmp_path / part).mkdir()
        write(tmp_path / part / "0.safetensors", ONE)
    (tmp_path / "vae" / "diffusion_pytorch_model.bin").write_bytes(b"beside the safe one: never read")
    check_folder(tmp_path)
    (tmp_path / "vae" / "0.safetensors").unlink()
    with pytest.raises(UnsafeFile, match="pickle"):
        check_folder(tmp_path)
