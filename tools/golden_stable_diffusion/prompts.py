"""Golden schedules of prompts: python -m tools.golden_stable_diffusion.prompts, with lark 1.1.2 and nothing else.

Prompts at random, and some by hand, are parsed by a grammar equivalent to that of A1111 1.10.1
(modules/prompt_parser.py) with the version of lark that A1111 pins. That parser resolves ambiguities by the order of
hashed sets, so each prompt is parsed in several processes with other hash seeds; all results are kept.
"""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

GOLDEN = Path(__file__).parents[2] / "tests" / "golden" / "stable_diffusion" / "prompt_schedules.json"
HASH_SEEDS = range(1, 11)
STEPS = 6
SEED = 21
RANDOM = 160
UNITS = ("a", "b", "[", "]", "(", ")", ":", "|", ":2]", ":0.5]", ":1.5]", ":8]", " ", "\\", "\n", "[a", "a:3]", "|b]")
UNITS += (":-1]", ": 1e0 ]", "[a|", "[b:", "(a:1.2)", "::3]", ":.5]", ":4.]")
WORDS = ("a", "b ", " c", "", "d, e", "\\(f\\)")
NUMBERS = ("2", "0.5", "1.5", "8", " 3 ", ".25", "1.", "-1", "0", "1e0", "x")
BY_HAND = (
    "test",
    "a [b:3]",
    "a [b: 3]",
    "a [[[b]]:2]",
    "[(a:2):3]",
    "a [b : c : 1] d",
    "a[b:[c:d:2]:1]e",
    "a [unbalanced",
    "a [b:.5] c",
    "((a][:b:c [d:3]",
    "[a|(b:1.1)]",
    "[fe|]male",
    "[fe|||]male",
    "[a|b|[c|d]]",
    "[a|b:0.5]",
    "a | b",
    "a \\",
    "\\[a:b:0.5\\]",
    "[a::0.5] [:b:0.5]",
    "[a:b:1.5] [c:d:8] [e:f:1.0] [g:h:2.0]",
    "[a:b:-1] [c:d:0] [e:f:100]",
    "[a:b:1e1] [c:d:1.0e-1]",
    "(a:b:c) [d:e:f:g] [h:i:2]",
    "fantasy [mountain:lake:0.25] and [an oak:a christmas tree:0.75][ in foreground::0.6][: behind:0.25] [x:y:0.5]",
)
PASSES: tuple[tuple[int | None, bool], ...] = ((None, False), (STEPS, False), (4, False), (None, True), (4, True))
"""Steps of the second pass, and whether numbers have their old meaning."""
GRAMMAR = r"""
!start: (text | /[][():]/+)*
text: (bracket | edited | alternating | literal | BLANK)*
!bracket: "(" text ")" | "(" text ":" text ")" | "[" text "]"
edited: "[" [text ":"] text ":" [BLANK] NUMBER [BLANK] "]"
alternating: "[" text ("|" [text])+ "]"
BLANK: /\s+/
literal: /([^\\\[\]():|]|\\.)+/
%import common.SIGNED_NUMBER -> NUMBER
"""

Schedule = list[tuple[int, str]]


def prompts() -> list[str]:
    generator = random.Random(SEED)
    noise = ("".join(generator.choices(UNITS, k=generator.randint(2, 12))) for _ in range(RANDOM))
    formed = (_formed(generator, 3) for _ in range(RANDOM))
    return list(dict.fromkeys((*BY_HAND, *noise, *formed)))


def _formed(generator: random.Random, depth: int) -> str:
    """A mostly well-formed prompt of nested brackets."""
    if depth == 0:
        return generator.choice(WORDS)
    parts = [_formed(generator, depth - 1) for _ in range(3)]
    number = generator.choice(NUMBERS)
    forms = ("{0}{1}", "[{0}:{1}:{n}]", "[{0}:{n}]", "[{0}::{n}]", "[{0}|{1}]", "[{0}|{1}|{2}]", "({0})", "[{0}]")
    forms += ("({0}:1.2)", "{0} [{1}:{2}", "[{0}:{1}:{2}:{n}]", "{0}[:{1}:{n}]")
    return generator.choice(forms).format(*parts, n=number)


def schedules(texts: Sequence[str]) -> list[list[Schedule]]:
    """For each text its schedule in each of PASSES, by lark."""
    import lark

    parser = lark.Lark(GRAMMAR)
    found = []
    for text in texts:
        try:
            tree = parser.parse(text)
        except lark.exceptions.LarkError:
            tree = None
        found.append([_schedule(text, tree, hires_steps, old) for hires_steps, old in PASSES])
    return found


def _schedule(text: str, tree: Any, hires_steps: int | None, old: bool) -> Schedule:
    second = hires_steps is not None and not old
    last = hires_steps if second and hires_steps is not None else STEPS
    if tree is None:
        return [(last, text)]
    ends = {last}

    def change(number: str) -> int:
        value = float(number)
        if old:
            value = value * last if value < 1 else value
        elif "." in number:
            value = (value - second) * last
        else:
            value -= STEPS * second
        return min(last, int(value))

    for node in tree.iter_subtrees():
        if node.data == "edited" and change(node.children[-2]) >= 1:
            ends.add(change(node.children[-2]))
        elif node.data == "alternating":
            ends.update(range(1, last + 1))

    def read(node: Any, step: int) -> str:
        if node is None:
            return ""
        if isinstance(node, str):
            return str(node)
        if node.data == "edited":
            before, after, _, number, _ = node.children
            return read(before if step <= change(number) else after, step)
        if node.data == "alternating":
            return read(node.children[(step - 1) % len(node.children)], step)
        return "".join(read(child, step) for child in node.children)

    return [(end, read(tree, end)) for end in sorted(ends)]


def main() -> None:
    texts = prompts()
    if sys.argv[1:] == ["--once"]:
        json.dump(schedules(texts), sys.stdout)
        return
    outcomes: list[Any] = []
    for seed in HASH_SEEDS:
        command = [sys.executable, "-m", "tools.golden_stable_diffusion.prompts", "--once"]
        ran = subprocess.run(command, env={**os.environ, "PYTHONHASHSEED": str(seed)}, capture_output=True, check=True)
        outcomes.append(json.loads(ran.stdout))
    cases = []
    for index, text in enumerate(texts):
        distinct: list[Any] = []
        for outcome in outcomes:
            if outcome[index] not in distinct:
                distinct.append(outcome[index])
        cases.append(json.dumps({"text": text, "outcomes": distinct}, ensure_ascii=False))
    passes = json.dumps([{"hires_steps": hires_steps, "old": old} for hires_steps, old in PASSES])
    GOLDEN.parent.mkdir(parents=True, exist_ok=True)
    body = ",\n".join(cases)
    GOLDEN.write_text(f'{{"steps": {STEPS}, "passes": {passes}, "cases": [\n{body}\n]}}\n', encoding="utf-8")


if __name__ == "__main__":
    main()
