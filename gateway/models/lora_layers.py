"""LoRA layers: which models a LoRA fits, from the tensor names and shapes in its header.

It uses the table by which the engine applies LoRAs (`engine.lora_layouts`). Pure data, no MLX.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache

from engine.catalog import CATALOG, ModelSpec
from engine.catalog.spec import STABLE_DIFFUSION
from engine.lora_layouts import NAMES_OF_STABLE_DIFFUSION, TEXT_ENCODER, Table, family_of, named, read, sheets


@dataclass(frozen=True, slots=True)
class Use:
    """Use of a LoRA on one model: how many of its tensors are used, what the others are, why it cannot be applied."""

    used: int
    rest: str | None = None
    """The end of a sentence about the unused tensors; None if all are used."""
    unfit: str | None = None
    """Why it cannot be applied: continues a sentence after "it"."""


@dataclass(frozen=True, slots=True)
class Fit:
    """Models that a LoRA was made for. `models` are geometries of the catalogue."""

    rank: int | None
    models: frozenset[str]
    known: bool
    """Whether its layers are those of a known model."""
    total: int = 0
    """Number of tensors in the file."""
    uses: Mapping[str, Use] = field(default_factory=dict)
    """Uses by geometry, for models with layers of these names."""
    family: str | None = None
    """The family that it is for, if no model of that is known here."""
    stable_diffusion: str | None = None
    """The family of Stable Diffusion that it is for, as `engine.lora_layouts.family_of` names it."""

    def of(self, spec: ModelSpec) -> bool | None:
        """Whether it can be applied to a model; None for a model that takes no LoRAs, and where only a try can tell: on
        a Stable Diffusion model of other sizes than the published ones.
        """
        if spec.geometry in sheets():
            return spec.geometry in self.models
        if spec.family not in STABLE_DIFFUSION or (self.may_be_for(spec) and spec.family in self.uses):
            return None
        return False

    def may_be_for(self, spec: ModelSpec) -> bool:
        """Whether it is for the model's family of Stable Diffusion, as far as its layers tell."""
        return self.stable_diffusion is None or spec.family in NAMES_OF_STABLE_DIFFUSION[self.stable_diffusion]

    def use_on(self, spec: ModelSpec) -> Use | None:
        """Its use on a model; None if it changes nothing there."""
        return self.uses.get(spec.geometry)


def fit_of(shapes: Mapping[str, tuple[int, ...]]) -> Fit:
    """The models that tensors of these names and shapes fit."""
    names = named(shapes, _every_name())
    total, family = len(shapes), family_of(shapes, {key.layer for key, _ in names.values()})
    if family is not None and family not in NAMES_OF_STABLE_DIFFUSION:
        return Fit(None, frozenset(), True, total, family=family)
    known = family is not None
    uses: dict[str, Use] = {}
    of_text: set[str] = set()
    ranks: list[tuple[int, int | None]] = []
    for table, geometries in _by_table():
        if family is not None and not NAMES_OF_STABLE_DIFFUSION[family] & set(geometries):
            continue
        if not any(table.find(spelled) for _, spelled in names.values()):
            continue
        known = True
        reading = read(shapes, table, names)
        uses |= dict.fromkeys(geometries, Use(reading.used, reading.rest, reading.unfit))
        if all(path.startswith(TEXT_ENCODER) for change in reading.changes for path in change.modules):
            of_text |= set(geometries)
        ranks.append((reading.used, reading.rank))
    if any(use.used for geometry, use in uses.items() if geometry not in of_text):
        # FLUX.1 has the first text encoder of Stable Diffusion too.
        uses = {geometry: use for geometry, use in uses.items() if geometry not in of_text or not use.used}
    most = max((use.used for use in uses.values()), default=0)
    # A family that shares only part of the layer names is not the one it was made for.
    models = frozenset(geometry for geometry, use in uses.items() if use.unfit is None and use.used * 2 > most)
    rank = max(((used, rank) for used, rank in ranks if rank is not None), default=(0, None))[1]
    return Fit(rank, models, known, total, uses, stable_diffusion=family)


@cache
def _every_name() -> frozenset[str]:
    """Every layer name in any table."""
    return frozenset(name for table, _ in _by_table() for name in table)


@cache
def _by_table() -> list[tuple[Table, list[str]]]:
    """Each table with its geometries."""
    by_table: dict[int, tuple[Table, list[str]]] = {}
    for geometry, table in sheets().items():
        by_table.setdefault(id(table), (table, []))[1].append(geometry)
    return list(by_table.values())


def share_layers(one: ModelSpec, other: ModelSpec) -> bool | None:
    """Whether a LoRA of one model can be applied to another; None if only a try can tell."""
    first, second = (sheets().get(spec.geometry) for spec in (one, other))
    return None if first is None or second is None else first is second


def names_of(models: frozenset[str]) -> list[str]:
    """Catalogue names of these geometries, without those of fewer bits."""
    rows = (spec for spec in CATALOG if spec.quantize is None and spec.stored_bits is None)
    return [spec.name for spec in rows if spec.geometry in models]
