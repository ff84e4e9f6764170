"""Client of the engine process: the only package that talks to the child. It knows commands and reports, but no job
queue and no MLX.
"""

from engine.client.engine import Engine, EngineStatus, EngineStopped
from engine.client.options import EngineOptions
from engine.client.turn import DeathReason, EngineDied

__all__ = ["DeathReason", "Engine", "EngineDied", "EngineOptions", "EngineStatus", "EngineStopped"]
