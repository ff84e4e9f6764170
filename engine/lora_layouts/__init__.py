"""LoRA file layouts: what a file changes, from the names and shapes in its header. Pure data: no MLX.

`keys` splits a tensor's name into layer and part, `rows` and `sheets` give the modules of a model that a layer stands
for, `reading` combines both, `foreign` recognises families that no model here belongs to.
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
