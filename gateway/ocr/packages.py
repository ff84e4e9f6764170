"""Whether the optional packages are there. Looks for them and imports none: they belong to the child."""

from __future__ import annotations

import importlib.util
from pathlib import Path

from gateway.errors import InvalidRequest, NotInstalled

MODEL = "rapidocr"
READER = (MODEL, "onnxruntime")
PDF = "pypdfium2"


def check_installed(*, pdf: bool) -> None:
    """Raises: NotInstalled; InvalidRequest for a PDF where only pictures can be read."""
    if not all(map(_is_there, READER)):
        raise NotInstalled(
            "OCR is not installed on this server. Install it with `uv sync --group ocr`, "
            f"or `pip install {' '.join((*READER, PDF))}`, and start the server again."
        )
    if pdf and not _is_there(PDF):
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
