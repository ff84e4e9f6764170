"""Caches of encoded prompts: mflux encodes again for each image. It knows no family."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from typing import Any

import mlx.core as mx
from mlx.utils import tree_flatten

Encoding = tuple[mx.array, ...]
MOST_BYTES = 64 * 1024 * 1024


class PromptCache:
    """Encodings by prompt; the least recently used are dropped first."""

    def __init__(self, encode: Callable[[str], Encoding], most_bytes: int = MOST_BYTES) -> None:
        self._encode = encode
        self._most_bytes = most_bytes
        self._encodings: OrderedDict[str, Encoding] = OrderedDict()

    def encode(self, text: str) -> Encoding:
        encoding = self._encodings.get(text)
        if encoding is None:
            encoding = self._encode(text)
            mx.eval(encoding)
            self._encodings[text] = encoding
            while self._bytes() > self._most_bytes and len(self._encodings) > 1:
                self._encodings.popitem(last=False)
        self._encodings.move_to_end(text)
        return encoding

    def _bytes(self) -> int:
        return sum(int(part.nbytes) for encoding in self._encodings.values() for part in encoding)


class BoundedPromptCache(OrderedDict[str, Encoding]):
    """Replacement for a pipeline's own `prompt_cache`, which only grows: keeps the newest few, by mflux's keys."""

    def __init__(self, most: int = 16, most_bytes: int = 4 * MOST_BYTES) -> None:
        super().__init__()
        self._most = most
        self._most_bytes = most_bytes

    def __setitem__(self, key: str, value: Encoding) -> None:
        mx.eval(
            [part for _, part in tree_flatten([value]) if isinstance(part, mx.array)]
        )  # so that it does not keep the encoder in memory
        super().__setitem__(key, value)
        while len(self) > self._most or (len(self) > 1 and self._bytes() > self._most_bytes):
            self.popitem(last=False)

    def _bytes(self) -> int:
        return sum(int(part.nbytes) for _, part in tree_flatten(list(self.values())) if isinstance(part, mx.array))


class CachedEncoder:
    """Replacement for a function of mflux that encodes a `prompt`: caches the newest few results."""

    def __init__(self, encode: Callable[..., Any]) -> None:
        self._encode = encode
        self._encodings = BoundedPromptCache()

    def __call__(self, *, prompt: str, **more: Any) -> Any:
        if prompt not in self._encodings:
            self._encodings[prompt] = self._encode(prompt=prompt, **more)
        return self._encodings[prompt]
