"""Request paths as clients join them from a base URL. Pure; knows no route.

A base URL that ends in a slash makes `//`; one that holds the prefix already makes it twice; one without it, none.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence


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
