"""The field names of /sdapi by the parameter names of the core. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from adapters.sdapi.request_schemas import Generation
from gateway.errors import InvalidRequest
from gateway.jobs.resolve import Adjustment

GUIDANCE_FIELDS = ("guidance", "distilled_cfg_scale", "distilled_guidance", "cfg_scale")
"""Fields for the guidance; the first one that was sent counts."""


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
        case "second_pass.prompt":
            return "hr_prompt"
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
