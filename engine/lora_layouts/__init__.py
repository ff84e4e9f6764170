"""LoRA file layouts: what a file changes, from the names and shapes in its header. Pure data: no MLX.

`keys` splits a tensor's name into layer and part; `rows`, `sheets` and `tables` give the modules of a model that a
layer stands for, those of Stable Diffusion by `stable_diffusion_modules` and `stable_diffusion_names`; `reading`
combines both; `foreign` recognises families by their names.
"""

from __future__ import annotations

from engine.lora_layouts.foreign import NAMES_OF_STABLE_DIFFUSION, family_of
from engine.lora_layouts.keys import Key, key_of
from engine.lora_layouts.reading import Change, Reading, named, read
from engine.lora_layouts.sheets import Module, Sheet, Table
from engine.lora_layouts.stable_diffusion_modules import STANDARD, TEXT_ENCODER, TEXT_ENCODER_2, UNET
from engine.lora_layouts.tables import sheets, stable_diffusion_table, table_of

__all__ = [
    "NAMES_OF_STABLE_DIFFUSION",
    "STANDARD",
    "TEXT_ENCODER",
    "TEXT_ENCODER_2",
    "UNET",
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
    "stable_diffusion_table",
    "table_of",
]
