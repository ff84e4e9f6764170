"""The vocabulary of CLIP's tokenizer: the merges of its byte pair encoding, in the order of their ranks.

`bpe_simple_vocab_16e6.txt.gz` is that of OpenAI's CLIP, taken unchanged from the package open_clip_torch 3.3.0, whose
licence (MIT) lies beside it. All models of Stable Diffusion 1, 2 and XL use the first 48,894 merges.
"""

from __future__ import annotations

import gzip
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

FILE = Path(__file__).parent / "bpe_simple_vocab_16e6.txt.gz"
MERGES = 49_152 - 256 - 2


def read_merges() -> Iterator[tuple[str, str]]:
    """Pairs of symbols that are merged, the first one with the highest priority."""
    with gzip.open(FILE, "rt", encoding="utf-8") as lines:
        for line in islice(lines, 1, 1 + MERGES):  # the first line is a version
            left, right = line.split()
            yield left, right
