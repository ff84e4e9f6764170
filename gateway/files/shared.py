"""Shared files: finished images, inputs and previews, each in a part of one folder or bucket."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from gateway.files.address import FolderAddress, parse_address
from gateway.files.base import Files, FilesRefused
from gateway.files.folder import Folder

if TYPE_CHECKING:
    from gateway.files.s3 import S3Options

IMAGES, INPUTS, PREVIEWS = "images", "inputs", "previews"
BUCKET_NAMES = {
    IMAGES: "the bucket of pictures",
    INPUTS: "the bucket of input pictures",
    PREVIEWS: "the bucket of previews",
}
"""Names of the parts of a bucket in messages."""


@dataclass(frozen=True, slots=True)
class SharedFiles:
    """The files of gateways that share a place, by what they are."""

    images: Files
    inputs: Files
    previews: Files


def shared_files_at(
    url: str, folder_of: Callable[[str, Path], Folder], options: Callable[[], S3Options]
) -> SharedFiles:
    """The files at `files.url`; `folder_of` makes a shared folder for a part. Raises: FilesRefused."""
    address = parse_address(url)
    if isinstance(address, FolderAddress):
        parts: dict[str, Files] = {part: folder_of(part, address.folder / part) for part in BUCKET_NAMES}
    else:
        if importlib.util.find_spec("obstore") is None:
            raise FilesRefused("s3:// needs a package that is not installed: uv sync --extra s3")
        from gateway.files.s3 import Bucket, S3Files

        bucket = Bucket(address, options())
        parts = {part: S3Files(bucket, part, place=name) for part, name in BUCKET_NAMES.items()}
    return SharedFiles(parts[IMAGES], parts[INPUTS], parts[PREVIEWS])
