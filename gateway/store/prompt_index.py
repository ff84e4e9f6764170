"""Prompt index: which prompts may contain given words, in a file of its own beside the job database.

The file can be rebuilt from the database: one that is damaged, or that belongs to another database, is removed. It
holds trigrams, by SQLite's FTS5; without that extension, and for words of one or two characters, there is no answer
and the prompts are read one by one. Every method blocks.
"""

from __future__ import annotations

import hashlib
import logging
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from gateway.private_files import private_file

log = logging.getLogger("gateway.store")

NAME = "search.sqlite3"
VERSION = 1
TABLES = f"""
CREATE VIRTUAL TABLE prompts USING fts5(text, content='', columnsize=0, detail=none, tokenize='trigram');
CREATE TABLE last (number INTEGER NOT NULL, id TEXT NOT NULL, count INTEGER NOT NULL);
INSERT INTO last VALUES (0, '', 0);
PRAGMA user_version={VERSION};
"""
TRIGRAMS_MOST = 24
"""Trigrams of a search: with more, hardly a prompt less is read."""
PRIVATE_USE = range(0xE000, 0xF900)
"""Characters that stand for an owner: no prompt has three of them in a row except by accident."""


@dataclass(frozen=True, slots=True)
class IndexedPrompt:
    """The prompt of a job, with the job's number and its owner."""

    number: int
    job_id: str
    owner: str
    text: str


@dataclass(frozen=True, slots=True)
class LastIndexed:
    """The newest job that was added, and how many were."""

    number: int = 0
    job_id: str = ""
    count: int = 0


class IndexUnusable(Exception):
    """The index cannot answer: the prompts must be read one by one."""


class PromptIndex:
    """The prompt index of a data folder."""

    def __init__(self, folder: Path) -> None:
        self._file = folder / NAME
        self._is_available = True

    def last(self) -> LastIndexed:
        """The newest job of the index. Raises: IndexUnusable."""
        with self._opened() as db, self._guarded():
            return _last(db)

    def add(self, prompts: Sequence[IndexedPrompt]) -> None:
        """Add the prompts of jobs in order of their numbers, each greater than all before. Raises: IndexUnusable."""
        texts = [(one.number, f"{_plain(one.text)}\n{_mark(one.owner)}") for one in prompts]
        last = prompts[-1]
        with self._opened() as db, self._guarded():
            db.execute("BEGIN IMMEDIATE")
            db.executemany("INSERT INTO prompts (rowid, text) VALUES (?, ?)", texts)
            new = (last.number, last.job_id, len(prompts))
            db.execute("UPDATE last SET number = ?, id = ?, count = count + ?", new)
            db.execute("COMMIT")

    @contextmanager
    def matches(
        self, owner: str, words: Sequence[str], before: int | None
    ) -> Iterator[tuple[LastIndexed, Iterator[int]]]:
        """Numbers of jobs whose prompts may have all of the words, greatest first, among those up to the last one.

        Raises: IndexUnusable, also while the numbers are read.
        """
        trigrams = [word[at : at + 3] for word in map(_plain, words) for at in range(len(word) - 2)]
        if not trigrams:
            raise IndexUnusable
        step = -(-len(trigrams) // TRIGRAMS_MOST)
        terms = " AND ".join('"' + text.replace('"', '""') + '"' for text in [_mark(owner), *trigrams[::step]])
        query = "SELECT rowid FROM prompts WHERE prompts MATCH ? AND rowid < ? ORDER BY rowid DESC"
        with self._opened() as db:
            with self._guarded():
                db.execute("BEGIN")  # one snapshot: prompts may be added meanwhile
                last = _last(db)
                rows = db.execute(query, (terms, 2**62 if before is None else before))
            yield last, self._numbers(rows)

    def _numbers(self, rows: Iterator[tuple[int]]) -> Iterator[int]:
        with self._guarded():
            for row in rows:
                yield row[0]

    def remove(self) -> None:
        """Remove the file: all prompts must be added again."""
        for end in ("", "-wal", "-shm"):
            with suppress(OSError):
                self._file.with_name(self._file.name + end).unlink(missing_ok=True)

    @contextmanager
    def _opened(self) -> Iterator[sqlite3.Connection]:
        """The open file. Raises: IndexUnusable."""
        if not self._is_available:
            raise IndexUnusable
        with self._guarded():
            private_file(self._file)
            db = sqlite3.connect(self._file, isolation_level=None)
        with closing(db):
            with self._guarded():
                db.execute("PRAGMA journal_mode=WAL")
                db.execute("PRAGMA synchronous=NORMAL")
                if db.execute("PRAGMA user_version").fetchone()[0] != VERSION:
                    db.executescript(f"BEGIN IMMEDIATE;{TABLES}COMMIT;")
            yield db

    @contextmanager
    def _guarded(self) -> Iterator[None]:
        """Statements on the file, which is removed where it cannot be used. Raises: IndexUnusable."""
        try:
            yield
        except (sqlite3.Error, OSError, TypeError) as error:
            self._is_available = not str(error).startswith(("no such module", "no such tokenizer"))
            log.warning("the index of prompts cannot be used: %s", error)
            self.remove()
            raise IndexUnusable from error


def _last(db: sqlite3.Connection) -> LastIndexed:
    return LastIndexed(*db.execute("SELECT number, id, count FROM last").fetchone())


def _plain(text: str) -> str:
    """Text that SQLite can store, in lower case where it is ASCII."""
    return text.encode("utf-8", "replace").lower().replace(b"\0", b" ").decode()


def _mark(owner: str) -> str:
    """Three characters that stand for an owner."""
    digest = int.from_bytes(hashlib.sha256(owner.encode("utf-8", "surrogateescape")).digest()[:8])
    base = len(PRIVATE_USE)
    return "".join(chr(PRIVATE_USE[digest // base**at % base]) for at in range(3))
