"""Report of benchmarks/gpu.py: rows with goals, the state of its parts, and the table. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

State = Literal["complete", "failed", "out of time", "skipped"]

ALL_MET, GOAL_MISSED, PART_LACKING = 0, 1, 2
"""Exit codes: every goal is met; a goal is missed; a part gave no result or not all of it."""


@dataclass(frozen=True, slots=True)
class Row:
    """One result. `goal` is the largest good value, or with `least` the smallest; without one the row has no goal."""

    part: str
    what: str
    value: float
    unit: str = ""
    goal: float | None = None
    least: bool = False

    @property
    def is_met(self) -> bool | None:
        """Whether the goal is met; None without a goal. A value that is not a number meets none."""
        if self.goal is None:
            return None
        return self.value >= self.goal if self.least else self.value <= self.goal


@dataclass(slots=True)
class PartResult:
    """What became of one part; `reason` says why it is not complete."""

    state: State
    seconds: float
    reason: str = ""


@dataclass(slots=True)
class Report:
    """Results so far, by part. `machine` names what was measured, so that results of others are not added to it."""

    machine: dict[str, Any]
    rows: list[Row] = field(default_factory=list)
    parts: dict[str, PartResult] = field(default_factory=dict)

    def forget(self, part: str) -> None:
        """Remove what an earlier try of the part found."""
        self.rows = [row for row in self.rows if row.part != part]
        self.parts.pop(part, None)

    def is_complete(self, part: str) -> bool:
        return part in self.parts and self.parts[part].state == "complete"

    def exit_code(self, parts: Sequence[str], *, goals: bool) -> int:
        """Exit code for these parts; without `goals` only whether they are complete counts."""
        if not all(self.is_complete(part) for part in parts):
            return PART_LACKING
        missed = any(row.is_met is False for row in self.rows if row.part in parts)
        return GOAL_MISSED if goals and missed else ALL_MET

    def to_json(self) -> dict[str, Any]:
        return {
            "machine": self.machine,
            "parts": {name: asdict(result) for name, result in self.parts.items()},
            "rows": [{**asdict(row), "met": row.is_met} for row in self.rows],
        }

    @classmethod
    def from_json(cls, state: dict[str, Any]) -> Report:
        """A report from `to_json`. Raises: KeyError, TypeError, ValueError for other data."""
        rows = [Row(**{name: value for name, value in row.items() if name != "met"}) for row in state["rows"]]
        return cls(state["machine"], rows, {name: PartResult(**result) for name, result in state["parts"].items()})


def table(report: Report) -> str:
    """The report as lines of text: a line for each row, then one for each part."""
    cells = [("part", "what", "value", "goal", "")]
    for row in report.rows:
        goal = "" if row.goal is None else f"{'at least' if row.least else 'at most'} {number(row.goal)}"
        met = {None: "", True: "met", False: "MISSED"}[row.is_met]
        cells.append((row.part, row.what, f"{number(row.value)} {row.unit}".strip(), goal, met))
    widths = [max(len(line[column]) for line in cells) for column in range(5)]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in cells]
    lines.insert(1, "  ".join("-" * width for width in widths[:4]))
    machine = ", ".join(f"{name} {value}" for name, value in report.machine.items() if value is not None)
    parts = [
        f"{name}: {result.state} after {result.seconds:.0f} s{f': {result.reason}' if result.reason else ''}"
        for name, result in report.parts.items()
    ]
    return "\n".join([machine, "", *lines, "", *parts])


def number(value: float) -> str:
    """Three significant digits, whole from a hundred on."""
    return f"{value:.0f}" if abs(value) >= 100 else f"{value:.3g}"
