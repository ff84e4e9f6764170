"""Whether what reads is there: packages and folders. Looks for them and imports none: they belong to the child."""

from __future__ import annotations

import importlib.util
from pathlib import Path

from gateway.errors import InvalidRequest, ModelNotOnDisk, NotInstalled

MODEL = "rapidocr"
"""The reader that comes along; every other one is a vision model of the settings."""
READER = (MODEL, "onnxruntime")
PDF = "pypdfium2"
VISION = "mlx_vlm"


def check_installed(*, pdf: bool) -> None:
    """Raises: NotInstalled; InvalidRequest for a PDF where only pictures can be read."""
    if not all(map(_is_there, READER)):
        raise NotInstalled(
            "OCR is not installed on this server. Install it with `uv sync --group ocr`, "
            f"or `pip install {' '.join((*READER, PDF))}`, and start the server again."
        )
    if pdf:
        check_pdf()


def check_vision(name: str, folder: Path, *, pdf: bool) -> None:
    """Whether the vision model in `folder` can read. Raises: NotInstalled, ModelNotOnDisk, InvalidRequest as above."""
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
    """Raises: InvalidRequest."""
    if not _is_there(PDF):
        raise InvalidRequest(
            f"PDFs cannot be read on this server until {PDF} is installed; send pictures.", param="image"
        )


def installed_at() -> float | None:
    """When the reader was installed, in Unix seconds; None where it is not."""
    if not all(map(_is_there, READER)):
        return None
    found = importlib.util.find_spec(MODEL)
    return Path(found.origin).stat().st_mtime if found is not None and found.origin else 0.0


def _is_there(package: str) -> bool:
    return importlib.util.find_spec(package) is not None
