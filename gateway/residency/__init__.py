"""What is in the engine's memory, and what may be: admission, quantised copies, models set aside. Knows no protocol."""

from gateway.residency.manager import ResidencyManager, ResidencyOptions
from gateway.residency.shortage import Shortage

__all__ = ["ResidencyManager", "ResidencyOptions", "Shortage"]
