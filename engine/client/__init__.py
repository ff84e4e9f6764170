"""The parent half: the only room that talks to the child. Knows commands and reports, no jobs in a queue, no MLX."""

from engine.client.engine import Engine, EngineStatus, EngineStopped
from engine.client.options import EngineOptions
from engine.client.turn import DeathReason, EngineDied

__all__ = ["DeathReason", "Engine", "EngineDied", "EngineOptions", "EngineStatus", "EngineStopped"]
