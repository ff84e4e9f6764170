"""What a row of the catalogue says."""

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
    "seedvr2",
    "z_image",
]


class HubFiles(BaseModel):
    """Files of one hub repository. `patterns` are huggingface_hub's `allow_patterns`; `saved_as` is the folder that has
    them in a model which mflux saved whole.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    repo: str
    patterns: tuple[str, ...]
    revision: str | None = None
    saved_as: str | None = None


class ModelSpec(BaseModel):
    """One row. Sizes in pixels and gigabytes; `native_px` is set where a model draws right at that edge length only."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    family: Family
    geometry: str
    """Which of the family's architectures: mflux's name for it."""
    task: Literal["generate", "upscale"] = "generate"
    unavailable: str | None = None
    """Why a listed model cannot be drawn with: one sentence for the client."""

    repo: str | None = None
    """Hub repository the weights come from."""
    revision: str | None = None
    """The commit to fetch; None: the one that the first download resolves, kept from then on."""
    files: tuple[str, ...] = ()
    """Patterns of the repository's files that the model needs."""
    also: tuple[HubFiles, ...] = ()
    """Further repositories the model needs, such as a ControlNet's."""
    gated: bool = False
    """Whether the hub asks for an account that accepted the licence."""
    licence: str
    description: str
    size_gb: float
    """What `files` take on disk."""
    files_gb: float | None = None
    """Of the row whose memory is told here, where the weights are other files: an operator's own."""
    weights_gb: float | None = None
    """Weights in memory at 16 bits; None: as on disk."""
    fixed_gb: float = 0.0
    """The part of `weights_gb` that mflux leaves unquantised."""

    distilled: bool
    """A distilled model draws at guidance 1 only, in few steps."""
    default_steps: int
    useful_max_steps: int
    min_steps: int = 1
    """Fewer are drawn as these."""
    default_guidance: float = 1.0
    guidance_range: tuple[float, float] = (0.0, 30.0)
    default_px: int = 1024
    min_px: int = 64
    max_px: int = 8192
    """Of one side. mflux's shortest tables of positions, those of Z-Image, Ming and FIBO 2, have 512 of 16 pixels."""
    max_pixels: int = 16_777_216
    """Width times height. mflux sets no bound of its own: this is what the gateway's decoder takes, too."""
    step_px: int = 16
    """Sizes are multiples of this."""
    native_px: int | None = None
    quantize: int | None = None
    """Bits to quantise to at load; None leaves it to the settings."""
    stored_bits: int | None = None
    """Bits the repository's weights are quantised to already."""
    copies: bool = True
    """Whether mflux can save it quantised."""
    max_sequence: int | None = None
    """Tokens of a prompt that count; None where mflux sets no bound of its own."""

    negative_prompt: bool = False
    """Whether the model stays away from what a second prompt says."""
    init_image: bool = True
    """Whether a picture can be the start of another."""
    masks: bool = True
    needs_mask: bool = False
    """It repaints a part of a picture, and draws nothing else."""
    max_references: int = 0
    """Pictures the model can follow at once; 0 for one that cannot edit."""
    needs_reference: bool = False
    draws: tuple[str, ...] = ()
    """All that it can draw; empty for a model of any prompt."""
    lora: bool = True
    control: Literal["canny", "depth"] | None = None
    """The kind of map the model follows, and cannot draw without."""
    grey_edges: bool = False
    """Whether outlines are found in the picture's brightness, and not in each of its colours."""

    @property
    def fixed_steps(self) -> bool:
        """Whether it draws in one number of steps only."""
        return self.min_steps == self.useful_max_steps

    def loaded_gb(self, bits: int | None) -> float:
        """Weights in memory at `bits`, or as stored; a group of 64 carries 32 bits of scale and bias."""
        if self.stored_bits:
            return self.size_gb
        whole = self.size_gb if self.weights_gb is None else self.weights_gb
        return whole if bits is None else self.fixed_gb + (whole - self.fixed_gb) * (bits + 0.5) / 16


def at_load(spec: ModelSpec, *bits: int) -> tuple[ModelSpec, ...]:
    """The row and its variants that are quantised when they are loaded."""
    return (spec, *(_quantised(spec, one) for one in bits))


def _quantised(spec: ModelSpec, bits: int) -> ModelSpec:
    return spec.model_copy(
        update={
            "name": f"{spec.name}-{bits}-bit",
            "quantize": bits,
            "description": f"{spec.description}, quantised to {bits} bits at load",
        }
    )
