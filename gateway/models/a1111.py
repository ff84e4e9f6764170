"""The folders of an installation of AUTOMATIC1111.

Source: A1111 1.10.1 modules/paths.py, shared_cmd_options.py; extensions-builtin/Lora/networks.py.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class A1111Folders:
    """Where AUTOMATIC1111 has the models of each kind; some of the folders may be missing."""

    checkpoints: Path
    vaes: Path
    loras: tuple[Path, ...]
    embeddings: Path


def folders_in(root: Path) -> A1111Folders:
    """The folders below the one that has `webui.py` in it."""
    models = root / "models"
    return A1111Folders(
        checkpoints=models / "Stable-diffusion",
        vaes=models / "VAE",
        loras=(models / "Lora", models / "LyCORIS"),
        embeddings=root / "embeddings",
    )
