"""Request bodies of /sdapi/v1. Names and defaults are those of the wire; requests.py has their meaning."""

from __future__ import annotations

from typing import Any, ClassVar, Literal, Self

from pydantic import (
    ConfigDict,
    Field,
    ModelWrapValidatorHandler,
    PrivateAttr,
    ValidationError,
    model_validator,
)

from adapters.sdapi.values import Bool, Float, Floats, Guidance, Ignored, Int, Names, Object, Seed, Share, Str, Text
from adapters.shared.body import names_of
from gateway.http.unknown_images import unknown_images
from gateway.lazy_model import LazyModel

BORROWED = frozenset(
    {
        "distilled_cfg_scale",
        "distilled_guidance",
        "extra_images",
        "guidance",
        "hr_cfg",
        "image_strength",
        "lora",
        "lora_files",
        "lora_scales",
        "low_ram",
        "memory",
        "mode",
        "model",
        "num_images",
    }
)
"""Keys of other dialects, which A1111 ignores: a value that is invalid in its dialect is ignored, not refused."""
SD_UPSCALE = "sd upscale"
UNREAD = frozenset({"firstpass_image", "latent_mask"})
"""Image fields of A1111 that are not used here."""


class Payload(LazyModel):
    """Unknown keys are nothing, and null is as good as absent: clients send both everywhere."""

    model_config = ConfigDict(frozen=True, extra="ignore", protected_namespaces=())

    tells_unknown_images: ClassVar[bool] = True
    """Unknown fields with images give adjustments, because A1111 ignores unknown fields."""

    @model_validator(mode="before")
    @classmethod
    def _without_nulls(cls, value: object) -> object:
        return {key: item for key, item in value.items() if item is not None} if isinstance(value, dict) else value


class LoraItem(Payload):
    """Source: stable-diffusion.cpp examples/server, `lora`."""

    path: Str = ""
    multiplier: Float = 1.0


class Generation(Payload):
    """What txt2img and img2img share."""

    @property
    def first_size(self) -> tuple[int, int]:
        """Width and height of the first pass, in pixels."""
        return self.width, self.height

    @property
    def is_sd_upscale(self) -> bool:
        """Whether the body selects the script "SD upscale", the only selectable one, which is of img2img."""
        return False

    _untaken: tuple[str, ...] = PrivateAttr(default=())
    _unknown_images: tuple[str, ...] = PrivateAttr(default=())

    @property
    def untaken(self) -> tuple[str, ...]:
        """Borrowed keys with values that are invalid in their dialect: they count as not sent."""
        return self._untaken

    @property
    def unknown_images(self) -> tuple[str, ...]:
        """Unknown keys in which images were sent."""
        return self._unknown_images

    @model_validator(mode="wrap")
    @classmethod
    def _without_untaken(cls, value: Any, handler: ModelWrapValidatorHandler[Self]) -> Self:
        untaken: set[str] = set()
        try:
            payload = handler(value)
        except ValidationError as error:
            untaken = {str(found["loc"][0]) for found in error.errors() if found["loc"]} & BORROWED
            if not untaken:
                raise
            payload = handler({key: item for key, item in value.items() if key not in untaken})
        payload._untaken = tuple(sorted(untaken))
        if isinstance(value, dict):
            payload._unknown_images = tuple(unknown_images(value, names_of(cls) - UNREAD))
        return payload

    # Source: A1111 1.10.1 StableDiffusionProcessing: what to draw
    prompt: Str = ""
    negative_prompt: Str = ""
    styles: Names = Field([])
    seed: Seed = -1
    subseed: Seed = -1
    subseed_strength: Float = 0.0
    seed_resize_from_h: Int = -1
    seed_resize_from_w: Int = -1
    sampler_name: Str | None = None
    sampler_index: Str = "Euler"
    scheduler: Str | None = None
    batch_size: Int = 1
    n_iter: Int = 1
    steps: Int | None = None
    cfg_scale: Float | None = None
    width: Int = 512
    height: Int = 512
    denoising_strength: Float = 0.75

    # Source: A1111 1.10.1 StableDiffusionProcessing: what surrounds it; Stable Diffusion reads the numbers
    restore_faces: Bool | None = None
    tiling: Bool | None = None
    do_not_save_samples: Ignored = False
    do_not_save_grid: Ignored = False
    eta: Ignored = None
    s_min_uncond: Ignored = None
    s_churn: Ignored = None
    s_tmax: Ignored = None
    s_tmin: Ignored = None
    s_noise: Ignored = None
    override_settings: Object = Field({})
    override_settings_restore_afterwards: Bool = True
    refiner_checkpoint: Str | None = None
    refiner_switch_at: Ignored = None
    disable_extra_networks: Bool = False
    firstpass_image: Ignored = None
    comments: Ignored = None

    # Source: A1111 1.10.1 modules/api/models.py: the API's own
    script_name: Str | None = None
    script_args: Ignored = Field([])
    alwayson_scripts: Object = Field({})
    send_images: Bool = True
    save_images: Bool = False
    force_task_id: Str | None = None
    infotext: Str | None = None

    # Source: Forge (distilled_cfg_scale); KoboldCpp (distilled_guidance, extra_images); stable-diffusion.cpp
    # (extra_images, lora); ours: mode "edit"
    distilled_cfg_scale: Guidance | None = None
    distilled_guidance: Guidance | None = None
    extra_images: Names = Field([])
    lora: list[LoraItem] = Field([])
    mode: Str | None = None

    # Source: MFLUX API documentation 2.0, "POST /sdapi/v1/txt2img"
    model: Text | None = None
    sd_model_checkpoint: Str | None = None
    guidance: Guidance | None = None
    num_images: Int | None = None
    lora_files: Names = Field([])
    lora_scales: Floats = Field([])
    low_ram: Bool = False

    # Ours: "try" draws what seems not to fit into memory
    memory: Literal["check", "try"] | None = None


class Txt2Img(Generation):
    """Source: A1111 1.10.1 StableDiffusionProcessingTxt2Img: the second pass ("hires fix")."""

    enable_hr: Bool = False
    firstphase_width: Int = 0
    firstphase_height: Int = 0
    hr_scale: Float = 2.0
    hr_upscaler: Str | None = None
    hr_second_pass_steps: Int = 0
    hr_resize_x: Int = 0
    hr_resize_y: Int = 0
    hr_checkpoint_name: Str | None = None
    hr_sampler_name: Str | None = None
    hr_scheduler: Str | None = None
    hr_prompt: Str = ""
    hr_negative_prompt: Str = ""

    # Source: Forge
    hr_cfg: Float | None = None

    @property
    def first_size(self) -> tuple[int, int]:
        """Width and height of the first pass. Source: A1111's old hires fix had them in `firstphase_*`."""
        if self.enable_hr and self.firstphase_width > 0 and self.firstphase_height > 0:
            return self.firstphase_width, self.firstphase_height
        return self.width, self.height


class Img2Img(Generation):
    """Source: A1111 1.10.1 StableDiffusionProcessingImg2Img; `image_strength` is the seed document's denoise."""

    init_images: Names = Field([])
    resize_mode: Int = 0
    image_cfg_scale: Ignored = None
    image_strength: Share | None = None
    mask: Str | None = None
    mask_blur: Float | None = None
    mask_blur_x: Float = 4.0
    mask_blur_y: Float = 4.0
    mask_round: Bool = True
    inpainting_fill: Int = 0
    inpaint_full_res: Bool = True
    inpaint_full_res_padding: Int = 0
    inpainting_mask_invert: Bool = False
    initial_noise_multiplier: Ignored = None
    latent_mask: Ignored = None
    include_init_images: Bool = False

    @property
    def is_sd_upscale(self) -> bool:
        """Whether the body selects "SD upscale". Source: A1111 1.10.1 scripts/sd_upscale.py; case is ignored."""
        return (self.script_name or "").lower() == SD_UPSCALE


class OptionsBody(Payload):
    """POST /options: any object. Source: A1111 1.10.1 modules/shared_options.py."""

    model_config = ConfigDict(extra="allow")

    sd_model_checkpoint: Str | None = None


class Extras(Payload):
    """Source: A1111 1.10.1 ExtrasBaseRequest."""

    resize_mode: Int = 0
    show_extras_results: Ignored = True
    gfpgan_visibility: Float = 0.0
    codeformer_visibility: Float = 0.0
    codeformer_weight: Float = 0.0
    upscaling_resize: Float = 2.0
    upscaling_resize_w: Int = 512
    upscaling_resize_h: Int = 512
    upscaling_crop: Bool = True
    upscaler_1: Str = "None"
    upscaler_2: Str = "None"
    extras_upscaler_2_visibility: Float = 0.0
    upscale_first: Ignored = False

    # Ours, as of txt2img
    memory: Literal["check", "try"] | None = None


class ExtraSingle(Extras):
    image: Str = ""


class FileData(Payload):
    data: Str
    name: Ignored = None


class ExtraBatch(Extras):
    imageList: list[FileData]


class PngInfo(Payload):
    image: Str


class Interrogate(Payload):
    image: Ignored = ""
    model: Str = "clip"


class TaskProgress(Payload):
    """Source: A1111 1.10.1 modules/progress.py ProgressRequest."""

    id_task: Str = ""
    id_live_preview: Int = -1
    live_preview: Bool = True
