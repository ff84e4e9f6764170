"""Prompt editing and alternation: which text a prompt means at which step.

`[from:to:when]`, `[to:when]` and `[from::when]` change the text after the step `when`; `[a|b|c]` takes another of its
options each step. In a number with a point, 1.0 is all the steps of the pass. In the second pass of hires fix, 1.0 to
2.0 and the steps beyond the first pass mean the second pass. Brackets that are none of these stay as they are, for
attention to read; a prompt with `|` elsewhere, or with a backslash at its end, is not edited at all.

A bracket is edited where everything between it and its partner is well-formed. A1111's own parser decides by chance
between this reading and the literal text where other brackets of the prompt have no partner.

Source: A1111 1.10.1 modules/prompt_parser.py `get_learned_conditioning_prompt_schedules`.
"""

from __future__ import annotations

import re
from bisect import bisect_left
from collections.abc import Iterator
from dataclasses import dataclass, field

_TEXT = re.compile(r"[^\\\[\]():|]++")
_NUMBER = re.compile(
    r"\s*+([+-]?(?:[0-9]++[eE][+-]?[0-9]++|(?:[0-9]++\.[0-9]*+|\.[0-9]++)(?:[eE][+-]?[0-9]++)?|[0-9]++))\s*+"
)
_PARTNERS = {")": "(", "]": "["}
_MOST_SCHEDULED_COLONS = 2
_MOST_ROUND_COLONS = 1


@dataclass(frozen=True, slots=True, eq=False)
class _Group:
    """Items one after the other."""

    items: list[_Item]


@dataclass(frozen=True, slots=True, eq=False)
class _Scheduled:
    """`[before:after:when]`; `when` is the number as written."""

    before: _Group
    after: _Group
    when: str


@dataclass(frozen=True, slots=True, eq=False)
class _Alternate:
    """`[a|b]`."""

    options: list[_Group]


_Item = str | _Group | _Scheduled | _Alternate


class _NotEdited(Exception):
    """The grammar of editing does not fit the prompt."""


@dataclass(slots=True, eq=False)
class _Bracket:
    """A bracket whose partner is not reached yet."""

    opened: str
    segments: list[list[_Item]] = field(default_factory=lambda: [[]])
    separators: list[str] = field(default_factory=list)

    def separate(self, separator: str) -> None:
        self.separators.append(separator)
        self.segments.append([])

    def closed(self) -> _Item | None:
        """What the bracket and its partner mean; None where they are ordinary characters."""
        if "|" in self.separators:
            return self._alternate()
        if self.opened == "[" and self.separators:
            return self._scheduled()
        if len(self.separators) > _MOST_ROUND_COLONS:
            return None
        return _Group([*self.loose(), ")" if self.opened == "(" else "]"])

    def loose(self) -> Iterator[_Item]:
        """The bracket and what follows it as ordinary characters. Raises: _NotEdited."""
        if "|" in self.separators:
            raise _NotEdited
        yield self.opened
        yield from self.segments[0]
        for items in self.segments[1:]:
            yield ":"
            yield from items

    def _alternate(self) -> _Item | None:
        if self.opened != "[" or ":" in self.separators:
            return None
        return _Alternate([_Group(items) for items in self.segments])

    def _scheduled(self) -> _Item | None:
        *texts, last = self.segments
        if len(texts) > _MOST_SCHEDULED_COLONS or len(last) != 1 or not isinstance(last[0], str):
            return None
        number = _NUMBER.fullmatch(last[0])
        if number is None:
            return None
        return _Scheduled(_Group(texts[0] if len(texts) > 1 else []), _Group(texts[-1]), number[1])


@dataclass(frozen=True, slots=True, eq=False)
class PromptSchedule:
    """Texts that a prompt means, each up to and including a step; steps count the evaluations of the network from 0."""

    steps: int
    """Last step of the last text."""
    ends: tuple[int, ...]
    """Last steps of the texts, ascending."""
    items: int
    """Pieces of text and brackets of the prompt."""
    _root: _Group
    _steps_until: dict[str, int]

    def text_at(self, step: int) -> str:
        """Text at a step; after the last one it is the first text again, as in A1111."""
        return self.text_until(self.ends[self.index_at(step)])

    def index_at(self, step: int) -> int:
        """Position in `ends` of the text at a step."""
        found = bisect_left(self.ends, step)
        return found if found < len(self.ends) else 0

    def text_until(self, end: int) -> str:
        """Text whose last step is `end`, one of `ends`."""
        texts: list[str] = []
        waiting: list[_Item] = [self._root]
        while waiting:
            item = waiting.pop()
            if isinstance(item, str):
                texts.append(item)
            elif isinstance(item, _Group):
                waiting.extend(reversed(item.items))
            elif isinstance(item, _Scheduled):
                waiting.append(item.before if end <= self._steps_until[item.when] else item.after)
            else:
                waiting.append(item.options[(end - 1) % len(item.options)])
        return "".join(texts)

    def texts(self) -> Iterator[tuple[int, str]]:
        """Last step and text, one after the other."""
        return ((end, self.text_until(end)) for end in self.ends)


def parse_schedule(text: str, steps: int, *, hires_steps: int | None = None, old: bool = False) -> PromptSchedule:
    """Schedule of a prompt.

    `steps`, at least 1, are the network's evaluations in the first pass as A1111 counts them: samplers of the second
    order count 2 a step. `hires_steps` are those of the second pass of hires fix, and then the schedule is that of the
    second pass; None is the first pass. With `old` both passes use the schedule of the first one, and every number
    below 1 is a fraction, as before A1111 1.6.
    """
    try:
        root = _parse(text)
    except _NotEdited:
        root = _Group([text])
    last = steps if hires_steps is None or old else hires_steps
    ends = {last}
    steps_until: dict[str, int] = {}
    items, alternates = 0, False
    for item in _items(root):
        items += 1
        if isinstance(item, _Alternate):
            alternates = True
        elif isinstance(item, _Scheduled) and item.when not in steps_until:
            first_pass = None if hires_steps is None or old else steps
            steps_until[item.when] = until = _step_of(item.when, last, first_pass, old=old)
            if until >= 1:
                ends.add(until)
    if alternates:
        ends.update(range(1, last + 1))
    return PromptSchedule(last, tuple(sorted(ends)), items, root, steps_until)


def fixed_schedule(text: str) -> PromptSchedule:
    """Schedule of a text that is meant at every step, whatever brackets it has."""
    return PromptSchedule(1, (1,), 1, _Group([text]), {})


def prompt_schedule(
    text: str, steps: int, *, hires_steps: int | None = None, old: bool = False
) -> list[tuple[int, str]]:
    """Last step and text, one after the other; see `parse_schedule`."""
    return list(parse_schedule(text, steps, hires_steps=hires_steps, old=old).texts())


def _step_of(when: str, last: int, first_pass: int | None, *, old: bool) -> int:
    """Last step of the text before the change; below 1 where it is changed from the beginning.

    `first_pass` is the number of steps of the first pass where the schedule is that of the second one.
    """
    number = float(when)
    if old:
        step = number * last if number < 1 else number
    elif "." in when:
        step = (number - (0.0 if first_pass is None else 1.0)) * last
    else:
        step = number - (first_pass or 0)
    return int(max(min(step, last), -1.0))


def _items(root: _Group) -> Iterator[_Item]:
    """All items, those inside others too."""
    waiting: list[_Item] = [root]
    while waiting:
        item = waiting.pop()
        yield item
        if isinstance(item, _Group):
            waiting.extend(item.items)
        elif isinstance(item, _Scheduled):
            waiting += (item.before, item.after)
        elif isinstance(item, _Alternate):
            waiting.extend(item.options)


def _parse(text: str) -> _Group:
    """Items of a prompt. Each is moved at most once out of a bracket without a partner. Raises: _NotEdited."""
    root: list[_Item] = []
    opened: list[_Bracket] = []

    def items() -> list[_Item]:
        return opened[-1].segments[-1] if opened else root

    def loosen() -> None:
        for bracket in opened:
            root.extend(bracket.loose())
        opened.clear()

    for token in _tokens(text):
        if token in ("(", "["):
            opened.append(_Bracket(token))
        elif token in _PARTNERS:
            closed = None
            if opened and opened[-1].opened == _PARTNERS[token]:
                closed = opened[-1].closed()
            if closed is None:
                loosen()
                root.append(token)
            else:
                opened.pop()
                items().append(closed)
        elif token in (":", "|") and opened:
            opened[-1].separate(token)
        elif token == "|":
            raise _NotEdited
        else:
            items().append(token)
    loosen()
    return _Group(root)


def _tokens(text: str) -> Iterator[str]:
    """Brackets, separators, and longest runs of other text. Raises: _NotEdited for a backslash that escapes nothing."""
    position = begin = 0
    while position < len(text):
        character = text[position]
        if character == "\\":
            if text[position + 1 : position + 2] in ("", "\n"):
                raise _NotEdited
            position += 2
        elif character in "[]():|":
            if begin < position:
                yield text[begin:position]
            yield character
            position += 1
            begin = position
        else:
            found = _TEXT.match(text, position)
            assert found is not None
            position = found.end()
    if begin < position:
        yield text[begin:position]
