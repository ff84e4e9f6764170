"""Safetensors files, checked before MLX or PyTorch opens them (S-35). Only headers are read; pure standard library.

Source: the format, https://huggingface.co/docs/safetensors/index#format
"""

from __future__ import annotations

import os
import stat
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from engine.safetensors_header import Tensor, parse_header

__all__ = ["Header", "Tensor", "UnsafeFile", "check_folder", "inspect", "opened"]

MAX_HEADER_BYTES = 100 * 2**20
BITS = {
    **dict.fromkeys(("F4",), 4),
    **dict.fromkeys(("F6_E2M3", "F6_E3M2"), 6),
    **dict.fromkeys(("BOOL", "U8", "I8", "F8_E4M3", "F8_E5M2", "F8_E8M0", "F8_E4M3FNUZ", "F8_E5M2FNUZ"), 8),
    **dict.fromkeys(("U16", "I16", "F16", "BF16"), 16),
    **dict.fromkeys(("U32", "I32", "F32"), 32),
    **dict.fromkeys(("U64", "I64", "F64", "C64"), 64),
}
"""Bits of one element, by the format's name of a dtype."""
PICKLES = (".bin", ".ckpt", ".pkl", ".pickle", ".pt", ".pth")


class UnsafeFile(Exception):
    """The file cannot be trusted. `message` is a sentence fit for a client: it names the file, not its folder."""

    def __init__(self, message: str) -> None:
        self.message = message
        super().__init__(message)


@dataclass(frozen=True, slots=True)
class Header:
    """Header of a file. `metadata` is whatever its author wrote: untrusted text."""

    tensors: Mapping[str, Tensor]
    metadata: Mapping[str, str]


def inspect(file: Path, *, most_header_bytes: int = MAX_HEADER_BYTES) -> Header:
    """Header of a file whose tensors lie inside it, do not overlap, and have the right length.

    Raises: UnsafeFile, OSError.
    """
    with opened(file) as stream:
        found = os.fstat(stream.fileno())
        if not stat.S_ISREG(found.st_mode):
            raise UnsafeFile(f"{file.name} is no file.")
        if found.st_mode & stat.S_IWOTH:
            raise UnsafeFile(f"{file.name} can be written by every user of this machine; take that right away.")
        length = int.from_bytes(stream.read(8), "little")
        if found.st_size < 8 or length > most_header_bytes:
            raise UnsafeFile(f"{file.name} is damaged: it does not begin as a safetensors file does.")
        if 8 + length > found.st_size:
            raise UnsafeFile(f"{file.name} is incomplete.")
        header_bytes = stream.read(length)
    header = _parse(header_bytes, file.name)
    _check_offsets(header, found.st_size - 8 - length, file.name)
    return header


def opened(file: Path) -> BinaryIO:
    """The file, open for reading; a named pipe does not block. Raises: OSError."""
    return open(os.open(file, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb")


def check_folder(folder: Path) -> None:
    """Inspect every weights file in and below a model's folder; a folder that holds only pickles is refused. A model in
    one file is that file.

    Raises: UnsafeFile, OSError.
    """
    if folder.is_file():
        inspect(folder)
        return
    parts: dict[Path, list[Path]] = {}
    for file in sorted(folder.rglob("*")):
        if file.suffix in (".safetensors", *PICKLES):
            parts.setdefault(file.parent, []).append(file)
    for part in parts.values():
        weights = [file for file in part if file.suffix == ".safetensors"]
        if not weights:
            raise UnsafeFile(f"{part[0].name} is a pickle, which can run code; only safetensors files are loaded.")
        for file in weights:
            inspect(file)


def _parse(header_bytes: bytes, name: str) -> Header:
    damaged = UnsafeFile(f"{name} is damaged: its header cannot be read.")
    try:
        tensors, metadata = parse_header(header_bytes)
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise damaged from error
    if not tensors:
        raise damaged
    return Header(tensors, metadata)


def _check_offsets(header: Header, size: int, name: str) -> None:
    free = 0
    for tensor in sorted(header.tensors.values(), key=lambda tensor: (tensor.begin, tensor.end)):
        bits = BITS.get(tensor.dtype)
        if bits is None:
            raise UnsafeFile(f"{name} holds numbers of a type that is not known here.")
        if tensor.end > size:
            raise UnsafeFile(f"{name} is incomplete.")
        if tensor.begin < free or (tensor.end - tensor.begin) * 8 != tensor.elements * bits:
            raise UnsafeFile(f"{name} is damaged: its parts are not where they should be.")
        free = tensor.end
