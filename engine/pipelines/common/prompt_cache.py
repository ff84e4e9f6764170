"""Prompts already encoded: mflux encodes anew for each picture. Knows no family."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from typing import Any

import mlx.core as mx
from mlx.utils import tree_flatten

Encoding = tuple[mx.array, ...]
MOST_BYTES = 64 * 1024 * 1024


class Encoded:
    """Encodings by prompt, the least used forgotten first."""

    def __init__(self, encode: Callable[[str], Encoding], most_bytes: int = MOST_BYTES) -> None:
        self._encode = encode
        self._most_bytes = most_bytes
        self._known: OrderedDict[str, Encoding] = OrderedDict()

    def of(self, text: str) -> Encoding:
        known = self._known.get(text)
        if known is None:
            known = self._encode(text)
            mx.eval(known)
            self._known[text] = known
            while self._bytes() > self._most_bytes and len(self._known) > 1:
                self._known.popitem(last=False)
        self._known.move_to_end(text)
        return known

    def _bytes(self) -> int:
        return sum(int(part.nbytes) for encoding in self._known.values() for part in encoding)


class FewPrompts(OrderedDict[str, Encoding]):
    """In the place of a pipeline's own `prompt_cache`, which only grows: the newest few, by what mflux calls them."""

    def __init__(self, most: int = 16, most_bytes: int = 4 * MOST_BYTES) -> None:
        super().__init__()
        self._most = most
        self._most_bytes = most_bytes

    def __setitem__(self, key: str, value: Encoding) -> None:
        mx.eval([part for _, part in tree_flatten([value]) if isinstance(part, mx.array)])  # lest it hold the encoder
        super().__setitem__(key, value)
        while len(self) > self._most or (len(self) > 1 and self._bytes() > self._most_bytes):
            self.popitem(last=False)

    def _bytes(self) -> int:
        return sum(int(part.nbytes) for _, part in tree_flatten(list(self.values())) if isinstance(part, mx.array))


class Remembered:
    """In the place of a function of mflux's that encodes a `prompt`: the newest few of its answers."""

    def __init__(self, encode: Callable[..., Any]) -> None:
        self._encode = encode
        self._known = FewPrompts()

    def __call__(self, *, prompt: str, **more: Any) -> Any:
        if prompt not in self._known:
            self._known[prompt] = self._encode(prompt=prompt, **more)
        return self._known[prompt]
