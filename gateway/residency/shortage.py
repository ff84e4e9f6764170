"""Shortage of memory: the estimate for a job that seems not to fit, and what would fit. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from gateway.residency.footprint import GB


@dataclass(frozen=True, slots=True)
class Shortage:
    """Estimated bytes. `suggestion` has no full stop; `model` and `size_px` are what would fit, if anything."""

    needed_bytes: int
    limit_bytes: int
    suggestion: str
    model: str | None = None
    size_px: tuple[int, int] | None = None

    @property
    def known(self) -> str:
        return f"it takes about {self.needed_bytes / GB:.1f} GB, and there are {self.limit_bytes / GB:.1f} GB"

    @property
    def fitting(self) -> str:
        """What would fit, as sentences."""
        size = "" if self.size_px is None else f" {self.size_px[0]}x{self.size_px[1]} would fit with this model."
        has_more = self.model is not None and self.model not in self.suggestion
        return f"{self.suggestion}.{size}" + (f" So would {self.model}." if has_more else "")

    @property
    def details(self) -> dict[str, Any]:
        """The details of an error."""
        details: dict[str, Any] = {
            "suggestion": self.suggestion,
            "needed_gb": round(self.needed_bytes / GB, 1),
            "available_gb": round(self.limit_bytes / GB, 1),
        }
        if self.model is not None:
            details["model"] = self.model
        if self.size_px is not None:
            details["size"] = f"{self.size_px[0]}x{self.size_px[1]}"
        return {**details, "explanation": f"{self.known[0].upper()}{self.known[1:]}. {self.fitting}"}
