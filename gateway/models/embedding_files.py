"""Textual inversions in the operator's folders, by name: the stem of the file, as prompts call them.

Source: A1111 1.10.1 modules/textual_inversion/textual_inversion.py.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from engine.prompts.embeddings import EmbeddingHeader, NotAnEmbedding, read_embedding
from engine.safetensors import UnsafeFile
from gateway.disk import read_file
from gateway.errors import clip
from gateway.models.lora_repositories import is_name
from gateway.models.named_files import NamedFiles
from gateway.models.scan import Found, walk

log = logging.getLogger("gateway.models")

SUFFIXES = (".safetensors", ".pt", ".bin")
FILE_MOST_BYTES = 4 * 2**20
"""75 vectors of both of SDXL's encoders in float32 are 600 KB."""


@dataclass(frozen=True, slots=True)
class EmbeddingFile:
    """A textual inversion. `header` has its vectors and widths."""

    name: str
    found: Found
    header: EmbeddingHeader | None
    sha256: str | None = None
    trouble: str | None = None
    """Why it cannot be used, as a sentence; `header` is None then."""

    @property
    def path(self) -> Path:
        return self.found.path


class EmbeddingLibrary(NamedFiles[EmbeddingFile]):
    """Textual inversions in `folders`; of equal names the first."""

    def refresh(self) -> None:
        """Find what is in the folders now; headers of new files are read. Blocks."""
        with self._lock:
            read = {found.key: self._read.get(found.key) or _recognised(found) for found in self._found()}
            by_name: dict[str, EmbeddingFile] = {}
            for one in sorted(read.values(), key=lambda one: one.trouble is not None):
                by_name.setdefault(one.name, one)
            self._read, self._by_name = read, by_name

    def fitting(self, widths: tuple[int, ...]) -> tuple[EmbeddingFile, ...]:
        """Those for a model whose text encoders have these widths, by name."""
        return tuple(one for one in self.all() if one.header is not None and one.header.fits(widths))

    def _found(self) -> Iterator[Found]:
        for folder in self._folders:
            yield from walk(folder, SUFFIXES)


def _recognised(found: Found) -> EmbeddingFile:
    name = found.stem
    if not is_name(name):
        return _unfit(found, "Its name is too long, or has characters that no name may have.")
    if found.leads_out:
        return _unfit(found, "It is a link out of its folder; name the folder that it leads to.")
    try:
        header = read_embedding(found.path)
        if found.size_bytes > FILE_MOST_BYTES:
            return _unfit(found, "It is larger than a textual inversion.")
        return EmbeddingFile(name, found, header, hashlib.sha256(read_file(found.path, FILE_MOST_BYTES)).hexdigest())
    except (NotAnEmbedding, UnsafeFile) as error:
        return _unfit(found, error.message)
    except OSError:
        log.warning("the textual inversion %s could not be read", clip(name), exc_info=True)
        return _unfit(found, "It cannot be read.")


def _unfit(found: Found, trouble: str) -> EmbeddingFile:
    return EmbeddingFile(found.stem, found, None, trouble=trouble)
