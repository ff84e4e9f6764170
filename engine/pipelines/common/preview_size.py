"""Size of previews: decoding one may take a small share of a step's time. Pure."""

from __future__ import annotations

from math import sqrt

from engine.drawing.canvas import PREVIEW_PX

SHARE = 0.02
"""Share of the step's time that a preview may take."""
FIRST_PX, LEAST_PX = 96, 48
"""Longest side of the first preview, whose time determines the next ones, and of the smallest."""


class PreviewSize:
    """Longest side of the next preview, `px`: the time to decode grows with the pixels."""

    def __init__(self) -> None:
        self.px = FIRST_PX

    def learn(self, preview_s: float, step_s: float) -> None:
        """Record the seconds of a preview at `px`, and of the step before it."""
        fitting = self.px * sqrt(SHARE * step_s / max(preview_s, 1e-6))
        self.px = int(min(PREVIEW_PX, max(LEAST_PX, fitting)))
