"""Backends by name. Imported in the child process only; each backend is imported only when it is chosen."""

from __future__ import annotations

from engine.backends.fake import FakeBackend, FakeScript, RawWire
from engine.drawing.base import Backend

BACKENDS = ("mlx", "fake")


def build(
    name: str,
    fake_script: str | None,
    wire: RawWire,
    *,
    memory_limit_bytes: int | None = None,
    cache_limit_bytes: int | None = None,
) -> Backend:
    """The backend called `name`, ready for work. Raises: whatever its import raises."""
    match name:
        case "mlx":
            from engine.backends.mlx import MlxBackend

            return MlxBackend(memory_limit_bytes=memory_limit_bytes, cache_limit_bytes=cache_limit_bytes)
        case "fake":
            return FakeBackend(FakeScript.model_validate_json(fake_script or "{}"), wire)
        case _:
            raise ValueError(f"no backend is called {name}")
