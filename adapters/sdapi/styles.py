"""Prompt styles from the operator's file: A1111's CSV, or YAML. Reads that file."""

from __future__ import annotations

import asyncio
import csv
import io
import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TypeVar

from adapters.sdapi.request_schemas import Generation
from adapters.shared.body import PROMPT_CHARS
from gateway.clean_text import one_line, whole
from gateway.disk import opened_file
from gateway.errors import InvalidRequest, clip
from gateway.jobs.resolve import Adjustment

log = logging.getLogger("adapters.sdapi")

T = TypeVar("T", bound=Generation)

MOST_BYTES = 1024 * 1024
STYLES_MOST = 64
"""The most styles of one request."""
PLACE = "{prompt}"
"""The place of the prompt in a style's text; without it the style follows the prompt."""


@dataclass(frozen=True, slots=True)
class Style:
    name: str
    prompt: str = ""
    negative_prompt: str = ""


def styles_of(file: Path | None) -> tuple[Style, ...]:
    """All styles of the file, none where it cannot be read. It is read again where it has changed. Blocks.

    CSV has the columns name, prompt and negative_prompt (or text, as A1111 once wrote); YAML is a list of such rows.
    Source: A1111 1.10.1 modules/styles.py.
    """
    if file is None:
        return ()
    try:
        stat = file.stat()
    except OSError:
        log.warning("the styles file cannot be read", exc_info=True)
        return ()
    return _read(file, stat.st_mtime_ns, stat.st_size)


@lru_cache(maxsize=1)
def _read(file: Path, _changed_ns: int, _size: int) -> tuple[Style, ...]:
    import yaml

    try:
        with opened_file(file) as opened:
            text = opened.read(MOST_BYTES).decode("utf-8-sig", "ignore")
        is_yaml = file.suffix.lower() in (".yaml", ".yml")
        rows = yaml.safe_load(text) if is_yaml else list(csv.DictReader(io.StringIO(text)))
        return tuple(_style(row) for row in rows or () if _text(row, "name"))
    except (OSError, ValueError, AttributeError, TypeError, RecursionError, csv.Error, yaml.YAMLError):
        log.warning("the styles file cannot be read", exc_info=True)
        return ()


def _style(row: Mapping[str, object]) -> Style:
    return Style(
        name=one_line(_text(row, "name")),
        prompt=_text(row, "prompt") or _text(row, "text"),
        negative_prompt=_text(row, "negative_prompt"),
    )


def _text(row: Mapping[str, object], column: str) -> str:
    """The text or number of a column as text; no list, which YAML's aliases can make endless."""
    value = row.get(column)
    return whole(str(value))[:PROMPT_CHARS] if isinstance(value, str | int | float) and value else ""


def merge(text: str, styles: Iterable[str]) -> str:
    """The prompt with its styles around it or after it. Source: A1111 1.10.1 modules/styles.py merge_prompts.

    Raises: InvalidRequest where the result is too long.
    """
    most = 2 * PROMPT_CHARS + len(text)
    for style in styles:
        if len(style) + len(text) * max(1, style.count(PLACE)) > most:
            raise InvalidRequest("With its styles the prompt is too long.", param="styles")
        if PLACE in style:
            text = style.replace(PLACE, text)
        else:
            text = ", ".join(part for part in (text.strip(), style.strip()) if part)
    return text


async def apply(file: Path | None, body: T) -> tuple[T, tuple[Adjustment, ...]]:
    """The body with its styles in the prompts, and adjustments for unknown styles. Raises: InvalidRequest."""
    return with_styles(body, await asyncio.to_thread(styles_of, file) if body.styles else ())


def with_styles(body: T, styles: Sequence[Style]) -> tuple[T, tuple[Adjustment, ...]]:
    """As `apply`, with these styles."""
    if len(body.styles) > STYLES_MOST:
        raise InvalidRequest(f"At most {STYLES_MOST} styles can be named.", param="styles")
    by_name = {style.name: style for style in styles}
    chosen = [by_name[name] for name in body.styles if name in by_name]
    missing = [name for name in body.styles if name not in by_name and name.lower() not in ("", "none")]
    update = {
        "prompt": merge(body.prompt, [style.prompt for style in chosen]),
        "negative_prompt": merge(body.negative_prompt, [style.negative_prompt for style in chosen]),
    }
    adjustments = tuple(
        Adjustment(param="styles", asked=clip(name), used=None, reason="there is no such style") for name in missing[:8]
    )
    return (body.model_copy(update=update) if chosen else body), adjustments
