"""Limits of a job and of the size of an image: what the gateway, its operator and the model allow. Pure."""

from __future__ import annotations

from engine.catalog import ModelSpec
from engine.protocol import Frozen
from gateway.errors import InvalidRequest, clip


class Limits(Frozen):
    """Limits of one job (S-20). A request above a limit is refused at submit, never later."""

    min_px: int = 64
    max_px: int = 8192
    """The longest side; mflux's shortest position tables have this length."""
    max_pixels: int = 8_847_360
    """The largest area of one image: 4096x2160. OpenAI's largest is 3840x2160."""
    max_job_pixels: int = 88_473_600
    """The largest area of all images of a job, which are answered together: ten such images."""
    max_own_px: int = 2048
    max_own_pixels: int = 4_194_304
    """The largest area where the request has no size, but an input image: models are not trained for larger ones."""
    max_steps: int = 100
    max_count: int = 10
    max_pixel_steps: int = 1_000_000_000
    max_guidance: float = 30.0
    max_prompt_bytes: int = 32 * 1024
    max_upscaled_pixels: int = 16_777_216
    max_loras: int = 8

    def of(self, spec: ModelSpec) -> Limits:
        """The limits of sizes, narrowed to those of a model."""
        return self.model_copy(
            update={
                "min_px": max(self.min_px, spec.min_px),
                "max_px": min(self.max_px, spec.max_px),
                "max_pixels": min(self.max_pixels, spec.max_pixels),
            }
        )

    @property
    def unasked(self) -> Limits:
        """The limits of a size that comes from an input image, not from the request."""
        return self.model_copy(
            update={
                "max_px": min(self.max_px, self.max_own_px),
                "max_pixels": min(self.max_pixels, self.max_own_pixels),
            }
        )

    def check_side(self, px: int, param: str) -> None:
        """Check the length of a side. Raises: InvalidRequest with the limits and the requested length."""
        if not self.min_px <= px <= self.max_px:
            message = f"{param} must be between {self.min_px} and {self.max_px}; {clip(str(px))} was asked."
            raise InvalidRequest(message, param=param)

    def check_area(self, width_px: int, height_px: int, param: str = "width") -> None:
        """Check the area of an image whose sides are checked. Raises: InvalidRequest with the limit and the request."""
        if width_px * height_px > self.max_pixels:
            requested = f"{width_px}x{height_px} has {width_px * height_px}"
            message = f"width x height must be at most {self.max_pixels} pixels; {requested}."
            raise InvalidRequest(message, param=param)
