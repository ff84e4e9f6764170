"""The listing of a model's folder: equal to a walk through it, and remembered only while nothing in it changes."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from gateway.models import listing
from gateway.models.folders import Record, holds_weights, is_usable, read_record
from gateway.models.listing import listing_of, transformer_weights
from gateway.models.weights import stored_bits, weights_bytes

OLD = (1_000_000_000, 1_000_000_000)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A model's folder, last changed long ago."""
    root = tmp_path / "model"
    for name in ("transformer/a.safetensors", "vae/b.safetensors", "tokenizer/deep/down/c.json", "top.txt"):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(b"1234")
    aged(root)
    return root


def aged(root: Path) -> None:
    for path in (root, *root.rglob("*")):
        os.utime(path, OLD)


@pytest.fixture
def walks(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The folders that are walked through."""
    seen: list[str] = []
    scandir = os.scandir

    def noted(path: str) -> Iterator[os.DirEntry[str]]:
        seen.append(path)
        return scandir(path)

    monkeypatch.setattr(listing.os, "scandir", noted)
    return seen


def names(root: Path) -> list[str]:
    known = listing_of(root)
    assert known is not None
    return sorted(known.files)


def test_listing_has_the_files_that_a_walk_finds(folder: Path) -> None:
    assert names(folder) == sorted(file.relative_to(folder).as_posix() for file in folder.rglob("*") if file.is_file())
    assert weights_bytes(folder) == 8
    assert transformer_weights(folder) == ["transformer/a.safetensors"]
    assert listing_of(folder / "nothing") is None
    assert not holds_weights(folder / "nothing")
    assert weights_bytes(folder / "nothing") == 0


def test_unchanged_folder_is_not_walked_again(folder: Path, walks: list[str]) -> None:
    assert is_usable(folder, ())
    first = len(walks)
    assert first
    for _ in range(3):
        assert is_usable(folder, ())
        assert holds_weights(folder)
        assert weights_bytes(folder) == 8
        assert stored_bits(folder) is None
    assert len(walks) == first


CHANGES: dict[str, Callable[[Path], object]] = {
    "a file is removed": lambda root: (root / "vae/b.safetensors").unlink(),
    "a file is added far below": lambda root: (root / "tokenizer/deep/down/new.safetensors").write_bytes(b"12"),
    "a file is replaced": lambda root: (root / "vae/b.safetensors").write_bytes(b"123456"),
    "a folder is removed": lambda root: (root / "vae").rename(root.parent / "elsewhere"),
    "the folder is replaced": lambda root: (root.rename(root.parent / "old"), root.mkdir()),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES.keys())
def test_changed_folder_is_listed_anew(folder: Path, change: Callable[[Path], object]) -> None:
    listing_of(folder)
    change(folder)
    assert names(folder) == sorted(file.relative_to(folder).as_posix() for file in folder.rglob("*") if file.is_file())
    assert weights_bytes(folder) == sum(file.stat().st_size for file in folder.rglob("*.safetensors"))


def test_link_to_nothing_is_not_there_also_when_its_file_goes_later(folder: Path, tmp_path: Path) -> None:
    blob = tmp_path / "blob"
    blob.write_bytes(b"12")
    (folder / "vae" / "linked.safetensors").symlink_to(blob)
    os.utime(folder / "vae", OLD)
    assert "vae/linked.safetensors" in names(folder)
    blob.unlink()
    assert "vae/linked.safetensors" not in names(folder)


def test_transformer_may_be_a_link_and_other_links_to_folders_are_not_followed(folder: Path, tmp_path: Path) -> None:
    (folder / "transformer").rename(tmp_path / "moved")
    (folder / "transformer").symlink_to(tmp_path / "moved")
    (folder / "loop").symlink_to(folder)
    assert holds_weights(folder)
    assert transformer_weights(folder) == ["transformer/a.safetensors"]
    assert names(folder) == ["tokenizer/deep/down/c.json", "top.txt", "vae/b.safetensors"]


def test_folder_that_was_just_changed_is_not_remembered(folder: Path, walks: list[str]) -> None:
    os.utime(folder / "vae")  # a second change may have the same time
    listing_of(folder)
    first = len(walks)
    listing_of(folder)
    assert len(walks) == 2 * first


def test_remembered_listings_are_bounded(tmp_path: Path) -> None:
    for number in range(listing.REMEMBERED + 5):
        (one := tmp_path / str(number)).mkdir()
        listing_of(one)
    assert len(listing._known) <= listing.REMEMBERED


def test_record_is_read_again_when_its_file_changes(tmp_path: Path) -> None:
    file = tmp_path / "record.json"
    assert read_record(file) is None
    first = Record(repo="a/b", revision="1", patterns=(), files=())
    file.write_text(first.model_dump_json())
    assert read_record(file) == first
    file.write_text(first.model_copy(update={"revision": "22"}).model_dump_json())
    assert read_record(file) == first.model_copy(update={"revision": "22"})
