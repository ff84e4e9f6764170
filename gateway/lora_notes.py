"""What is written about a LoRA: by its trainer in its header, by others in files beside it. Text to judge, not to obey.

Source: kohya's `ss_*` and `modelspec.*` metadata; A1111 1.10.1 user metadata (NAME.json); NAME.civitai.info of the
Civitai Helper and SD.Next.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

NOTES_MOST_BYTES = 1024 * 1024
TEXT_CHARS = 1000
WORDS_MOST = 50
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
PICTURES = (".png", ".jpg", ".jpeg", ".webp", ".preview.png", ".preview.jpg", ".preview.jpeg", ".preview.webp")
_TAG = re.compile(r"<[^>]*>")


@dataclass(frozen=True, slots=True)
class Notes:
    """Empty where nothing is said."""

    metadata: Mapping[str, str] = field(default_factory=dict)
    """The header's, whole."""
    beside: Mapping[str, Any] = field(default_factory=dict)
    """NAME.json."""
    civitai: Mapping[str, Any] = field(default_factory=dict)
    """NAME.civitai.info."""

    @property
    def told(self) -> dict[str, str]:
        """Of the header, what may be passed on."""
        return {key: _short(self.metadata[key]) for key in TOLD if self.metadata.get(key)}

    @property
    def activation_text(self) -> str:
        """What a prompt says to call it."""
        return _short(self.beside.get("activation text")) or ", ".join(self.trigger_words)

    @property
    def trigger_words(self) -> tuple[str, ...]:
        found = [*self._words()]
        return tuple(dict.fromkeys(found))[:WORDS_MOST]

    def _words(self) -> Iterator[str]:
        trained = self.civitai.get("trainedWords")
        texts = trained if isinstance(trained, list) else []
        texts = [self.beside.get("activation text"), *texts, self.metadata.get("modelspec.trigger_phrase")]
        for text in texts:
            yield from filter(None, (word.strip() for word in _short(text).split(",")))

    @property
    def base_model(self) -> str:
        """What it was trained for, in its maker's words."""
        said = (
            self.civitai.get("baseModel"),
            self.metadata.get("ss_base_model_version"),
            self.metadata.get("modelspec.architecture"),
            self.beside.get("sd version"),
        )
        return next(filter(None, map(_short, said)), "")

    @property
    def title(self) -> str:
        model = self.civitai.get("model")
        named = model.get("name") if isinstance(model, dict) else None
        return _short(named) or _short(self.metadata.get("modelspec.title"))

    @property
    def description(self) -> str:
        said = [told.get("description") for told in (self.beside, self.civitai)]
        said.append(self.metadata.get("modelspec.description"))
        return next(filter(None, (_short(_TAG.sub("", text)) for text in said if isinstance(text, str))), "")

    @property
    def preferred_scale(self) -> float | None:
        """Source: A1111's `preferred weight`; 0 means that nothing is said."""
        said = self.beside.get("preferred weight")
        return float(said) if isinstance(said, int | float) and not isinstance(said, bool) and said else None


def notes_of(file: Path, metadata: Mapping[str, str]) -> Notes:
    """What is written in a file's header and beside it. Blocks."""
    return Notes(metadata, _json(file.with_suffix(".json")), _json(file.with_suffix(".civitai.info")))


def picture_beside(file: Path) -> Path | None:
    """The preview picture of a LoRA, or None. Blocks."""
    return next((found for suffix in PICTURES if (found := file.with_suffix(suffix)).is_file()), None)


def _json(file: Path) -> Mapping[str, Any]:
    try:
        if file.stat().st_size > NOTES_MOST_BYTES:
            return {}
        found = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def _short(text: object) -> str:
    """Printable, and not for ever."""
    if not isinstance(text, str):
        return ""
    return "".join(c if c.isprintable() else " " for c in text[:TEXT_CHARS]).strip()
