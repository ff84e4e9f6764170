"""How a model read a prompt, as what was not done as asked. Pure; knows no protocol."""

from __future__ import annotations

from engine.protocol import PromptRead
from gateway.jobs.resolve import Adjustment


def to_adjustments(reading: PromptRead) -> tuple[Adjustment, ...]:
    """One for what was cut off, in tokens, and one for the words within the rest that the model does not know."""
    found = []
    if reading.limit is not None:
        reason = f"the model reads {reading.limit} of its {reading.tokens} tokens; left out: {reading.cut}"
        found.append(Adjustment(param=reading.field, asked=reading.tokens, used=reading.limit, reason=reason))
    if reading.unknown:
        reason = "the model does not know these words" if reading.tokens else "the model knows no word of it"
        found.append(Adjustment(param=reading.field, asked=", ".join(reading.unknown), used=None, reason=reason))
    return tuple(found)
