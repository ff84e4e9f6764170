"""Base class of the values that travel."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict


class Frozen(BaseModel):
    """Immutable value without unknown fields."""

    model_config = ConfigDict(frozen=True, extra="forbid", defer_build=True)
