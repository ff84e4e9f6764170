"""Metadata that Infinite Image Browsing reads from files: python -m benchmarks.infinite_image_browsing CHECKOUT

CHECKOUT is a clone of zanllp/sd-webui-infinite-image-browsing, which is on no package index. Its own parsers run on the
files that a gateway wrote for each protocol. Exits with 1 where one of them reads another prompt, seed or size.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import httpx

from tests.store.test_infotexts_on_disk import CONFIG, DRAW, NEGATIVE, PROMPT, drawn
from tests.support.live import live

VERSION = "1.6.0"
"""Commit of the clone with which this was run last."""
READ = """
import json, sys
from scripts.iib.parsers.index import parse_image_info
for file in sys.argv[1:]:
    found = parse_image_info(file)
    print("FOUND" + json.dumps([found.raw_info, found.params.meta]))
"""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkout", type=Path)
    checkout = parser.parse_args().checkout.resolve()
    wrong = 0
    with (
        tempfile.TemporaryDirectory() as folder,
        live(Path(folder), config=CONFIG) as gateway,
        httpx.Client(base_url=gateway.url, timeout=60) as client,
    ):
        for protocol in DRAW:
            files = drawn(gateway, client, protocol, PROMPT)
            found = read(checkout, files)
            sound = [is_right(*one, protocol, seed) for one, seed in zip(found, (7, 8), strict=False)] == [True, True]
            wrong += not sound
            print(f"{protocol}: {len(files)} files, {'prompt, seed and size of each' if sound else found}")
    return int(wrong > 0)


def read(checkout: Path, files: list[Path]) -> list[tuple[str, dict[str, Any]]]:
    """Text and pairs that the program reads from each file."""
    asked = subprocess.run(
        [sys.executable, "-c", READ, *map(str, files)], cwd=checkout, capture_output=True, text=True, check=True
    )
    lines = [line.removeprefix("FOUND") for line in asked.stdout.splitlines() if line.startswith("FOUND")]
    return [(text, pairs) for text, pairs in map(json.loads, lines)]


def is_right(text: str, pairs: dict[str, Any], protocol: str, seed: int) -> bool:
    negative = "" if protocol == "mflux-server" else f"\nNegative prompt: {NEGATIVE}"
    size = (pairs.get("Size-1"), pairs.get("Size-2"))
    return text.startswith(f"{PROMPT}{negative}\nSteps: 3,") and (pairs.get("Seed"), size) == (str(seed), ("128", "64"))


if __name__ == "__main__":
    sys.exit(main())
