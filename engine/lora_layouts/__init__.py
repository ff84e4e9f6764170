"""LoRA files of every public layout, told from the names and shapes in their headers. Pure data: no MLX.

`keys` parts a tensor's name into layer and part, `rows` and `sheets` say which of a model's modules a layer is,
`reading` puts both together, `foreign` knows the families that nothing here can draw with.
"""

from __future__ import annotations

from engine.lora_layouts.foreign import family_of
from engine.lora_layouts.keys import Key, key_of
from engine.lora_layouts.reading import Change, Reading, named, read
from engine.lora_layouts.sheets import Module, Sheet, Table, sheets, table_of

__all__ = [
    "Change",
    "Key",
    "Module",
    "Reading",
    "Sheet",
    "Table",
    "family_of",
    "key_of",
    "named",
    "read",
    "sheets",
    "table_of",
]
