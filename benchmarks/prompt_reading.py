"""Cost of counting a prompt's tokens with the embedded model's tokenizer, for prompts up to the longest accepted.

`python -m benchmarks.prompt_reading` prints milliseconds, the median of 20, of a first and of a cached count.
"""

from __future__ import annotations

import time
from statistics import median

from mflux.models.common.tokenizer import LanguageTokenizer
from transformers import AutoTokenizer

from engine.catalog import EMBEDDED_PATH
from engine.prompt_tokens import Encoder, language_encoder, read_prompt

WORDS = "a red circle above two green stars on a blue background, "
SIZES = (64, 1024, 8192, 32 * 1024)
ROUNDS = 20


def main() -> None:
    tokenizer = AutoTokenizer.from_pretrained(str(EMBEDDED_PATH / "tokenizer"))
    language = LanguageTokenizer(tokenizer, max_length=512, use_chat_template=True)
    print("bytes of prompt   first   remembered, ms")
    for size in SIZES:
        text = (WORDS * (1 + size // len(WORDS)))[:size]
        encoders = [language_encoder(language) for _ in range(ROUNDS)]
        first, again = ([read_ms(encoder, text) for encoder in encoders] for _ in range(2))
        print(f"{size:15}  {median(first):6.2f}  {median(again):11.3f}")


def read_ms(encoder: Encoder, text: str) -> float:
    began = time.perf_counter()
    read_prompt(encoder, "prompt", text, text)
    return (time.perf_counter() - began) * 1000


if __name__ == "__main__":
    main()
