"""Quality of OCR: uv run --group bench python -m benchmarks.ocr_quality [--against FOLDER]

Character error rate and reading order on sixty rendered pages (`ocr_pages` names their fonts), read by the real OCR
child, and by that of another checkout. The error rate is that of the whole text, with spaces and line ends, so wrong
order counts too. Order is the share of words that come in order, among those that are on the page once and were found.
Lines in unknown scripts should give no text, and be reported as unread.
"""

from __future__ import annotations

import argparse
import bisect
import json
import re
import subprocess
import sys
import time
from collections import Counter
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, BinaryIO, cast

from rapidfuzz.distance import Levenshtein

from benchmarks.ocr_pages import KINDS, Page, pages
from gateway.framing import framed, read_frame
from tests.support.live import ROOT

UNKNOWN = "unknown script"
LEADERS = re.compile(r"[.…·]{2,}")
"""Leader dots before a price: their number does not count."""


@dataclass(frozen=True, slots=True)
class Read:
    """Result of one page. `errors` of `letters` are edits, `ordered` of `words` are in order."""

    root: str
    name: str
    kind: str
    letters: int
    errors: int
    words: int
    ordered: int
    foreign: int
    said: int
    """Lines that were reported as unread."""
    seconds: float


class Child:
    """The OCR child of a checkout."""

    def __init__(self, root: Path) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "gateway.ocr.child", "--threads", "1"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            cwd=root,
        )

    def read(self, png: bytes) -> dict[str, Any]:
        """The fact PageRead. Raises: SystemExit."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        asked = json.dumps({"kind": "read", "pages": [], "dpi": 200, "first": 0}).encode()
        self.process.stdin.write(framed(asked) + framed(png))
        self.process.stdin.flush()
        while (frame := read_frame(cast(BinaryIO, self.process.stdout))) is not None:
            answer: dict[str, Any] = json.loads(frame)
            if answer["kind"] == "page_read":
                return answer
        raise SystemExit("the OCR child stopped")

    def close(self) -> None:
        self.process.kill()
        self.process.communicate()


def measured(root: str, page: Page, answer: dict[str, Any], seconds: float) -> Read:
    came = " ".join(line["text"] for line in answer["lines"])
    right, got = (LEADERS.sub(" ", text).split() for text in (page.text, came))
    wanted = " ".join(right)
    words, ordered = in_order(right, got)
    return Read(
        root=root,
        name=page.name,
        kind=page.kind,
        letters=len(wanted),
        errors=Levenshtein.distance(wanted, " ".join(got)),
        words=words,
        ordered=ordered,
        foreign=page.foreign,
        said=len(answer.get("unread", ())),
        seconds=round(seconds, 2),
    )


def in_order(right: list[str], got: list[str]) -> tuple[int, int]:
    """Number of words that both texts have once, and of those that are in the same order."""
    once, came = Counter(right), Counter(got)
    place = {word: n for n, word in enumerate(got) if came[word] == 1}
    places = [place[word] for word in right if once[word] == 1 and word in place]
    ends: list[int] = []
    for at in places:  # the longest increasing subsequence
        n = bisect.bisect_left(ends, at)
        ends[n : n + 1] = [at]
    return len(places), len(ends)


def table_of(found: list[Read], roots: list[str]) -> str:
    """One row for each kind, and for all; two columns for each checkout, and the time of a page."""
    lines = ["| pages | " + " | ".join(f"{root}: errors | order | s a page" for root in roots) + " |"]
    lines.append("|---" * (1 + 3 * len(roots)) + "|")
    for title in (*KINDS, "all but unknown"):
        cells = []
        for root in roots:
            rows = [
                row
                for row in found
                if row.root == root and (row.kind == title or (title not in KINDS and row.kind != UNKNOWN))
            ]
            letters, words = sum(row.letters for row in rows), sum(row.words for row in rows)
            errors = 100 * sum(row.errors for row in rows) / max(1, letters)
            order = "" if not words else f"{100 * sum(row.ordered for row in rows) / words:.1f} %"
            seconds = sum(row.seconds for row in rows) / max(1, len(rows))
            cells.append(f"{errors:.1f} % | {order} | {seconds:.1f}")
        lines.append(f"| {title} | " + " | ".join(cells) + " |")
    for root in roots:
        rows = [row for row in found if row.root == root and row.kind == UNKNOWN]
        said, foreign = sum(min(row.said, row.foreign) for row in rows), sum(row.foreign for row in rows)
        known = sum(row.said for row in found if row.root == root and row.kind != UNKNOWN)
        lines.append(
            f"{root}: {said} of {foreign} lines in unknown scripts were told as unread, and {known} of the others"
        )
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--against", type=Path, metavar="FOLDER", help="another checkout, read first")
    parser.add_argument("--kind", choices=list(KINDS), action="append", help="only this kind; may come again")
    parser.add_argument("--results", type=Path, metavar="FILE", help="rows are added there, and not measured again")
    parser.add_argument("--show", action="store_true", help="print what was read, too")
    parser.add_argument(
        "--only", choices=["before", "after"], help="measure only this; the other is in FILE, or left out"
    )
    said = parser.parse_args()
    roots = {"after" if said.against else "now": ROOT}
    if said.against:
        roots = {"before": said.against.resolve(), **roots}
    found: list[Read] = []
    if said.results is not None and said.results.exists():
        found = [Read(**json.loads(line)) for line in said.results.read_text().splitlines()]
    wanted = [page for page in pages() if not said.kind or page.kind in said.kind]
    for name, root in roots.items():
        if said.only not in (None, name):
            continue
        done = {row.name for row in found if row.root == name}
        child = Child(root)
        try:
            child.read(wanted[0].png)  # loads the models
            for page in wanted:
                if page.name in done:
                    continue
                began = time.perf_counter()
                answer = child.read(page.png)
                row = measured(name, page, answer, time.perf_counter() - began)
                found.append(row)
                if said.results is not None:
                    with said.results.open("a") as file:
                        file.write(json.dumps(asdict(row)) + "\n")
                print(f"{name}: {page.name}, {row.errors} of {row.letters} wrong, {row.seconds} s", file=sys.stderr)
                if said.show:
                    print("\n".join(line["text"] for line in answer["lines"]), file=sys.stderr)
        finally:
            child.close()
    print(table_of(found, list(roots)))


if __name__ == "__main__":
    main()
