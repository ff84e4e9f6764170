"""The errors of /sdapi/v1 that no other protocol knows."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from gateway.errors import GatewayError, NotFound


class InitImageNotFound(NotFound):
    code, message = "init_image_not_found", "Init image not found"


class AsA1111(GatewayError):
    """Where A1111 lets a bare exception through: `exception` is its class, the status 500."""

    code, status = "invalid_param", 500

    def __init__(
        self, exception: str, message: str, *, code: str | None = None, details: Mapping[str, Any] | None = None
    ) -> None:
        super().__init__(message, code=code, details=details)
        self.exception = exception


class NotImplementedHere(GatewayError):
    """A1111 does this; nothing here can."""

    code, status = "not_implemented", 501


def no_such_upscaler(name: str) -> AsA1111:
    """Source: A1111 1.10.1 scripts/postprocessing_upscale.py."""
    return AsA1111("AssertionError", f"could not find upscaler named {name[:64]}", code="upscaler_not_found")
