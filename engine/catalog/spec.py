"""Fields of a row of the catalogue."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict

Family = Literal[
    "anima",
    "boogu",
    "ernie",
    "fibo",
    "fibo2",
    "flux1",
    "flux2",
    "flux2_tiny",
    "flux3",
    "ideogram4",
    "iris",
    "krea2",
    "lens",
    "ming",
    "moss",
    "qwen",
    "qwen21",
    "sd1",
    "sd2",
    "sdxl",
    "sdxl_refiner",
    "seedvr2",
    "z_image",
]
STABLE_DIFFUSION: frozenset[Family] = frozenset({"sd1", "sd2", "sdxl", "sdxl_refiner"})
"""Families that are sampled as in AUTOMATIC1111: their plans have a `sampling`."""


class HubFiles(BaseModel):
    """Files of one hub repository. `patterns` are huggingface_hub's `allow_patterns`; `saved_as` is the folder that
    holds them in a model that mflux saved.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    repo: str
    patterns: tuple[str, ...]
    revision: str | None = None
    saved_as: str | None = None


class ModelSpec(BaseModel):
    """One model. Sizes are in pixels and gigabytes. `native_px` is the only size at which some models generate
    correctly.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    family: Family
    geometry: str
    """mflux's name of the architecture within the family."""
    task: Literal["generate", "upscale"] = "generate"
    unavailable: str | None = None
    """Why a listed model cannot be used: one sentence for the client."""

    repo: str | None = None
    """Hub repository of the weights."""
    revision: str | None = None
    """Commit to download. None: the commit that the first download resolves, kept from then on."""
    files: tuple[str, ...] = ()
    """Patterns of the repository's files that the model needs."""
    also: tuple[HubFiles, ...] = ()
    """Further repositories that the model needs, such as that of a ControlNet."""
    gated: bool = False
    """Whether the hub requires an account that accepted the licence."""
    licence: str
    description: str
    size_gb: float
    """Size of `files` on disk."""
    files_gb: float | None = None
    """Size on disk of the row whose memory figures are used, where the weights are other files: an operator's own."""
    weights_gb: float | None = None
    """Weights in memory at 16 bits; None: as on disk."""
    fixed_gb: float = 0.0
    """The part of `weights_gb` that mflux does not quantise."""

    distilled: bool
    """A distilled model generates at guidance 1 only, in few steps."""
    default_steps: int
    useful_max_steps: int
    min_steps: int = 1
    """Fewer steps are raised to this."""
    default_guidance: float = 1.0
    guidance_range: tuple[float, float] = (0.0, 30.0)
    default_px: int = 1024
    min_px: int = 64
    max_px: int = 8192
    """Limit of one side. mflux's shortest position tables (Z-Image, Ming, FIBO 2) have 512 entries of 16 pixels."""
    max_pixels: int = 16_777_216
    """Limit of width times height. mflux sets none; this is also what the gateway's image decoder accepts."""
    step_px: int = 16
    """Sizes are multiples of this."""
    native_px: int | None = None
    quantize: int | None = None
    """Bits to quantise to at load; None leaves it to the settings."""
    stored_bits: int | None = None
    """Bits to which the repository's weights are quantised already."""
    copies: bool = True
    """Whether mflux can save it quantised."""
    max_sequence: int | None = None
    """Tokens of a prompt that are encoded; None where mflux sets no limit of its own."""

    negative_prompt: bool = False
    """Whether the model supports a negative prompt."""
    init_image: bool = True
    """Whether the model supports img2img."""
    masks: bool = True
    needs_mask: bool = False
    """It repaints a part of an image (inpainting), and does nothing else."""
    max_references: int = 0
    """Number of reference images that the model accepts; 0 for a model that cannot edit."""
    needs_reference: bool = False
    draws: tuple[str, ...] = ()
    """Everything that the model can draw; empty for a model of any prompt."""
    lora: bool = True
    control: Literal["canny", "depth"] | None = None
    """Kind of control map that the model requires."""
    prediction: Literal["epsilon", "v_prediction"] | None = None
    """What a Stable Diffusion model predicts; None for all other families."""
    zero_terminal_snr: bool = False
    """Whether its last timestep is all noise."""
    inpaints: bool = False
    """Whether its UNet has nine input channels: latents, mask, masked image."""
    needs_vae: bool = False
    """Whether it has no VAE of its own, so that a VAE file must be named."""
    grey_edges: bool = False
    """Whether edges are found in the image's brightness instead of in each of its colours."""

    @property
    def fixed_steps(self) -> bool:
        """Whether the model supports exactly one number of steps."""
        return self.min_steps == self.useful_max_steps

    def loaded_gb(self, bits: int | None) -> float:
        """GB of the weights in memory at `bits`, or as stored. 64 quantised weights share 32 bits of scale and bias."""
        if self.stored_bits:
            return self.size_gb
        whole = self.size_gb if self.weights_gb is None else self.weights_gb
        return whole if bits is None else self.fixed_gb + (whole - self.fixed_gb) * (bits + 0.5) / 16


def at_load(spec: ModelSpec, *bits: int) -> tuple[ModelSpec, ...]:
    """The row, and its variants that are quantised at load."""
    return (spec, *(_quantised(spec, one) for one in bits))


def _quantised(spec: ModelSpec, bits: int) -> ModelSpec:
    return spec.model_copy(
        update={
            "name": f"{spec.name}-{bits}-bit",
            "quantize": bits,
            "description": f"{spec.description}, quantised to {bits} bits at load",
        }
    )
