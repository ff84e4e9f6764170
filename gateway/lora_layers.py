"""Which layers of which model a LoRA changes, told from the names and shapes in its header. Pure data, no MLX.

`lora_layouts.json` is written from mflux's own mappings by `python -m tools.lora_layouts`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from itertools import islice
from pathlib import Path

from engine.catalog import CATALOG, ModelSpec

NUMBERS_MOST = 8
"""That a layer's name may have: those of the models have three."""
Layout = Mapping[str, tuple[int, int]]
"""Layer to (inputs, outputs)."""

_MATRIX = re.compile(
    r"\.(?:lora[_.](?P<way>up|down|A|B)(?:\.default)?(?:\.weight)?|lokr_w[12](?:_[ab])?|lokr_t2|diff_b|diff)$"
)
_PREFIX = re.compile(r"^(?:base_model\.model\.|model\.diffusion_model\.|diffusion_model\.|transformer\.|lycoris_)?")
_KOHYA = re.compile(r"^(?:lora_unet_|lora_transformer_|transformer_(?!blocks))")
_NUMBER = re.compile(r"[0-9]++")


@dataclass(frozen=True, slots=True)
class Matrix:
    """One tensor of a LoRA. `layer` has underscores for dots; `way` is None for what has no rank to tell."""

    layer: str
    way: str | None


def matrix_of(key: str) -> Matrix | None:
    """What a tensor's name says; None for a name that is no LoRA's."""
    found = _MATRIX.search(key)
    if found is None:
        return None
    way = found["way"]
    return Matrix(layer_name(key[: found.start()]), {"A": "down", "B": "up"}.get(way, way))


def layer_name(path: str) -> str:
    """A layer as trainers spell it, without what they put before it: `a.0.b` and `lora_unet_a_0_b` are one."""
    return _KOHYA.sub("", _PREFIX.sub("", path).replace(".", "_")).lstrip("_")


@dataclass(frozen=True, slots=True)
class Fit:
    """What a LoRA was made for. `models` are geometries of the catalogue; none and `known`: nothing that is here."""

    rank: int | None
    models: frozenset[str]
    known: bool
    """Whether its layers are those of some model."""

    def of(self, spec: ModelSpec) -> bool | None:
        """Whether it can be put on a model; None where only trying will tell."""
        if not self.known or spec.geometry not in layouts():
            return None
        return spec.geometry in self.models


def fit_of(shapes: Mapping[str, tuple[int, ...]]) -> Fit:
    """What tensors of these names and shapes fit."""
    layers: dict[str, list[int | None]] = {}
    ranks: list[int] = []
    for key, shape in shapes.items():
        matrix = matrix_of(key)
        if matrix is None:
            continue
        sizes = layers.setdefault(matrix.layer, [None, None])
        if matrix.way is None or len(shape) < 2:
            continue
        if matrix.way == "down":
            ranks.append(shape[0])
            sizes[0] = shape[1]
        else:
            sizes[1] = shape[0]
    known, models = False, set()
    spelled = [(sizes, names) for layer, sizes in layers.items() if (names := _names(layer))]
    for key, layout in layouts().items():
        named = [(sizes, layout[name]) for sizes, names in spelled if (name := _in(layout, names)) is not None]
        known = known or bool(named)
        if named and all(_agree(sizes, wanted) for sizes, wanted in named):
            models.add((len(named), key))
    most = max((count for count, _ in models), default=0)
    # A family whose layers are named alike in part is not the one it was made for.
    return Fit(max(ranks, default=None), frozenset(key for count, key in models if count * 2 > most), known)


def _agree(sizes: list[int | None], wanted: tuple[int, int]) -> bool:
    return all(size is None or size == other for size, other in zip(sizes, wanted, strict=True))


def _names(layer: str) -> list[str]:
    """How a layer is spelled in any layout."""
    return [name for name in _spellings(layer) if name in _every_name()]


@cache
def _every_name() -> frozenset[str]:
    return frozenset(name for layout in layouts().values() for name in layout)


def _in(layout: Layout, names: Iterable[str]) -> str | None:
    return next((name for name in names if name in layout), None)


def _spellings(layer: str) -> Iterator[str]:
    """The layer, and with each of its numbers as that of a block."""
    yield layer
    for number in islice(_NUMBER.finditer(layer), NUMBERS_MOST):
        yield f"{layer[: number.start()]}#{layer[number.end() :]}"


def share_layers(one: ModelSpec, other: ModelSpec) -> bool | None:
    """Whether a LoRA of one model can be put on another; None where only trying will tell."""
    first, second = (layouts().get(spec.geometry) for spec in (one, other))
    return None if first is None or second is None else first is second


def names_of(models: frozenset[str]) -> list[str]:
    """The catalogue's names of these, those of fewer bits left out."""
    rows = (spec for spec in CATALOG if spec.quantize is None and spec.stored_bits is None)
    return [spec.name for spec in rows if spec.geometry in models]


@cache
def layouts() -> Mapping[str, Layout]:
    """By geometry."""
    kept = json.loads(Path(__file__).with_name("lora_layouts.json").read_text(encoding="utf-8"))
    read = [{layer: (sizes[0], sizes[1]) for layer, sizes in layout.items()} for layout in kept["layouts"]]
    return {geometry: read[number] for geometry, number in kept["geometries"].items()}
