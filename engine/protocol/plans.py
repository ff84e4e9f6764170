"""Plans that the engine process runs: everything that determines the image is set."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import ConfigDict, Field

from engine.protocol.frozen import Frozen
from engine.protocol.sampling import SamplerName, Sampling, ScheduleName, prompt_steps

UNCACHED = ConfigDict(cache_strings="keys", defer_build=True)
"""Configuration of TypeAdapters: pydantic would cache thousands of ids and hashes that never come again."""


class Paste(Frozen):
    """Place of a generated image in a larger one. The box is in pixels of the larger image."""

    picture: str
    """Blob: the image into which the generated one is pasted; the result has its size."""
    further_pictures: tuple[str, ...] = ()
    """Blobs: the images for pasting after the first, used in turn, one for each of `further_init_images`."""
    mask: str
    """Blob: the generated image shows where this is white, the old one where it is black."""
    left_px: int
    top_px: int
    width_px: int
    height_px: int


class Lora(Frozen):
    """A LoRA of the library, by its name there."""

    name: str
    scale: float = 1.0
    text_encoder_scale: float | None = None
    """Scale of the changes of text encoders; None: `scale`."""


MaskContent = Literal["original", "noise", "nothing"]
MemoryCheck = Literal["check", "try"]
"""Whether a job that seems not to fit into memory is refused, or tried all the same."""


class Control(Frozen):
    """Control map that the generated image follows, for models with control."""

    kind: Literal["canny", "depth"]
    image: str
    """Blob: for `depth` the map itself, near parts light."""
    is_map: bool = True
    """For `canny`: whether the image is white edges on black already, or its edges are still to be found."""
    strength: float = 1.0
    """Strength of the control: 0 to 2."""


Enlargement = Literal[
    "lanczos",
    "nearest",
    "latent",
    "latent-antialiased",
    "latent-bicubic",
    "latent-bicubic-antialiased",
    "latent-nearest",
    "latent-nearest-exact",
]
"""How an image is enlarged: its pixels, or the latents of Stable Diffusion."""


class SecondPass(Frozen):
    """Second pass ("hires fix"): the image is enlarged to cover this size, cropped to it, and denoised again."""

    width_px: int
    height_px: int
    steps: int
    denoise: float
    """0 keeps the enlarged image, 1 ignores it."""
    enlarge: Enlargement = "lanczos"
    prompt: str | None = None
    """Prompt of the second pass where it differs from the first's; so are the fields below, for Stable Diffusion."""
    negative_prompt: str | None = None
    guidance: float | None = None
    sampler: SamplerName | None = None
    schedule: ScheduleName | None = None

    @property
    def enlarges_latents(self) -> bool:
        """Whether the latents of the first pass are enlarged instead of its pixels."""
        return self.enlarge.startswith("latent")

    def sampling_after(self, first: Sampling, steps: int) -> Sampling:
        """Sampling of this pass, after a first one of so many steps."""
        changed = {
            "sampler": self.sampler or first.sampler,
            "schedule": self.schedule or first.schedule,
            "first_pass_steps": prompt_steps(steps, first.sampler),
        }
        return first.model_copy(update=changed)


class Tiles(Frozen):
    """Tiles ("SD upscale"): the input image is enlarged, and denoised in overlapping tiles of the plan's size.

    Source: A1111 1.10.1 scripts/sd_upscale.py, modules/images.py split_grid.
    """

    width_px: int
    height_px: int
    """Size of the result."""
    overlap_px: int
    enlarge: Literal["lanczos", "nearest"] = "lanczos"
    batch: int = 1
    """Number of tiles with consecutive seeds; each batch begins one seed after the batch before."""

    def grid(self, tile_width_px: int, tile_height_px: int) -> tuple[int, int]:
        """Number of columns and rows of tiles."""
        sides = ((self.width_px, tile_width_px), (self.height_px, tile_height_px))
        columns, rows = (max(1, -((self.overlap_px - whole) // (tile - self.overlap_px))) for whole, tile in sides)
        return columns, rows

    def corners(self, tile_width_px: int, tile_height_px: int) -> tuple[list[int], list[int]]:
        """Left edges of columns and top edges of rows, in pixels; below 0 where the image is smaller than a tile."""
        columns, rows = self.grid(tile_width_px, tile_height_px)
        return _starts(columns, self.width_px, tile_width_px), _starts(rows, self.height_px, tile_height_px)


def _starts(count: int, whole_px: int, tile_px: int) -> list[int]:
    last = whole_px - tile_px
    step = last / (count - 1) if count > 1 else 0.0
    # A1111's last tile can end a pixel short of the edge, by the rounding of floats.
    return [*(min(int(i * step), last) for i in range(count - 1)), last]


class Generate(Frozen):
    """Plan for one image per seed. The same plan always gives the same pixels. Blobs are named by their sha256."""

    kind: Literal["generate"] = "generate"
    model: str
    prompt: str
    width_px: int
    height_px: int
    steps: int
    guidance: float
    negative_prompt: str | None = None
    """Negative prompt, for models that support it; used where guidance is above 1."""
    seeds: tuple[int, ...]
    quantize: int | None = None
    init_image: str | None = None
    """Blob: the input image of img2img."""
    further_init_images: tuple[str, ...] = ()
    """Blobs: input images after the first, used in turn, then `init_image` again."""
    denoise: float = 1.0
    """0 keeps the input image, 1 ignores it."""
    stretch_latents: bool = False
    """Whether the input image is resized as latents instead of pixels: for models of any size, without a mask."""
    second_pass: SecondPass | None = None
    tiles: Tiles | None = None
    mask: str | None = None
    """Blob: white is repainted, black keeps the input image."""
    mask_content: MaskContent = "original"
    """Initial content of the repainted part, besides noise."""
    paste: Paste | None = None
    references: tuple[str, ...] = ()
    """Blobs: reference images, for models that edit."""
    control: Control | None = None
    loras: tuple[Lora, ...] = ()
    subseeds: tuple[int, ...] = ()
    """One for each image where `subseed_strength` is above 0."""
    subseed_strength: float = 0.0
    """Interpolation from the noise of a seed to that of its subseed: 0 to 1."""
    previews: int = 0
    """Maximum number of previews per image."""
    sampling: Sampling | None = None
    """For Stable Diffusion; None for all other families."""
    low_ram: bool = False
    """Decode in strips or tiles and cache no freed memory: less memory at the peak, slower."""
    memory: MemoryCheck = "check"

    @property
    def inputs(self) -> frozenset[str]:
        """All blobs of the plan."""
        paste = (self.paste.picture, *self.paste.further_pictures, self.paste.mask) if self.paste else ()
        control = self.control.image if self.control else None
        return frozenset(name for name in (*self.init_images, self.mask, *paste, *self.references, control) if name)

    @property
    def tile_count(self) -> int:
        """Number of tiles per image; 1 without tiles."""
        columns, rows = self.tiles.grid(self.width_px, self.height_px) if self.tiles else (1, 1)
        return columns * rows

    @property
    def init_images(self) -> tuple[str, ...]:
        """Input images, used in turn."""
        return () if self.init_image is None else (self.init_image, *self.further_init_images)


class Upscale(Frozen):
    """Plan to upscale an image, adding details; one image per job."""

    kind: Literal["upscale"] = "upscale"
    model: str
    image: str
    """Blob."""
    width_px: int
    height_px: int
    """Size of the result: the image's proportions, rounded down to even numbers."""
    short_px: int
    """Shorter side of the result, for mflux."""
    softness: float = 0.0
    """Blur of the input image before upscaling: 0 keeps its details, 1 is an eightfold blur."""
    seed: int
    quantize: int | None = None
    drawn: str | None = None
    """The gateway's description of how the input image was generated; the engine ignores it."""
    memory: MemoryCheck = "check"

    @property
    def inputs(self) -> frozenset[str]:
        """All blobs of the plan."""
        return frozenset({self.image})


class Load(Frozen):
    """Plan to load a model into memory."""

    kind: Literal["load"] = "load"
    model: str
    quantize: int | None = None
    memory: MemoryCheck = "check"

    @property
    def inputs(self) -> frozenset[str]:
        """All blobs of the plan: none."""
        return frozenset()


class Save(Frozen):
    """Plan to write the loaded model, quantised as it is, into an empty folder; fails where another model is loaded."""

    kind: Literal["save"] = "save"
    model: str
    quantize: int
    folder: str
    """Absolute path."""


def steps_to_run(steps: int, denoise: float, sampling: Sampling | None = None) -> int:
    """Steps that img2img runs: that fraction of the requested steps, and at least one; 0 at denoise 0. Where Stable
    Diffusion is sampled, A1111's number, or all of them where the sampling says so.
    """
    if sampling is not None:
        fixed = sampling.img2img_fix_steps or sampling.first_pass_steps is not None
        return steps if fixed else int(min(denoise, 0.999) * steps) + 1
    return max(1, round(steps * denoise)) if denoise > 0 else 0


EnginePlan = Annotated[Generate | Upscale | Load | Save, Field(discriminator="kind")]
"""Plans that the engine process runs."""
