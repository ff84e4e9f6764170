"""Size and time of input images of 16.8 million noisy pixels: python -m benchmarks.inputs

For each kind of file it prints MiB as sent, as a PNG and as stored, and seconds of processor time to check it and to
read it back.
"""

from __future__ import annotations

import io
import time
from typing import Any

from PIL import Image

from gateway.images.decoder_child import checked, normalised

EDGE_PX = 4096
KINDS: dict[str, tuple[str, dict[str, Any]]] = {
    "JPEG, quality 85": ("JPEG", {"quality": 85}),
    "JPEG, progressive": ("JPEG", {"quality": 85, "progressive": True}),
    "WebP, quality 80": ("WEBP", {"quality": 80, "method": 0}),
    "PNG, level 9": ("PNG", {"compress_level": 9}),
}


def mib(data: bytes) -> str:
    return f"{len(data) / 2**20:.1f}"


def main() -> None:
    image = Image.merge("RGB", [Image.effect_noise((EDGE_PX, EDGE_PX), 60) for _ in range(3)])
    for name, (kind, options) in KINDS.items():
        out = io.BytesIO()
        image.save(out, kind, **options)
        began = time.process_time()
        png, compact = checked(out.getvalue())
        middle = time.process_time()
        kept = compact or png
        assert normalised(kept) == png
        ended = time.process_time()
        sizes = f"sent {mib(out.getvalue())}, PNG {mib(png)}, kept {mib(kept)} MiB"
        print(f"{name}: {sizes}; checked in {middle - began:.1f} s, read back in {ended - middle:.1f} s", flush=True)


if __name__ == "__main__":
    main()
