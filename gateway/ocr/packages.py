"""Availability of readers: packages and folders are searched, and none is imported, since they belong to the child."""

from __future__ import annotations

import importlib.util
from pathlib import Path

from gateway.errors import InvalidRequest, ModelNotOnDisk, NotInstalled

MODEL = "rapidocr"
"""The built-in reader; all others are vision models from the settings."""
READER = (MODEL, "onnxruntime")
PDF = "pypdfium2"
VISION = "mlx_vlm"


def check_installed(*, pdf: bool) -> None:
    """Raises: NotInstalled; InvalidRequest for a PDF if only images can be read."""
    if not all(map(_is_there, READER)):
        raise NotInstalled(
            "OCR is not installed on this server. Install it with `uv sync --group ocr`, "
            f"or `pip install {' '.join((*READER, PDF))}`, and start the server again."
        )
    if pdf:
        check_pdf()


def check_vision(name: str, folder: Path, *, pdf: bool) -> None:
    """Check the vision model in `folder`. Raises: NotInstalled, ModelNotOnDisk, InvalidRequest as above."""
    if not _is_there(VISION):
        raise NotInstalled(
            f"'{name}' needs mlx-vlm, which is not installed on this server. On a Mac with Apple silicon install it "
            "with `uv sync --extra vision`, and start the server again."
        )
    if not (folder / "config.json").is_file():
        raise ModelNotOnDisk(f"The weights of '{name}' are not on this machine.", param="model")
    if any(folder.rglob("*.py")):
        raise NotInstalled(f"'{name}' holds Python files, which are never run here. Remove them from its folder.")
    if pdf:
        check_pdf()


def check_pdf() -> None:
    """Check that PDFs can be read. Raises: InvalidRequest."""
    if not _is_there(PDF):
        raise InvalidRequest(
            f"PDFs cannot be read on this server until {PDF} is installed; send pictures.", param="image"
        )


def installed_at() -> float | None:
    """Unix time at which the reader was installed; None if it is not."""
    if not all(map(_is_there, READER)):
        return None
    spec = importlib.util.find_spec(MODEL)
    return Path(spec.origin).stat().st_mtime if spec is not None and spec.origin else 0.0


def _is_there(package: str) -> bool:
    return importlib.util.find_spec(package) is not None
