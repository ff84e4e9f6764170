"""The table of the bench: measured values by row, contender and round, as Markdown. Pure."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Sample:
    """One value of one contender; samples of one key and round were measured one after another."""

    key: str
    contender: str
    round: int
    value: float


@dataclass(frozen=True)
class Row:
    """What is compared: the samples' keys, and how a cell is made of those of one round."""

    title: str
    keys: tuple[str, ...]
    digits: int = 2
    more_is_better: bool = False
    to_bare: bool = False
    """Whether a cell is a ratio to bare mflux in the same round."""
    make: Callable[..., float] = lambda value: value


def a_minute(*seconds: float) -> float:
    """Images a minute, where each took so long."""
    return 60 * len(seconds) / sum(seconds)


ROWS = (
    Row("images a minute, one client", ("new 256", "seen 256"), 1, more_is_better=True, make=a_minute),
    Row("images a minute, four clients", ("four clients",), 1, more_is_better=True),
    Row("new prompt, 128 px, to bare", ("new 128",), to_bare=True),
    Row("new prompt, 256 px, to bare", ("new 256",), to_bare=True),
    Row("prompt seen before, 128 px, to bare", ("seen 128",), to_bare=True),
    Row("prompt seen before, 256 px, to bare", ("seen 256",), to_bare=True),
    Row("four images of one prompt, 256 px, to bare", ("four images",), to_bare=True),
    Row("health p99 while drawing, ms", ("health p99",), 1),
    Row("start until it takes requests, s", ("ready",)),
    Row("start until the first image, 256 px, s", ("first image",)),
    Row("memory after the rounds, MB", ("memory",), 0),
    Row("drawing after a client hung up, s", ("hang-up",), 1),
    Row("drawing after a cancel, s", ("cancel",), 1),
)


def values_of(row: Row, samples: Iterable[Sample], bare: str) -> dict[str, list[float]]:
    """The row's values by contender, one for each round that has all keys (and those of bare mflux)."""
    by_round: dict[tuple[str, int], dict[str, float]] = {}
    for sample in samples:
        if sample.key in row.keys:
            by_round.setdefault((sample.contender, sample.round), {})[sample.key] = sample.value
    made = {
        place: row.make(*(parts[key] for key in row.keys))
        for place, parts in by_round.items()
        if parts.keys() == set(row.keys)
    }
    values: dict[str, list[float]] = {}
    for (contender, number), value in sorted(made.items(), key=lambda item: item[0][1]):
        if not row.to_bare:
            values.setdefault(contender, []).append(value)
        elif (bare, number) in made:
            values.setdefault(contender, []).append(value / made[bare, number])
    return values


def table(samples: Sequence[Sample], contenders: Sequence[str], ours: str, bare: str) -> str:
    """Rows of medians, with least and most of several rounds, and ours against the best peer."""
    peers = [name for name in contenders if name not in (ours, bare)]
    lines = ["| | " + " | ".join(contenders) + " | ours against the best peer |", "|---" * (len(contenders) + 2) + "|"]
    for row in ROWS:
        values = values_of(row, samples, bare)
        if not values.keys() & {ours, *peers}:
            continue
        cells = [_cell(values.get(name, ()), row.digits) for name in contenders]
        if row.to_bare and bare in contenders:
            cells[contenders.index(bare)] = "1"
        advantage = _advantage(row, values, ours, peers)
        lines.append(
            f"| {row.title} | " + " | ".join((*cells, "-" if advantage is None else f"{advantage:.2f}x")) + " |"
        )
    return "\n".join(lines)


def shortfalls(samples: Sequence[Sample], contenders: Sequence[str], ours: str, bare: str) -> list[str]:
    """A sentence for each row in which the median of a peer is better than ours."""
    peers = [name for name in contenders if name not in (ours, bare)]
    sentences = []
    for row in ROWS:
        values = values_of(row, samples, bare)
        advantage = _advantage(row, values, ours, peers)
        if advantage is not None and advantage < 1:
            best = _best(row, values, peers)
            sentences.append(f"{best} is ahead in: {row.title} ({advantage:.2f}x).")
    return sentences


def _cell(values: Sequence[float], digits: int) -> str:
    if not values:
        return "-"
    middle = f"{statistics.median(values):.{digits}f}"
    return middle if len(values) == 1 else f"{middle} ({min(values):.{digits}f} to {max(values):.{digits}f})"


def _best(row: Row, values: Mapping[str, Sequence[float]], peers: Sequence[str]) -> str | None:
    medians = {name: statistics.median(values[name]) for name in peers if name in values}
    if not medians:
        return None
    return (max if row.more_is_better else min)(medians, key=lambda name: medians[name])


def _advantage(row: Row, values: Mapping[str, Sequence[float]], ours: str, peers: Sequence[str]) -> float | None:
    """How many times as good as the best peer, by medians; None where one of them is missing or took no time."""
    best = _best(row, values, peers)
    if best is None or ours not in values:
        return None
    own, other = statistics.median(values[ours]), statistics.median(values[best])
    above, below = (own, other) if row.more_is_better else (other, own)
    return above / below if below else None
