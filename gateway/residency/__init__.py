"""Residency: what is in the engine's memory and what may be: admission, quantised copies, quarantine. No protocol."""

from gateway.residency.manager import Beside, ResidencyManager, ResidencyOptions
from gateway.residency.shortage import Shortage

__all__ = ["Beside", "ResidencyManager", "ResidencyOptions", "Shortage"]
