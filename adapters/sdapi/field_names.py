"""The field names of /sdapi by the parameter names of the core. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from adapters.sdapi.request_schemas import Generation
from adapters.sdapi.sampling_options import FIELDS
from gateway.errors import InvalidRequest
from gateway.jobs.resolve import Adjustment

GUIDANCE_FIELDS = ("guidance", "distilled_cfg_scale", "distilled_guidance", "cfg_scale")
"""Fields for the guidance; the first one that was sent counts."""
SAMPLING = "sampling."
"""What the core's names of the values of a `SamplingRequest` begin with."""
SECOND_PASS_FIELDS = {
    "second_pass.prompt": "hr_prompt",
    "second_pass.negative_prompt": "hr_negative_prompt",
    "second_pass.guidance": "hr_cfg",
    "second_pass.sampler": "hr_sampler_name",
    "second_pass.schedule": "hr_scheduler",
    "second_pass.enlarge": "hr_upscaler",
}
SAMPLING_FIELDS = {
    "seed_resize_width": "seed_resize_from_w",
    "seed_resize_height": "seed_resize_from_h",
    "refiner": "refiner_checkpoint",
}
"""Fields of a body whose names differ from those of a `SamplingRequest`."""


def field_of(body: Generation, param: str) -> str:
    """The field in which this client sent the core's parameter `param`."""

    def sent_field(*names: str) -> str:
        return next((name for name in names if name in body.model_fields_set), names[-1])

    match param:
        case "guidance":
            return sent_field(*GUIDANCE_FIELDS)
        case "count":
            return sent_field("num_images", "n_iter", "batch_size")
        case "denoise":
            return sent_field("image_strength", "denoising_strength")
        case "loras":
            return sent_field("lora_files", "lora", "prompt")
        case "second_pass":
            return sent_field("hr_resize_x", "hr_resize_y", "hr_second_pass_steps", "hr_scale")
        case "tiles":
            return sent_field("script_args", "script_name")
        case _ if param in SECOND_PASS_FIELDS:
            return SECOND_PASS_FIELDS[param]
        case "sampling.sampler":
            return sent_field("sampler_name", "sampler_index", "sampler_name")
        case "sampling.schedule":
            return sent_field("scheduler", "sampler_name", "scheduler")
        case _ if param.startswith(SAMPLING):
            return _field_of_sampling(body, param.removeprefix(SAMPLING))
        case "control":
            return "alwayson_scripts"
        case "init_image":
            return "init_images"
        case "references":
            return sent_field("extra_images", "init_images")
        case "model":
            return sent_field("model", "sd_model_checkpoint", "override_settings")
        case _:
            return param


def _field_of_sampling(body: Generation, name: str) -> str:
    """The field of a body for a value of a `SamplingRequest`, or the option that it comes from."""
    field = SAMPLING_FIELDS.get(name, name)
    if field in body.model_fields_set or field in SAMPLING_FIELDS.values():
        return field
    options = [option for option, of in FIELDS.items() if of == name]
    option = next((one for one in options if one in body.override_settings), (options or [field])[0])
    return f"override_settings.{option}" if options else field


@contextmanager
def client_param_names(body: Generation) -> Iterator[None]:
    """Errors of the core within this context name the parameter as this client sent it."""
    try:
        yield
    except InvalidRequest as error:
        error.param = field_of(body, error.param) if error.param else None
        raise


def adjustments_of(body: Generation, ours: tuple[Adjustment, ...], cores: tuple[Adjustment, ...]) -> list[Adjustment]:
    """All adjustments, under the client's own field names and with the values that it sent."""
    renamed: list[Adjustment] = []
    for item in cores:
        update: dict[str, object] = {"param": field_of(body, item.param)}
        if item.param == "steps":
            update["asked"] = body.steps
        renamed.append(item.model_copy(update=update))
    known = {item.param for item in renamed}
    return [*(item for item in ours if item.param != "steps" or "steps" not in known), *renamed]
