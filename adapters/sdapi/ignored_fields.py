"""Fields of txt2img and img2img that have no effect here, as adjustments for the client. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from reprlib import repr as brief

from adapters.sdapi.lists import HR_UPSCALERS, STAND_IN, stands_in_for
from adapters.sdapi.options import CONSTANTS, MEMORY, accepted
from adapters.sdapi.request_schemas import Generation, Img2Img, Txt2Img
from adapters.sdapi.sampling import LATENT_UPSCALERS, SAME, adjustments_of_tags, has_tags
from adapters.sdapi.sampling_options import SAMPLING_OPTIONS
from gateway.errors import clip
from gateway.images.infotext import SAMPLER, SCHEDULER
from gateway.jobs.resolve import Adjustment


def ignored(body: Txt2Img | Img2Img, steps: int | None, *, is_sampled: bool = False) -> Iterator[Adjustment]:
    """Adjustments for fields that have no effect, or another one than requested; `steps` are those of the job.

    `is_sampled`: the model is Stable Diffusion, whose sampling the core decides.
    """
    if steps != body.steps:
        yield Adjustment(param="steps", asked=body.steps, used=steps, reason="this is the most a job may take")
    yield from adjustments_of_tags(body) if is_sampled else _unsampled(body)
    for name in body.untaken:
        yield Adjustment(
            param=name, asked=None, used=None, reason="A1111 has no such field, and what it holds means nothing here"
        )
    for name in body.unknown_images[:32]:
        yield Adjustment(
            param=clip(name),
            asked=None,
            used=None,
            reason="nothing here reads a picture in this field: it was left out",
        )
    if body.num_images is not None and body.num_images < 1:
        yield Adjustment(
            param="num_images", asked=body.num_images, used=None, reason="there must be at least one picture"
        )
    for name in ("restore_faces", "tiling"):
        if getattr(body, name):
            yield Adjustment(param=name, asked="true", used=None, reason="there is no such thing here")
    if isinstance(body, Txt2Img) and body.enable_hr:
        yield from _ignored_hires(body, is_sampled)
    if isinstance(body, Img2Img) and body.mask and not body.mask_round:
        yield Adjustment(
            param="mask_round", asked="false", used="true", reason="latents are repainted or kept, nothing between"
        )
    yield from _ignored_settings(body, is_sampled)


def _unsampled(body: Generation) -> Iterator[Adjustment]:
    """Adjustments for the sampler and schedule of other models than Stable Diffusion."""
    sampler = body.sampler_name or body.sampler_index
    if sampler not in ("", SAMPLER):
        yield Adjustment(param="sampler_name", asked=clip(sampler), used=SAMPLER, reason="the only sampler there is")
    if (body.scheduler or "").lower() not in ("", "automatic", SCHEDULER.lower()):
        yield Adjustment(
            param="scheduler", asked=clip(body.scheduler or ""), used=SCHEDULER, reason="the only schedule there is"
        )


def _ignored_hires(body: Txt2Img, is_sampled: bool) -> Iterator[Adjustment]:
    upscaler = body.hr_upscaler or ""
    here = LATENT_UPSCALERS if is_sampled else {}
    if upscaler not in HR_UPSCALERS and upscaler not in here and stands_in_for(upscaler):
        is_latent = upscaler.lower().startswith("latent")
        reason = "pictures are enlarged, not latents" if is_latent else "that model is not here"
        yield Adjustment(param="hr_upscaler", asked=clip(upscaler), used=STAND_IN, reason=reason)
    if body.hr_negative_prompt and not is_sampled:
        yield Adjustment(
            param="hr_negative_prompt", asked=clip(body.hr_negative_prompt), used=None, reason="these models take none"
        )
    if body.hr_cfg is not None and not is_sampled:
        yield Adjustment(param="hr_cfg", asked=body.hr_cfg, used=None, reason="both passes are drawn alike")
    of_pass = () if is_sampled else (("hr_sampler_name", SAMPLER), ("hr_scheduler", SCHEDULER))
    for name, used in (("hr_checkpoint_name", None), *of_pass):
        value = getattr(body, name) or ""
        if value.lower() not in (*SAME, "automatic") and value != used:
            yield Adjustment(param=name, asked=clip(value), used=used, reason="both passes are drawn alike")
    if has_tags(body.hr_prompt):
        yield Adjustment(
            param="hr_prompt", asked="LoRA tags", used=None, reason="both passes are drawn with the LoRAs of the prompt"
        )


def _ignored_settings(body: Generation, is_sampled: bool) -> Iterator[Adjustment]:
    settings = body.override_settings
    can_be_set = {name for name in accepted(settings) if is_sampled or name not in SAMPLING_OPTIONS}
    for name, value in list(settings.items())[:32]:
        if name == "sd_model_checkpoint" or value is None or value == CONSTANTS.get(name) or name in can_be_set:
            continue
        if name == MEMORY and value in ("check", "try"):
            continue
        shown = value if isinstance(value, int | float) else clip(value if isinstance(value, str) else brief(value))
        used = CONSTANTS.get(name)
        yield Adjustment(
            param=f"override_settings.{clip(name)}",
            asked=shown,
            used=used if isinstance(used, str | int | float) else None,
            reason="this setting has no effect here",
        )
