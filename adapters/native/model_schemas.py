"""Types of what /api/v1 answers about models and LoRAs, of which the OpenAPI document is made. Knows no model."""

from __future__ import annotations

from typing import Literal

from typing_extensions import TypedDict


class ModelConfig(TypedDict):
    base_arch: str
    supports_guidance: bool
    max_sequence_length: int | None


class Capabilities(TypedDict):
    """What the model can do, and what it draws with where nothing is said. `native_px` is the only edge length that
    it knows; sizes are multiples of `step_px` from `min_px` to `max_px`, of `max_pixels` at most; `control` is the kind
    of map that its ControlNet follows; `draws` is all that it can draw, empty for a model of any prompt;
    `samplers` and `schedules` are those of Stable Diffusion, empty for other models."""

    task: Literal["generate", "upscale"]
    default_px: int
    native_px: int | None
    step_px: int
    min_px: int
    max_px: int
    max_pixels: int
    default_steps: int
    min_steps: int
    max_steps: int
    default_guidance: float
    guidance_range: list[float]
    guidance: bool
    negative_prompt: bool
    init_image: bool
    mask: bool
    needs_mask: bool
    max_references: int
    needs_reference: bool
    lora: bool
    control: Literal["canny", "depth"] | None
    draws: list[str]
    samplers: list[str]
    schedules: list[str]
    unscheduled_samplers: list[str]
    """Samplers with timesteps of their own, which read no schedule."""
    default_sampler: str | None
    """null, as `default_schedule`, where there is nothing to choose from."""
    default_schedule: str | None
    clip_skip: bool
    """Whether `sampling.clip_skip` changes its pictures."""
    text_widths: list[int]
    """Widths of the text encoders of Stable Diffusion: a textual inversion of the same widths fits."""


class DownloadShown(TypedDict):
    """The job that brings a model from the hub; bytes are null before the hub has told the sizes."""

    job_id: str
    status: Literal["queued", "downloading"]
    done_bytes: int | None
    total_bytes: int | None
    bytes_per_second: int | None
    percent: int | None
    eta_seconds: float | None


class ModelShown(TypedDict):
    """One model. `hash` is the first ten digits of `sha256`, that of its transformer's weights or of a checkpoint's
    file; null where these are not here, are in several files, are too large to be read for it, or were not read yet."""

    title: str
    model_name: str
    hash: str | None
    sha256: str | None
    config: ModelConfig
    downloaded: bool
    removable: bool
    """This gateway downloaded it, so that `DELETE` takes it off the disk."""
    download: DownloadShown | None
    size_gb: float
    description: str
    licence: str
    gated: bool
    revision: str | None
    stored_bits: int | None
    default: bool
    quantize: int | None
    default_steps: int
    max_references: int
    unavailable: str | None
    capabilities: Capabilities
    alias_of: str | None


class LoraShown(TypedDict):
    """One LoRA. `hash` is A1111's, of the weights alone; the hashes are null until the file was read for them."""

    name: str
    aliases: list[str]
    """What else it may be called."""
    title: str | None
    trigger_words: list[str]
    activation_text: str | None
    """What a prompt should say."""
    preferred_scale: float | None
    base_model: str | None
    """In its maker's words."""
    models: list[str]
    """Those it fits, checkpoints of the operator included."""
    rank: int | None
    tensors: int | None
    """In its file."""
    tensors_used: dict[str, int]
    """By model that it fits: how many of them count there."""
    size_bytes: int
    sha256: str | None
    hash: str | None
    preview_url: str | None
    downloaded: bool
    """Else it is fetched when it is asked for, unless that is its `trouble`."""
    repo: str | None
    """Where the settings say it is on the hub."""
    trouble: str | None
    """Why it cannot be used."""


class LoraDetail(LoraShown):
    description: str
    metadata: dict[str, str]
    """What its trainer wrote, without what may name folders."""


class Loras(TypedDict):
    loras: list[LoraShown]


class EmbeddingShown(TypedDict):
    """One textual inversion, which prompts call by its name."""

    name: str
    vectors: int
    """Tokens that it takes."""
    widths: list[int]
    """Of its vectors, one for each text encoder: it fits models with these `text_widths`."""


class Models(TypedDict):
    models: list[ModelShown]
    vaes: list[str]
    """Names of VAE files, for models with `samplers`."""
    embeddings: list[EmbeddingShown]


class ModelStatus(TypedDict):
    """`path` is the name of the folder, without where it lies."""

    model: str
    status: Literal["ready", "loading", "unavailable", "downloading", "missing"]
    downloaded: bool
    download: DownloadShown | None
    loaded: bool
    size_gb: float
    path: str | None


class Removed(TypedDict):
    model: str
    removed: bool


class Unloaded(TypedDict):
    """`unloaded` is false where the model was not in memory."""

    model: str
    unloaded: bool


class Cleared(TypedDict):
    """`cleared` is false where nothing was held against the model."""

    model: str
    cleared: bool
