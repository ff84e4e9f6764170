"""What a model's repository must hold: weights under every name that is asked for, every shard, and its tokenizers.

Configurations are not among it: mflux knows the geometry itself, and repositories differ in them.
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection
from fnmatch import fnmatch
from functools import lru_cache
from pathlib import Path, PurePosixPath

from gateway.disk import read_file
from gateway.models.listing import listing_of

INDEX = ".safetensors.index.json"
INDEX_MOST_BYTES = 64 * 2**20
SHARD = re.compile(r"((?:[^-\n]|-(?!\d{5}-of-\d{5}\.safetensors\Z))*+)-(\d{5})-of-(\d{5})(\.safetensors)")
_TOKENIZER = re.compile(r"(?:^|/)(?:tokenizer|processor|spiece|vocab|merges)")
"""In a pattern: files that a tokenizer is made of, or the folder of one."""


def missing(names: Collection[str], patterns: Collection[str]) -> str | None:
    """What of what the patterns ask for is not among the files, in words; None: nothing.

    A tokenizer is there where one of its files is: which ones it has differs between repositories.
    """
    if (lack := missing_weights(names, patterns)) is not None:
        return lack
    for group in _tokenizers(patterns):
        if not any(some(names, pattern) for pattern in group):
            return f"a tokenizer named {group[0]}"
    return None


def missing_weights(names: Collection[str], patterns: Collection[str]) -> str | None:
    """As `missing`, of the weights alone."""
    for pattern in patterns:
        if pattern.endswith(".safetensors") and not some(names, pattern):
            return f"weights named {pattern}"
    return _missing_shard(names)


def missing_of_index(index: str, names: Collection[str], shards: Collection[str]) -> str | None:
    """What shard an index names that is not among the files. An index that names none of them is of other files."""
    folder = PurePosixPath(index).parent
    shards = {(folder / name).as_posix() for name in shards}
    absent = sorted(shards - set(names))
    return f"{absent[0]}, which {index} names" if absent and len(absent) < len(shards) else None


def shards_in(index: bytes) -> frozenset[str]:
    """The files that an index of shards names; none of one that cannot be read."""
    try:
        named = json.loads(index)["weight_map"].values()
        return frozenset(name for name in named if isinstance(name, str))
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return frozenset()


def missing_in(folder: Path, patterns: Collection[str]) -> str | None:
    """As `missing`, of what the patterns ask for in a folder, with what its indices name; a link to nothing is not
    there.
    """
    listing = listing_of(folder)
    files = () if listing is None else listing.files
    names = frozenset(name for name in files if not patterns or some([name], *patterns))
    found = missing(names, patterns)
    indices = (name for name in sorted(names) if found is None and name.endswith(INDEX))
    return found or next((lack for name in indices if (lack := _of_index_in(folder, name, names))), None)


def _of_index_in(folder: Path, index: str, names: frozenset[str]) -> str | None:
    stat = (folder / index).stat()
    return missing_of_index(index, names, _shards_of(folder / index, stat.st_mtime_ns, stat.st_size))


@lru_cache(maxsize=512)
def _shards_of(index: Path, _changed_ns: int, _size: int) -> frozenset[str]:
    try:
        return shards_in(read_file(index, INDEX_MOST_BYTES))
    except OSError:
        return frozenset()


def _tokenizers(patterns: Collection[str]) -> list[list[str]]:
    """The patterns of each tokenizer, by the folder that it lies in."""
    groups: dict[str, list[str]] = {}
    for pattern in patterns:
        if _TOKENIZER.search(pattern) and not pattern.endswith(".safetensors"):
            groups.setdefault(pattern.rpartition("/")[0], []).append(pattern)
    return list(groups.values())


def _missing_shard(names: Collection[str]) -> str | None:
    """`model-00001-of-00003.safetensors` says that there are two more."""
    have = set(names)
    for name in sorted(have):
        if (shard := SHARD.fullmatch(name)) is None:
            continue
        stem, _, count, suffix = shard.groups()
        every = (f"{stem}-{number:05}-of-{count}{suffix}" for number in range(1, int(count) + 1))
        if (absent := next((one for one in every if one not in have), None)) is not None:
            return absent
    return None


def some(names: Collection[str], *patterns: str) -> bool:
    return any(fnmatch(name, pattern) for name in names for pattern in patterns)
