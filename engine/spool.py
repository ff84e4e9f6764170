"""Files of the spool folder: finished images as binary PPM. It knows no job."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

from engine.drawing.base import FinishedImage


def write_ppm(path: Path, finished: FinishedImage) -> None:
    """Write under a temporary name, then rename, so that no reader sees half an image. Raises: OSError with its
    name.
    """
    temporary = path.with_name(path.name + ".part")
    try:
        with open(temporary, "wb", opener=lambda name, flags: os.open(name, flags, 0o600)) as file:
            file.write(f"P6\n{finished.width_px} {finished.height_px}\n255\n".encode())
            file.write(finished.rgb)
        temporary.replace(path)
    except OSError as error:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)
        error.filename = error.filename or str(path)
        raise
