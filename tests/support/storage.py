"""What the tests of places at fault share: a small disk of its own, full or unmounted at will."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest


@dataclass(frozen=True, slots=True)
class Disk:
    """A disk of 8 MB, mounted at `folder`; what lies on it is kept while it is not mounted."""

    folder: Path
    behind: Path

    def fill(self) -> Path:
        """Until not one byte fits; returns the file whose removal makes room."""
        filler = self.folder / "filler"
        with filler.open("ab", buffering=0) as file:
            for size in (65536, 4096, 1):
                try:
                    while True:
                        file.write(b"x" * size)
                except OSError:
                    pass
        return filler

    def mount(self) -> None:
        subprocess.run(["mount", "--bind", self.behind, self.folder], check=True)

    def unmount(self) -> None:
        subprocess.run(["umount", "-l", self.folder], check=True)


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Disk]:
    """Where the system lets us mount one; else the test is skipped."""
    found = Disk(tmp_path / "disk", tmp_path / "behind")
    found.folder.mkdir()
    found.behind.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", found.behind]
    try:
        if subprocess.run(mount, capture_output=True, check=False).returncode:
            pytest.skip("no disk can be mounted here")
    except OSError:
        pytest.skip("no disk can be mounted here")
    found.mount()
    try:
        yield found
    finally:
        for folder in (found.folder, found.behind):
            subprocess.run(["umount", "-l", folder], capture_output=True, check=False)
