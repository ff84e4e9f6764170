"""Adjustments for a prompt that a model did not read completely. Pure; knows no protocol."""

from __future__ import annotations

from engine.protocol import PromptRead
from gateway.jobs.resolve import Adjustment


def to_adjustments(reading: PromptRead) -> tuple[Adjustment, ...]:
    """One adjustment for the tokens that were cut off, one for unknown words in the rest."""
    adjustments = []
    if reading.limit is not None:
        reason = f"the model reads {reading.limit} of its {reading.tokens} tokens; left out: {reading.cut}"
        adjustments.append(Adjustment(param=reading.field, asked=reading.tokens, used=reading.limit, reason=reason))
    if reading.unknown:
        reason = "the model does not know these words" if reading.tokens else "the model knows no word of it"
        adjustments.append(Adjustment(param=reading.field, asked=", ".join(reading.unknown), used=None, reason=reason))
    return tuple(adjustments)
