"""What is written about a LoRA: by its trainer in its header, by others in files beside it. Text to judge, not to obey.

Source: kohya's `ss_*` and `modelspec.*` metadata; A1111 1.10.1 user metadata (NAME.json); NAME.civitai.info of the
Civitai Helper and SD.Next.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from stat import S_ISREG

from gateway.disk import read_file
from gateway.images.clean_text import number, one_line, without_markup

NOTES_MOST_BYTES = 1024 * 1024
ALIAS_CHARS = 200
WORDS_MOST = 50
WORDS_CHARS = 8192
"""Of all trigger words together."""
TOLD = (
    "ss_output_name",
    "ss_base_model_version",
    "ss_network_dim",
    "ss_network_alpha",
    "ss_network_module",
    "ss_resolution",
    "ss_num_train_images",
    "ss_steps",
    "ss_epoch",
    "ss_learning_rate",
    "sshs_model_hash",
    "modelspec.title",
    "modelspec.author",
    "modelspec.architecture",
    "modelspec.license",
    "modelspec.date",
    "modelspec.description",
    "modelspec.trigger_phrase",
    "modelspec.usage_hint",
    "modelspec.resolution",
)
"""What is passed on: what else trainers write may name folders of their machines."""
DESCRIPTION = "modelspec.description"
PICTURES = (".png", ".jpg", ".jpeg", ".webp", ".preview.png", ".preview.jpg", ".preview.jpeg", ".preview.webp")


@dataclass(frozen=True, slots=True)
class Beside:
    """What one file beside a LoRA says, cleaned; empty where it says nothing."""

    activation_text: str = ""
    words: tuple[str, ...] = ()
    """Trigger words, as they were given: each may hold several with commas between them."""
    base_model: str = ""
    title: str = ""
    description: str = ""
    scale: float | None = None


@dataclass(frozen=True, slots=True)
class Notes:
    """Empty where nothing is said."""

    told: dict[str, str] = field(default_factory=dict)
    """Of the header's metadata what may be passed on, as `told_by` leaves it."""
    user: Beside = Beside()
    """NAME.json."""
    civitai: Beside = Beside()
    """NAME.civitai.info."""

    @property
    def alias(self) -> str:
        """The name its trainer gave it; empty where there is none."""
        return self.told.get("ss_output_name", "")[:ALIAS_CHARS]

    @property
    def activation_text(self) -> str:
        """What a prompt says to call it."""
        return self.user.activation_text or ", ".join(self.trigger_words)

    @property
    def trigger_words(self) -> tuple[str, ...]:
        said = (self.user.activation_text, *self.user.words, *self.civitai.words)
        return _single_words((*said, self.told.get("modelspec.trigger_phrase", "")))

    @property
    def base_model(self) -> str:
        """What it was trained for, in its maker's words."""
        said = (
            self.civitai.base_model,
            self.told.get("ss_base_model_version", ""),
            self.told.get("modelspec.architecture", ""),
            self.user.base_model,
        )
        return next(filter(None, said), "")

    @property
    def title(self) -> str:
        return self.civitai.title or self.told.get("modelspec.title", "")

    @property
    def description(self) -> str:
        return self.user.description or self.civitai.description or self.told.get(DESCRIPTION, "")

    @property
    def preferred_scale(self) -> float | None:
        """Source: A1111's `preferred weight`; 0 means that nothing is said."""
        return self.user.scale


def told_by(metadata: Mapping[str, str]) -> dict[str, str]:
    """Of a header's metadata what may be passed on, cleaned."""
    lines = {key: one_line(text) for key in TOLD if (text := metadata.get(key))}
    if DESCRIPTION in lines:
        lines[DESCRIPTION] = one_line(without_markup(metadata[DESCRIPTION]))
    return {key: line for key, line in lines.items() if line}


def notes_of(file: Path, told: dict[str, str]) -> Notes:
    """What is written beside a file, and what its header says, cleaned before. Blocks."""
    return Notes(told, _beside(file.with_suffix(".json")), _beside(file.with_suffix(".civitai.info")))


def picture_beside(file: Path) -> Path | None:
    """The preview picture of a LoRA, or None. Blocks."""
    return next((found for suffix in PICTURES if (found := file.with_suffix(suffix)).is_file()), None)


def _beside(file: Path) -> Beside:
    try:
        there = file.stat()
    except OSError:
        return Beside()
    if there.st_size > NOTES_MOST_BYTES or not S_ISREG(there.st_mode):
        return Beside()
    return _read(file, there.st_mtime_ns, there.st_size)


@lru_cache(maxsize=4096)
def _read(file: Path, _changed_ns: int, _size: int) -> Beside:
    """Source: A1111's keys, then Civitai's."""
    try:
        found = json.loads(read_file(file, NOTES_MOST_BYTES))
    except (OSError, ValueError, RecursionError):
        found = None
    if not isinstance(found, dict):
        return Beside()
    model, trained, text = found.get("model"), found.get("trainedWords"), found.get("description")
    return Beside(
        activation_text=one_line(found.get("activation text")),
        words=tuple(map(one_line, trained[:WORDS_MOST])) if isinstance(trained, list) else (),
        base_model=one_line(found.get("baseModel")) or one_line(found.get("sd version")),
        title=one_line(model.get("name")) if isinstance(model, dict) else "",
        description=one_line(without_markup(text)) if isinstance(text, str) else "",
        scale=number(found.get("preferred weight")) or None,
    )


def _single_words(texts: Iterable[str]) -> tuple[str, ...]:
    """The words of all texts, each once, as far as they are let."""
    found: dict[str, None] = {}
    chars = 0
    for word in filter(None, (word.strip() for text in texts for word in text.split(","))):
        chars += 0 if word in found else len(word)
        if chars > WORDS_CHARS or len(found) == WORDS_MOST:
            break
        found[word] = None
    return tuple(found)
