"""JSON header of a safetensors file, parsed entry by entry with a limit for each.

A JSON decoder accepts any depth, count and length, and holds the interpreter until it is done; this parser accepts only
what such a header may contain. Pure standard library. Source: the format,
https://huggingface.co/docs/safetensors/index#format
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

MAX_TENSORS = 65_536
"""Twice as many as the largest quantised model has in all its files together."""
MAX_NAME_BYTES = 512
"""Limit of a tensor's name, and of a key of the metadata."""
MAX_ENTRY_BYTES = 1024
MAX_RANK = 8
MAX_SIZE = 2**48
"""Limit of a dimension, and of an offset."""
MAX_TEXT_BYTES = 256 * 1024
"""Limit of one text of the metadata; a longer one is left out."""
METADATA = "__metadata__"

_PIECE_BYTES = 256 * 1024
_BLANK_BYTES = 64 * 1024
_BLANK = re.compile(rb"[ \t\r\n]*+")
_STRING = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"', re.DOTALL)
_PLAIN = re.compile(rb'"([^"\\\x00-\x1f]*+)"')
_IN_STRING = re.compile(rb'[^"\\]*+(?:\\.[^"\\]*+)*+', re.DOTALL)


@dataclass(frozen=True, slots=True)
class Tensor:
    """One entry of a header. `begin` and `end` count bytes from the end of the header."""

    dtype: str
    shape: tuple[int, ...]
    begin: int
    end: int

    @property
    def elements(self) -> int:
        found = 1
        for size in self.shape:
            found *= size
        return found


def parse_header(header_bytes: bytes) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Tensors and metadata by name. Raises: ValueError, KeyError, TypeError, RecursionError."""
    reader = _Reader(header_bytes)
    tensors: dict[str, Tensor] = {}
    metadata: dict[str, str] | None = None
    for name in reader.names():
        if name == METADATA:
            if metadata is not None:
                raise ValueError("a name is there twice")
            metadata = reader.metadata()
        elif name in tensors or len(tensors) == MAX_TENSORS:
            raise ValueError("a name is there twice, or there are too many")
        else:
            tensors[name] = _tensor(reader.entry())
    reader.end()
    return tensors, metadata or {}


class _Reader:
    """Position in the header. Every method raises ValueError where something else is there."""

    def __init__(self, header_bytes: bytes) -> None:
        self._bytes, self._position = header_bytes, 0

    def names(self) -> Iterator[str]:
        """Keys of the object that begins here; the caller reads the value after each key."""
        self._expect(b"{")
        if self._take(b"}"):
            return
        while True:
            name = self._text(MAX_NAME_BYTES)
            if name is None:
                raise ValueError("a name is too long")
            self._expect(b":")
            yield name
            if not self._take(b","):
                break
        self._expect(b"}")

    def entry(self) -> Any:
        """A small object without objects in it."""
        self._skip_blank()
        end = self._bytes.find(b"}", self._position, self._position + MAX_ENTRY_BYTES) + 1
        if end == 0:
            raise ValueError("no entry")
        found, self._position = _decode(self._bytes[self._position : end]), end
        return found

    def metadata(self) -> dict[str, str]:
        """Texts by name, without those over the limit; null counts as empty: MLX writes it."""
        self._skip_blank()
        if self._bytes.startswith(b"null", self._position):
            self._position += 4
            return {}
        found: dict[str, str] = {}
        seen: set[str] = set()
        for name in self.names():
            if name in seen or len(seen) == MAX_TENSORS:
                raise ValueError("a name is there twice, or there are too many")
            seen.add(name)
            if (text := self._text(MAX_TEXT_BYTES)) is not None:
                found[name] = text
        return found

    def end(self) -> None:
        self._skip_blank()
        if self._position != len(self._bytes):
            raise ValueError("more than a header")

    def _text(self, most: int) -> str | None:
        """The string that begins here; None for one over the limit, which is skipped."""
        self._skip_blank()
        begin = self._position
        if (found := _PLAIN.match(self._bytes, begin, begin + most + 2)) is not None:
            self._position = found.end()
            return found[1].decode()
        if (found := _STRING.match(self._bytes, begin, begin + most + 2)) is not None:
            self._position = found.end()
            return str(_decode(found[0]))
        self._expect(b'"')
        while self._position < len(self._bytes):
            inside = _IN_STRING.match(self._bytes, self._position, self._position + _PIECE_BYTES)
            assert inside is not None
            self._position = inside.end()
            byte = self._bytes[self._position : self._position + 1]
            if byte == b'"':
                self._position += 1
                return None
            self._position += 2 if byte == b"\\" else 0  # an escape sequence split by the end of the piece
        raise ValueError("no string")

    def _skip_blank(self) -> None:
        if self._bytes[self._position : self._position + 1] > b" ":
            return
        found = _BLANK.match(self._bytes, self._position, self._position + _BLANK_BYTES)
        assert found is not None
        self._position = found.end()

    def _take(self, byte: bytes) -> bool:
        self._skip_blank()
        if not self._bytes.startswith(byte, self._position):
            return False
        self._position += 1
        return True

    def _expect(self, byte: bytes) -> None:
        if not self._take(byte):
            raise ValueError("something else")


def _unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a name is there twice")
    return found


_DECODER = json.JSONDecoder(object_pairs_hook=_unique_keys)


def _decode(piece: bytes) -> Any:
    """The JSON value of a piece. Raises: ValueError, also for more than one value; RecursionError."""
    text = piece.decode()
    found, end = _DECODER.raw_decode(text)
    if end != len(text):
        raise ValueError("more than one value")
    return found


def _tensor(entry: Any) -> Tensor:
    begin, end = entry["data_offsets"]
    shape = tuple(entry["shape"])
    if len(shape) > MAX_RANK or not all(type(size) is int and 0 <= size < MAX_SIZE for size in (begin, end, *shape)):
        raise ValueError("not a size")
    if not isinstance(entry["dtype"], str):
        raise ValueError("not a type")
    return Tensor(entry["dtype"], shape, begin, end)
