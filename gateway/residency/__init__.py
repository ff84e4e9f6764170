"""What is in the engine's memory, and what may be: admission, quantised copies, models set aside. Knows no protocol."""

from gateway.residency.manager import House, HouseOptions
from gateway.residency.shortage import Shortage

__all__ = ["House", "HouseOptions", "Shortage"]
