"""How large previews are decoded: no larger than a small share of a step's time pays for. Pure."""

from __future__ import annotations

from math import sqrt

from engine.backends.canvas import PREVIEW_PX

SHARE = 0.02
"""Of the step's time, which a preview may take."""
FIRST_PX, LEAST_PX = 96, 48
"""The longest side of the first preview, whose time says what the next ones may be; and of the smallest."""


class PreviewSize:
    """`px` is the longest side of the next preview: decoding takes a time that grows with the pixels."""

    def __init__(self) -> None:
        self.px = FIRST_PX

    def learn(self, preview_s: float, step_s: float) -> None:
        """Seconds of a preview at `px`, and of the step before it."""
        fitting = self.px * sqrt(SHARE * step_s / max(preview_s, 1e-6))
        self.px = int(min(PREVIEW_PX, max(LEAST_PX, fitting)))
