"""The canonical request for images, which every protocol makes of its own requests."""

from __future__ import annotations

import hashlib

from engine.protocol import Control, Enlargement, Frozen, Lora, MaskContent, MemoryCheck, Paste
from gateway.jobs.resolve_tiles import TilesRequest
from gateway.jobs.sampling_request import SamplingRequest


class SecondPassRequest(Frozen):
    """A requested second pass; `steps` None: as many as in the first."""

    width_px: int
    height_px: int
    steps: int | None = None
    denoise: float = 0.75
    enlarge: Enlargement = "lanczos"
    """Latents are enlarged for Stable Diffusion; for other models pixels are, by Lanczos."""
    prompt: str | None = None
    negative_prompt: str | None = None
    """For Stable Diffusion, as the fields below; None: as in the first pass."""
    guidance: float | None = None
    sampler: str | None = None
    schedule: str | None = None


class GenerationRequest(Frozen):
    """The canonical request for images. None means: not in the client's request."""

    prompt: str
    model: str | None = None
    negative_prompt: str | None = None
    width_px: int | None = None
    height_px: int | None = None
    steps: int | None = None
    guidance: float | None = None
    seed: int | None = None
    seeds: tuple[int, ...] = ()
    """One seed for each image, instead of `seed` and its successors."""
    count: int | None = None
    init_image: str | None = None
    further_init_images: tuple[str, ...] = ()
    denoise: float | None = None
    stretch_latents: bool = False
    second_pass: SecondPassRequest | None = None
    tiles: TilesRequest | None = None
    mask: str | None = None
    mask_content: MaskContent = "original"
    paste: Paste | None = None
    references: tuple[str, ...] = ()
    control: Control | None = None
    subseed: int | None = None
    subseed_strength: float = 0.0
    sampling: SamplingRequest | None = None
    """How Stable Diffusion is sampled; None: the client did not say."""
    loras: tuple[Lora, ...] = ()
    """LoRAs by names, aliases or paths of the library."""
    previews: int | None = None
    low_ram: bool | None = None
    """Whether to use less memory and more time; None: as in the settings."""
    memory: MemoryCheck = "check"

    def fingerprint(self) -> str:
        """The fingerprint of the request, equal for equal requests, which an Idempotency-Key is bound to."""
        return hashlib.sha256(self.model_dump_json().encode()).hexdigest()
