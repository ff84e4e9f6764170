"""Plans that the engine runs: every field that decides the image is set."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

UNCACHED = ConfigDict(cache_strings="keys")
"""Of TypeAdapters: pydantic would keep thousands of ids and hashes that never come again."""


class Frozen(BaseModel):
    """A value: never changed, no unknown fields."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Paste(Frozen):
    """Where a drawn picture belongs in a larger one. Boxes in pixels of that picture."""

    picture: str
    """Blob: the picture to lay the drawn one into; the result has its size."""
    further_pictures: tuple[str, ...] = ()
    """Blobs: what the pictures after the first are laid into in turn, one for each `further_init_images`."""
    mask: str
    """Blob: the drawn one shows where this is white, the old one where it is black."""
    left_px: int
    top_px: int
    width_px: int
    height_px: int


class Lora(Frozen):
    """A LoRA of the library, by its name there."""

    name: str
    scale: float = 1.0


MaskContent = Literal["original", "noise", "nothing"]
MemoryCheck = Literal["check", "try"]
"""Whether a job that seems not to fit into memory is refused, or done all the same as far as it goes."""


class Control(Frozen):
    """A picture whose outlines or depths the drawn one follows, by a model that has learnt to."""

    kind: Literal["canny", "depth"]
    image: str
    """Blob: for `depth` the map itself, near parts light."""
    is_map: bool = True
    """For `canny`: whether the picture is white edges on black already, or its edges are still to be found."""
    strength: float = 1.0
    """How closely: 0 to 2."""


class SecondPass(Frozen):
    """The drawn picture, enlarged so that it covers this size, cropped to it, and drawn over: "hires fix"."""

    width_px: int
    height_px: int
    steps: int
    denoise: float
    """0 leaves the enlarged picture as it is, 1 ignores it."""
    enlarge: Literal["lanczos", "nearest"] = "lanczos"
    prompt: str | None = None
    """Where it is another one than the first pass's."""


class Tiles(Frozen):
    """The input picture, enlarged, and drawn over in tiles of the plan's size that overlap: "SD upscale".

    Source: A1111 1.10.1 scripts/sd_upscale.py, modules/images.py split_grid.
    """

    width_px: int
    height_px: int
    """Of the result."""
    overlap_px: int
    enlarge: Literal["lanczos", "nearest"] = "lanczos"
    batch: int = 1
    """So many tiles have seeds that follow one another; each batch begins one seed after the one before."""

    def grid(self, tile_width_px: int, tile_height_px: int) -> tuple[int, int]:
        """Columns and rows of tiles."""
        sides = ((self.width_px, tile_width_px), (self.height_px, tile_height_px))
        columns, rows = (max(1, -((self.overlap_px - whole) // (tile - self.overlap_px))) for whole, tile in sides)
        return columns, rows

    def corners(self, tile_width_px: int, tile_height_px: int) -> tuple[list[int], list[int]]:
        """Where columns begin, and rows; below 0 where the picture is smaller than a tile."""
        columns, rows = self.grid(tile_width_px, tile_height_px)
        return _starts(columns, self.width_px, tile_width_px), _starts(rows, self.height_px, tile_height_px)


def _starts(count: int, whole_px: int, tile_px: int) -> list[int]:
    last = whole_px - tile_px
    step = last / (count - 1) if count > 1 else 0.0
    # A1111's last one can fall a pixel short of the edge, by the rounding of floats.
    return [*(min(int(i * step), last) for i in range(count - 1)), last]


class Generate(Frozen):
    """Draw one picture a seed. The same plan gives the same pixels, always. Blobs are named by their sha256."""

    kind: Literal["generate"] = "generate"
    model: str
    prompt: str
    width_px: int
    height_px: int
    steps: int
    guidance: float
    negative_prompt: str | None = None
    """What to stay away from, for models that can; counts where guidance is above 1."""
    seeds: tuple[int, ...]
    quantize: int | None = None
    init_image: str | None = None
    """Blob."""
    further_init_images: tuple[str, ...] = ()
    """Blobs: the pictures after the first begin from these in turn, then from `init_image` again."""
    denoise: float = 1.0
    """0 keeps the input picture, 1 ignores it."""
    stretch_latents: bool = False
    """The input picture is brought to the size drawn as latents, not as pixels: by models of any size, unmasked."""
    second_pass: SecondPass | None = None
    tiles: Tiles | None = None
    mask: str | None = None
    """Blob: white is repainted, black stays as the input picture is."""
    mask_content: MaskContent = "original"
    """What the repainted part begins from, besides noise."""
    paste: Paste | None = None
    references: tuple[str, ...] = ()
    """Blobs: pictures that the drawn one follows, for models that edit."""
    control: Control | None = None
    loras: tuple[Lora, ...] = ()
    subseeds: tuple[int, ...] = ()
    """One a picture where `subseed_strength` is above 0."""
    subseed_strength: float = 0.0
    """How far the noise of a seed goes over into that of its subseed: 0 to 1."""
    previews: int = 0
    """At most this many previews a picture."""
    low_ram: bool = False
    """Decode in strips or tiles and keep no freed memory: less at the peak, slower."""
    memory: MemoryCheck = "check"

    @property
    def inputs(self) -> frozenset[str]:
        """All blobs the plan names."""
        paste = (self.paste.picture, *self.paste.further_pictures, self.paste.mask) if self.paste else ()
        control = self.control.image if self.control else None
        return frozenset(name for name in (*self.init_images, self.mask, *paste, *self.references, control) if name)

    @property
    def tile_count(self) -> int:
        """How often each picture is drawn: once, but for tiles."""
        columns, rows = self.tiles.grid(self.width_px, self.height_px) if self.tiles else (1, 1)
        return columns * rows

    @property
    def init_images(self) -> tuple[str, ...]:
        """What the pictures begin from, in turn."""
        return () if self.init_image is None else (self.init_image, *self.further_init_images)


class Upscale(Frozen):
    """Draw a picture larger, with details that it did not have; one picture a job."""

    kind: Literal["upscale"] = "upscale"
    model: str
    image: str
    """Blob."""
    width_px: int
    height_px: int
    """Of the result: the picture's proportions, rounded down to even numbers."""
    short_px: int
    """The result's shorter side, as mflux is told."""
    softness: float = 0.0
    """0 keeps what the picture has of detail, 1 blurs it eightfold before: 0 to 1."""
    seed: int
    quantize: int | None = None
    drawn: str | None = None
    """How the picture was drawn before, in the gateway's words; nothing that an engine goes by."""
    memory: MemoryCheck = "check"

    @property
    def inputs(self) -> frozenset[str]:
        """All blobs the plan names."""
        return frozenset({self.image})


class Load(Frozen):
    """Bring a model into memory."""

    kind: Literal["load"] = "load"
    model: str
    quantize: int | None = None
    memory: MemoryCheck = "check"

    @property
    def inputs(self) -> frozenset[str]:
        """All blobs the plan names: none."""
        return frozenset()


class Save(Frozen):
    """Write the loaded model, quantised as it is, into an empty folder; fails where another one is loaded."""

    kind: Literal["save"] = "save"
    model: str
    quantize: int
    folder: str
    """Absolute."""


def steps_to_run(steps: int, denoise: float) -> int:
    """Steps an img2img picture runs: that fraction of the steps asked for, and one at least; 0 at denoise 0."""
    return max(1, round(steps * denoise)) if denoise > 0 else 0


EnginePlan = Annotated[Generate | Upscale | Load | Save, Field(discriminator="kind")]
"""What the engine's child may be told to do."""
