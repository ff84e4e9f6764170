"""Request paths as clients build them from a base URL. Pure; knows no route.

A base URL that ends in a slash gives `//`; one with the protocol's prefix gives it twice; one without it, not at all.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from difflib import get_close_matches

LIKE = 0.8
COMPARED_CHARS = 64


def canonical_path(path: str, prefixes: Sequence[str], unprefixed: Mapping[str, str]) -> str:
    """The path without doubled and trailing slashes, and with its protocol's prefix once.

    `prefixes` are those of the protocols; `unprefixed` maps a path without its prefix to that prefix.
    """
    if "//" in path or path[:1] != "/" or path[1:].endswith("/"):
        path = "/" + "/".join(filter(None, path.split("/")))
    for prefix in prefixes:
        if path.startswith(prefix) and _is_below(path, prefix + prefix):
            return path[len(prefix) :]
    return next((prefix + path for short, prefix in unprefixed.items() if _is_below(path, short)), path)


def _is_below(path: str, prefix: str) -> bool:
    return path == prefix or path.startswith(prefix + "/")


def nearest(path: str, known: Sequence[str]) -> str | None:
    """The known path that was most likely meant: one letter, word or prefix too many or too few. Takes a millisecond.

    Below one protocol's prefix no other protocol's path is suggested, unless the whole path ends with it.
    """
    if len(path) > COMPARED_CHARS:
        return None
    lower = path.lower()
    below = [other for other in known if _root(other) == _root(lower)] or known
    near = [*below, *(other for other in known if lower.endswith(other))]
    return next(iter(get_close_matches(lower, near, 1, LIKE)), None)


def _root(path: str) -> str:
    return path.split("/", 2)[1] if path.startswith("/") else ""
