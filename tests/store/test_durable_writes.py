"""R-04: how a file gets to the disk on each system. A power cut cannot be tried here, so the order of calls is."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from gateway import disk
from gateway.errors import StorageFault

FULL, BARRIER = 51, 85
"""F_FULLFSYNC and F_BARRIERFSYNC of macOS."""


class Calls:
    """The calls that write to disk, in their order; fcntl fails with `error` where it is set."""

    def __init__(self, patch: pytest.MonkeyPatch, platform: str, error: int | None = None) -> None:
        self.order: list[tuple[str, str]] = []
        self._error = error
        rename, fsync = os.rename, os.fsync

        def renamed(*given: Any, **named: Any) -> None:
            self.order.append(("rename", "file"))
            rename(*given, **named)

        def synced(descriptor: int) -> None:
            self.order.append(("fsync", kind(descriptor)))
            fsync(descriptor)

        patch.setattr(disk, "sys", SimpleNamespace(platform=platform))
        patch.setattr(disk, "fcntl", SimpleNamespace(F_FULLFSYNC=FULL, fcntl=self._fcntl))
        patch.setattr(os, "rename", renamed)
        patch.setattr(os, "fsync", synced)

    def _fcntl(self, descriptor: int, command: int) -> int:
        if self._error is not None:
            raise OSError(self._error, "no")
        self.order.append(({FULL: "full", BARRIER: "barrier"}[command], kind(descriptor)))
        return 0


def kind(descriptor: int) -> str:
    return "folder" if os.path.isdir(f"/proc/self/fd/{descriptor}") else "file"


def test_file_is_written_before_its_name_and_both_are_on_disk_on_return(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    calls = Calls(monkeypatch, "linux")
    disk.write_atomic(tmp_path, "a.png", b"png")
    assert calls.order == [("fsync", "file"), ("rename", "file"), ("fsync", "folder")]


def test_file_on_mac_is_ordered_by_a_barrier_and_the_drive_empties_its_cache_once(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    calls = Calls(monkeypatch, "darwin")
    disk.write_atomic(tmp_path, "a.png", b"png")
    assert calls.order == [("barrier", "file"), ("rename", "file"), ("full", "folder")]
    disk.sync_path(tmp_path)
    assert calls.order[-1] == ("full", "folder")


@pytest.mark.parametrize("error", [errno.ENOTSUP, errno.ENOTTY, errno.EINVAL])
def test_share_on_mac_without_full_fsync_takes_files(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, error: int
) -> None:
    calls = Calls(monkeypatch, "darwin", error)
    disk.write_atomic(tmp_path, "a.png", b"png")
    assert calls.order == [("fsync", "file"), ("rename", "file"), ("fsync", "folder")]
    assert (tmp_path / "a.png").read_bytes() == b"png"


def test_failing_disk_on_mac_is_not_taken_for_one_without_full_fsync(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    Calls(monkeypatch, "darwin", errno.EIO)
    with pytest.raises(StorageFault):
        disk.write_atomic(tmp_path, "a.png", b"png")
    assert list(tmp_path.iterdir()) == []
