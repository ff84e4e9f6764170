"""LoRA metadata: what its trainer wrote into the header, and others into files beside it. Untrusted text.

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

from gateway.clean_text import number, one_line, without_markup
from gateway.disk import read_file

NOTES_MOST_BYTES = 1024 * 1024
ALIAS_CHARS = 200
WORDS_MOST = 50
WORDS_CHARS = 8192
"""Characters of all trigger words together."""
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
"""Header keys that are passed on: other keys may contain folder names of the trainer's machine."""
DESCRIPTION = "modelspec.description"
PICTURES = (".png", ".jpg", ".jpeg", ".webp", ".preview.png", ".preview.jpg", ".preview.jpeg", ".preview.webp")


@dataclass(frozen=True, slots=True)
class Beside:
    """Metadata from one file beside a LoRA, cleaned; fields are empty if missing."""

    activation_text: str = ""
    words: tuple[str, ...] = ()
    """Trigger words as written: each may hold several, separated by commas."""
    base_model: str = ""
    title: str = ""
    description: str = ""
    scale: float | None = None


@dataclass(frozen=True, slots=True)
class Notes:
    """Metadata of a LoRA; fields are empty if missing."""

    metadata: dict[str, str] = field(default_factory=dict)
    """Metadata of the header that may be passed on, from `public_metadata`."""
    user: Beside = Beside()
    """From NAME.json."""
    civitai: Beside = Beside()
    """From NAME.civitai.info."""

    @property
    def alias(self) -> str:
        """The name that its trainer gave it; empty if none."""
        return self.metadata.get("ss_output_name", "")[:ALIAS_CHARS]

    @property
    def activation_text(self) -> str:
        """Text for a prompt that activates the LoRA."""
        return self.user.activation_text or ", ".join(self.trigger_words)

    @property
    def trigger_words(self) -> tuple[str, ...]:
        texts = (self.user.activation_text, *self.user.words, *self.civitai.words)
        return _single_words((*texts, self.metadata.get("modelspec.trigger_phrase", "")))

    @property
    def base_model(self) -> str:
        """The model it was trained for, as its maker calls it."""
        texts = (
            self.civitai.base_model,
            self.metadata.get("ss_base_model_version", ""),
            self.metadata.get("modelspec.architecture", ""),
            self.user.base_model,
        )
        return next(filter(None, texts), "")

    @property
    def title(self) -> str:
        return self.civitai.title or self.metadata.get("modelspec.title", "")

    @property
    def description(self) -> str:
        return self.user.description or self.civitai.description or self.metadata.get(DESCRIPTION, "")

    @property
    def preferred_scale(self) -> float | None:
        """Preferred scale. Source: A1111's `preferred weight`; 0 means none."""
        return self.user.scale


def public_metadata(metadata: Mapping[str, str]) -> dict[str, str]:
    """Metadata of a header that may be passed on, cleaned."""
    lines = {key: one_line(text) for key in TOLD if (text := metadata.get(key))}
    if DESCRIPTION in lines:
        lines[DESCRIPTION] = one_line(without_markup(metadata[DESCRIPTION]))
    return {key: line for key, line in lines.items() if line}


def notes_of(file: Path, metadata: dict[str, str]) -> Notes:
    """Metadata of the files beside a LoRA and of its header, which is already cleaned. Blocks."""
    return Notes(metadata, _beside(file.with_suffix(".json")), _beside(file.with_suffix(".civitai.info")))


def image_beside(file: Path) -> Path | None:
    """The preview image of a LoRA, or None. Blocks."""
    return next((image for suffix in PICTURES if (image := file.with_suffix(suffix)).is_file()), None)


def _beside(file: Path) -> Beside:
    try:
        status = file.stat()
    except OSError:
        return Beside()
    if status.st_size > NOTES_MOST_BYTES or not S_ISREG(status.st_mode):
        return Beside()
    return _read(file, status.st_mtime_ns, status.st_size)


@lru_cache(maxsize=4096)
def _read(file: Path, _changed_ns: int, _size: int) -> Beside:
    """Metadata in a JSON file. Source: A1111's keys, then Civitai's."""
    try:
        content = json.loads(read_file(file, NOTES_MOST_BYTES))
    except (OSError, ValueError, RecursionError):
        content = None
    if not isinstance(content, dict):
        return Beside()
    model, trained, text = content.get("model"), content.get("trainedWords"), content.get("description")
    return Beside(
        activation_text=one_line(content.get("activation text")),
        words=tuple(map(one_line, trained[:WORDS_MOST])) if isinstance(trained, list) else (),
        base_model=one_line(content.get("baseModel")) or one_line(content.get("sd version")),
        title=one_line(model.get("name")) if isinstance(model, dict) else "",
        description=one_line(without_markup(text)) if isinstance(text, str) else "",
        scale=number(content.get("preferred weight")) or None,
    )


def _single_words(texts: Iterable[str]) -> tuple[str, ...]:
    """The words of all texts, each once, within the bounds."""
    words: dict[str, None] = {}
    chars = 0
    for word in filter(None, (word.strip() for text in texts for word in text.split(","))):
        chars += 0 if word in words else len(word)
        if chars > WORDS_CHARS or len(words) == WORDS_MOST:
            break
        words[word] = None
    return tuple(words)
