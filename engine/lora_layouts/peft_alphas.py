"""Alphas in the metadata of PEFT's and diffusers' LoRA files. Pure string work, in time that a file cannot choose.

Source: diffusers 0.42 loaders/lora_base.py (`lora_adapter_metadata`); PEFT tuners/tuners_utils.py `get_pattern_key`,
where a pattern is a regular expression for the end of a module's name. Here it may be a name, with `.*` for any part.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

METADATA = "lora_adapter_metadata"
WILD_MOST, WILD_CHARS_MOST = 100, 500
"""Limits of the patterns with `.*`, and of the length of each: each is compared with every layer."""
_LETTERS = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_.-")
"""Letters of a module's name."""


@dataclass(frozen=True, slots=True)
class _Config:
    """Alphas of one component. `plain` and `wild` have those of patterns, with the place of each in the file."""

    alpha: float
    is_rank_stabilised: bool
    plain: Mapping[str, tuple[int, float]]
    wild: tuple[tuple[int, str, float], ...]

    def of(self, module: str) -> float:
        """Alpha of a module: that of the first pattern for it."""
        matches = [self.plain[end] for end in (f"^{module}", *_ends(module)) if end in self.plain]
        matches += [(place, alpha) for place, pattern, alpha in self.wild if _matches(pattern, module)]
        return min(matches)[1] if matches else self.alpha


class PeftAlphas:
    """Alphas by component of a model, such as `unet`; the component "" is a whole model. Raises: ValueError."""

    def __init__(self, metadata: Mapping[str, str]) -> None:
        self._configs = {component: _config(found) for component, found in _components(metadata).items()}

    def alpha(self, name: str, rank: int) -> float | None:
        """Alpha of the layer of the tensor `name`, to be divided by its rank; None where no config is for it."""
        module = _module_of(name)
        if module is None:
            return None
        for inner in _ends(module):
            component = module[: len(module) - len(inner)].removesuffix(".")
            if component and component in self._configs:
                return _scaled(self._configs[component], inner, rank)
        if "" in self._configs:
            return _scaled(self._configs[""], module, rank)
        # The names may lack the component of the only config.
        return _scaled(next(iter(self._configs.values())), module, rank) if len(self._configs) == 1 else None


def _module_of(name: str) -> str | None:
    """Module of a tensor `MODULE.lora_A.weight` or `MODULE.lora_A.NAME.weight`; None for other names."""
    *path, last = name.rsplit(".", 3)
    if last != "weight":
        return None
    for count in (1, 2):  # the adapter's name is between the matrix and its weight, or left out
        if len(path) > count and path[-count] in ("lora_A", "lora_B"):
            return ".".join(path[:-count])
    return None


def _scaled(config: _Config, module: str, rank: int) -> float:
    alpha = config.of(module)
    return alpha * math.sqrt(rank) if config.is_rank_stabilised else alpha


def _components(metadata: Mapping[str, str]) -> dict[str, dict[str, Any]]:
    try:
        read = json.loads(metadata.get(METADATA) or "{}")
    except ValueError:
        return {}
    except RecursionError as error:
        raise ValueError("has metadata that cannot be read") from error
    found: dict[str, dict[str, Any]] = {}
    for key, value in read.items() if isinstance(read, dict) else ():
        component, _, name = key.rpartition(".")
        found.setdefault(component, {})[name] = value
    return {component: config for component, config in found.items() if "lora_alpha" in config}


def _config(found: Mapping[str, Any]) -> _Config:
    patterns = found.get("alpha_pattern") or {}
    if not isinstance(patterns, dict):
        raise ValueError("has metadata that cannot be read")
    plain: dict[str, tuple[int, float]] = {}
    wild: list[tuple[int, str, float]] = []
    for place, (pattern, alpha) in enumerate(patterns.items()):
        name = pattern.replace("\\.", ".").removesuffix("$")
        is_wild = ".*" in name
        is_name = all(map(_LETTERS.issuperset, name.removeprefix("^").split(".*")))
        if not is_name or (is_wild and len(name) > WILD_CHARS_MOST):
            raise ValueError("has patterns in its metadata that cannot be read")
        if is_wild:
            wild.append((place, name, _number(alpha)))
        else:
            plain.setdefault(name, (place, _number(alpha)))
    if len(wild) > WILD_MOST:
        raise ValueError("has too many patterns in its metadata")
    return _Config(_number(found["lora_alpha"]), bool(found.get("use_rslora")), plain, tuple(wild))


def _number(value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        raise ValueError("has alphas in its metadata that are no numbers")
    try:
        return float(value)
    except (ValueError, OverflowError) as error:
        raise ValueError("has alphas in its metadata that are no numbers") from error


def _ends(module: str) -> Iterator[str]:
    """The module's name, then without its first segment, and so on."""
    yield module
    while "." in module:
        module = module.partition(".")[2]
        yield module


def _matches(pattern: str, module: str) -> bool:
    """Whether a pattern with `.*` is for the end of a module's name; `^`: for the whole name."""
    names = [module] if pattern.startswith("^") else _ends(module)
    first, *rest = pattern.removeprefix("^").split(".*")
    return any(name.startswith(first) and _follow(rest, name[len(first) :]) for name in names)


def _follow(pieces: list[str], text: str) -> bool:
    """Whether the text has these pieces one after the other, the last at its end."""
    *between, last = pieces
    for piece in between:
        _, found, text = text.partition(piece) if piece else ("", True, text)
        if not found:
            return False
    return text.endswith(last)
