"""Tables of all models: what the layer names of LoRA files stand for in each.

`sheets.json` is written from mflux's models and mappings by `python -m tools.lora_layouts`; those of Stable Diffusion
follow from its sizes. The engine makes the same table from the model that it has loaded.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from engine.lora_layouts.rows import ROWS, Row
from engine.lora_layouts.sheets import Module, Sheet, Table
from engine.lora_layouts.stable_diffusion_modules import STANDARD, modules_of
from engine.lora_layouts.stable_diffusion_names import rows_of

FILE = Path(__file__).with_name("sheets.json")


@dataclass(frozen=True, slots=True)
class _SheetFile:
    geometries: Mapping[str, int]
    tables: tuple[Table, ...]
    rows: Mapping[str, Mapping[str, Row]]


@cache
def _read_file() -> _SheetFile:
    read = json.loads(FILE.read_text(encoding="utf-8"))
    rows = {
        architecture: {
            **{layer: Row(tuple(modules), bool(swapped)) for layer, (modules, swapped) in spelled.items()},
            **ROWS.get(architecture, {}),
        }
        for architecture, spelled in read["spellings"].items()
    }
    tables = tuple(Table(rows[one["architecture"]], Sheet.unpack(one["modules"])) for one in read["sheets"])
    return _SheetFile(read["geometries"], tables, rows)


@cache
def sheets() -> Mapping[str, Table]:
    """Tables by geometry; geometries with the same modules share one."""
    stored = _read_file()
    tables = {geometry: stored.tables[number] for geometry, number in stored.geometries.items()}
    return tables | {family: stable_diffusion_table(modules_of(sizes)) for family, sizes in STANDARD.items()}


def table_of(architecture: str, modules: Mapping[str, Module]) -> Table:
    """Table of a loaded model with these modules. Raises: KeyError for an architecture that takes no LoRAs."""
    if architecture in STANDARD:
        return stable_diffusion_table(modules)
    return Table(_read_file().rows[architecture], Sheet.of(modules))


def stable_diffusion_table(modules: Mapping[str, Module]) -> Table:
    """Table of a Stable Diffusion model of any size, whose paths begin with their networks."""
    return Table(rows_of(modules), Sheet.of(modules), has_text_encoders=True)
