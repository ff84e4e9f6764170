"""Checks of settings against each other and the catalogue. Every error names the key."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

from engine.catalog import CATALOG
from gateway import errors


def clip(text: str) -> str:
    """At most 64 printable characters of a text from a person or a file."""
    return errors.clip(text.encode("unicode_escape").decode())


def check_model(key: str, name: str, known: set[str]) -> None:
    """Raises: ValueError if there is no such model."""
    if name in known:
        return
    why = next((spec.unavailable for spec in CATALOG if spec.name == name and spec.unavailable), None)
    if why is not None:
        raise ValueError(f"{key}: {why}")
    near = difflib.get_close_matches(name, sorted(known), n=1, cutoff=0.4)
    hint = f"; did you mean {near[0]}?" if near else ""
    raise ValueError(f"{key}: there is no model {clip(name)}{hint}")


def check_commits(entries: Iterable[tuple[str, str, str | None]]) -> None:
    """Entries are (key, repository, commit). Raises: ValueError if one repository has two commits."""
    commits = {spec.repo: spec.revision for spec in CATALOG if spec.repo and spec.revision}
    for key, repo, revision in entries:
        if revision is not None and commits.setdefault(repo, revision) != revision:
            raise ValueError(f"{clip(key)}.revision: another model or LoRA takes {repo} at {commits[repo]}")
