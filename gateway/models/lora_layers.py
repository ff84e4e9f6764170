"""Which models a LoRA fits, told from the names and shapes in its header by the table that the engine applies it with.

Pure data, no MLX: see `engine.lora_layouts`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache

from engine.catalog import CATALOG, ModelSpec
from engine.lora_layouts import Table, family_of, named, read, sheets


@dataclass(frozen=True, slots=True)
class Use:
    """Of a LoRA on one model: how many of its tensors count, what the others are, and why it cannot be put on."""

    used: int
    rest: str | None = None
    """One sentence's end; None where all count."""
    unfit: str | None = None
    """What it does that cannot be: goes on after "it"."""


@dataclass(frozen=True, slots=True)
class Fit:
    """What a LoRA was made for. `models` are geometries of the catalogue."""

    rank: int | None
    models: frozenset[str]
    known: bool
    """Whether its layers are those of some model."""
    total: int = 0
    """Tensors in the file."""
    uses: Mapping[str, Use] = field(default_factory=dict)
    """By geometry, of those whose layers it names."""
    family: str | None = None
    """The family it is for, where none of that is here."""

    def of(self, spec: ModelSpec) -> bool | None:
        """Whether it can be put on a model; None for one that takes no LoRAs."""
        return spec.geometry in self.models if spec.geometry in sheets() else None

    def use_on(self, spec: ModelSpec) -> Use | None:
        """None where it changes nothing of the model."""
        return self.uses.get(spec.geometry)


def fit_of(shapes: Mapping[str, tuple[int, ...]]) -> Fit:
    """What tensors of these names and shapes fit."""
    names = named(shapes, _every_name())
    total, family = len(shapes), family_of(shapes, {key.layer for key, _ in names.values()})
    if family is not None:
        return Fit(None, frozenset(), True, total, family=family)
    known = False
    uses: dict[str, Use] = {}
    ranks: list[tuple[int, int | None]] = []
    for table, geometries in _by_table():
        if not any(table.find(spelled) for _, spelled in names.values()):
            continue
        known = True
        reading = read(shapes, table, names)
        uses |= dict.fromkeys(geometries, Use(reading.used, reading.rest, reading.unfit))
        ranks.append((reading.used, reading.rank))
    most = max((use.used for use in uses.values()), default=0)
    # A family whose layers are named alike in part is not the one it was made for.
    models = frozenset(geometry for geometry, use in uses.items() if use.unfit is None and use.used * 2 > most)
    rank = max(((used, rank) for used, rank in ranks if rank is not None), default=(0, None))[1]
    return Fit(rank, models, known, total, uses)


@cache
def _every_name() -> frozenset[str]:
    """What any table calls a layer."""
    return frozenset(name for table, _ in _by_table() for name in table)


@cache
def _by_table() -> list[tuple[Table, list[str]]]:
    """Each table with the geometries that it is for."""
    found: dict[int, tuple[Table, list[str]]] = {}
    for geometry, table in sheets().items():
        found.setdefault(id(table), (table, []))[1].append(geometry)
    return list(found.values())


def share_layers(one: ModelSpec, other: ModelSpec) -> bool | None:
    """Whether a LoRA of one model can be put on another; None where only trying will tell."""
    first, second = (sheets().get(spec.geometry) for spec in (one, other))
    return None if first is None or second is None else first is second


def names_of(models: frozenset[str]) -> list[str]:
    """The catalogue's names of these, those of fewer bits left out."""
    rows = (spec for spec in CATALOG if spec.quantize is None and spec.stored_bits is None)
    return [spec.name for spec in rows if spec.geometry in models]
