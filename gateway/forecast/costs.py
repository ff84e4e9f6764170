"""Costs in seconds of each kind of job on this machine: first guessed from the catalogue, then learned. Pure."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from math import hypot
from typing import Any, Literal

from engine.catalog import ModelSpec
from gateway.forecast.series import Cost, LinearFit, Series
from gateway.forecast.work import Work

Part = Literal[
    "start", "gap", "load", "head", "next_head", "step", "tail", "next_tail", "last_tail", "file", "page", "fetch"
]
"""Parts of a job: the `start` of the engine, the `gap` between two jobs, the `load` of a model. Of an image: `head`,
all before its first step, such as encoding the text (`next_head` for a job's later images); a `step`; `tail`, all
after the last step, such as decoding (`next_tail` and `last_tail` where it delays a later image, or the next job, which
it does not where both are done at once); writing its `file`. A `page` of text. To `fetch` a gigabyte from the hub.
"""
KEPT_KINDS = 64
SpecOf = Callable[[str], ModelSpec | None]


class Costs:
    """Seconds of every part of every kind of job. `version` changes when something is learned."""

    def __init__(self, spec_of: SpecOf) -> None:
        self._spec_of = spec_of
        self._series: dict[str, Series] = {}
        self._parts: dict[tuple[Part, Work | None], Cost] = {}
        self._runs: dict[Work, Cost] = {}
        self.version = 0

    def learn(self, part: Part, work: Work | None, seconds: float) -> None:
        """Learn the seconds that a part took."""
        name, size = _name(part, work), _size(part, work)
        series = self._series.pop(name, Series())
        series.learn(size, seconds)
        self._series[name] = series
        if len(self._series) > KEPT_KINDS:
            del self._series[next(iter(self._series))]
        self._changed()

    def _changed(self) -> None:
        self._parts.clear()
        self._runs.clear()
        self.version += 1

    def of(self, part: Part, work: Work | None = None) -> Cost:
        """The expected seconds of a part."""
        if (cost := self._parts.get((part, work))) is None:
            cost = self._parts[part, work] = self._of(part, work)
        return cost

    def _of(self, part: Part, work: Work | None) -> Cost:
        if part in ("next_tail", "last_tail") and _name(part, work) not in self._series:
            part = "tail"
        spec = None if work is None else self._spec_of(work.model)
        series = self._series.get(_name(part, work))
        return (series or Series()).cost(_size(part, work), first_guess(part, work, spec))

    def run(self, work: Work) -> Cost:
        """Expected seconds of all images or pages of a job with its model in memory, until its lane is free."""
        if (cost := self._runs.get(work)) is None:
            cost = self._runs[work] = self._run(work)
        return cost

    def _run(self, work: Work) -> Cost:
        if work.lane == "network":
            fetch = self.of("fetch", work)
            return Cost(work.gigabytes * fetch.seconds, work.gigabytes * fetch.spread)
        if work.lane == "cpu":
            page = self.of("page", work)
            return Cost(work.images * page.seconds, work.images * page.spread)
        if work.images <= 0:
            return Cost(0.0, 0.0)
        step, tail = self.of("step", work), self.of("last_tail", work)
        head, next_head = self.of("head", work), self.of("next_head", work)
        next_tail = self.of("next_tail", work)
        seconds = head.seconds + tail.seconds + (work.images - 1) * (next_head.seconds + next_tail.seconds)
        seconds += work.images * work.steps * step.seconds
        tails = tail.spread + (work.images - 1) * next_tail.spread
        spread = hypot(head.spread, work.images * work.steps * step.spread, tails)
        return Cost(seconds, spread)

    def image_s(self, work: Work) -> float | None:
        """Seconds of one image of this kind with its file, at the bits learned last; None where none was learned."""
        for name in reversed(self._series):
            part, _, kind = name.partition(" ")
            bits = kind.removeprefix(f"{work.model} ").removesuffix(f" {work.mode}")
            if part == "step" and kind == f"{work.model} {bits} {work.mode}":
                learned = replace(work, quantize=int(bits) if bits.isdecimal() else None)
                return self.run(learned).seconds + self.of("file", learned).seconds
        return None

    def to_json(self) -> dict[str, Any]:
        return {
            name: {str(size): [round(value, 5) for value in values] for size, values in series.values.items()}
            for name, series in self._series.items()
        }

    def read_json(self, state: dict[str, Any]) -> None:
        """Restore the state. Raises: ValueError, AttributeError, TypeError for data that `to_json` did not write."""
        self._series = {
            name: Series({float(size): [float(value) for value in values] for size, values in sizes.items()})
            for name, sizes in state.items()
        }
        self._changed()


def first_guess(part: Part, work: Work | None, spec: ModelSpec | None) -> LinearFit:
    """A guess before anything was measured: by the size of the weights, for an average machine with Metal."""
    size_gb = 10.0 if spec is None else spec.size_gb
    guidance = 2.0 if work is not None and "+guidance" in work.mode else 1.0
    match part:
        case "start":
            return LinearFit(2.0, 0.0)
        case "gap":
            return LinearFit(0.01, 0.0)
        case "load":
            return LinearFit(0.5 + 0.5 * size_gb, 0.0)
        case "head":
            return LinearFit(0.1 + 0.05 * size_gb, 0.0)
        case "next_head":
            return LinearFit(0.05, 0.0)
        case "step":
            return LinearFit(guidance * (0.03 + 0.01 * size_gb), guidance * (0.2 + 0.4 * size_gb))
        case "tail" | "next_tail" | "last_tail":
            return LinearFit(0.02, 1.5)
        case "file":
            return LinearFit(0.02, 0.2)
        case "page":
            return LinearFit(2.0, 0.0)
        case "fetch":
            return LinearFit(50.0, 0.0)


def _name(part: Part, work: Work | None) -> str:
    if work is None or part in ("start", "gap", "file", "fetch"):
        return part
    return f"{part} {work.model} {work.quantize or 'whole'}" if part == "load" else f"{part} {work.key}"


def _size(part: Part, work: Work | None) -> float:
    if work is None or part in ("start", "gap", "load", "page", "fetch"):
        return 0.0
    return work.filed if part == "file" else work.drawn
