"""POST txt2img and img2img: translate the body, submit the job, wait for its end, answer with its images."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace

from starlette.requests import Request
from starlette.responses import Response

from adapters.sdapi.field_names import client_param_names
from adapters.sdapi.loras import hashes
from adapters.sdapi.options import accepted
from adapters.sdapi.protocol import body_of, origin_of
from adapters.sdapi.request_schemas import Img2Img, Txt2Img
from adapters.sdapi.requests import Translation, translate
from adapters.sdapi.responses import RenderInput, adjustments, to_body
from adapters.sdapi.state import ClientOptions, client_options, state_of
from adapters.shared.body import let_go
from adapters.shared.context import core_of, share_of
from adapters.shared.responses import adjustments_header, png_of, raise_for
from adapters.shared.waiting import attached
from engine.protocol import Generate
from gateway.context import Core
from gateway.errors import ModelNotFound
from gateway.jobs.job import Job, State
from gateway.jobs.sampling_files import FileHashes
from gateway.round_robin import Share


async def txt2img(request: Request) -> Response:
    """POST txt2img: waits for its pictures."""
    return await _generate(request, await body_of(Txt2Img, request))


async def img2img(request: Request) -> Response:
    """POST img2img: as txt2img, from start pictures."""
    return await _generate(request, await body_of(Img2Img, request))


async def _generate(request: Request, original: Txt2Img | Img2Img) -> Response:
    """Translate, submit, wait and answer. Raises: InvalidRequest, ModelNotFound, GenerationFailed, AsA1111."""
    core, choice = core_of(request), client_options(request)
    translation = await translate(
        core, original, checkpoint=choice.checkpoint, options=choice.options, share=share_of(request)
    )
    with client_param_names(translation.body):
        job = await core.service.submit(translation.request, origin_of(request))
    translation, original = replace(translation, body=without_images(translation.body)), without_images(original)
    let_go(request, vars(original))
    if original.force_task_id:
        state_of(core).tasks.put(job.owner, original.force_task_id, job.id)
    job = await attached(request, job)
    if job.state is State.FAILED:
        raise_for(job)
    if not translation.body.override_settings_restore_afterwards:
        _keep_settings(choice, translation)
    return await _answer(request, await _render_input(request, job, translation, original))


async def _render_input(
    request: Request, job: Job, translation: Translation, original: Txt2Img | Img2Img
) -> RenderInput:
    assert isinstance(job.plan, Generate)
    core = core_of(request)
    return RenderInput(
        translation.body,
        job,
        job.plan,
        translation.adjustments,
        original=original,
        output=translation.output,
        overlay=translation.images.overlay,
        params=translation.images.params,
        lora_hashes=await core.files.run(share_of(request), _hashes, core, job.plan),
        file_hashes=await _file_hashes(core, job.plan, share_of(request)),
        inpaints=_inpaints(core, job.plan),
        lora_tensors=await _tensors(core, job.plan),
    )


async def _answer(request: Request, result: RenderInput) -> Response:
    """The response with the images of an ended job; those that were finished, where it was interrupted."""
    pngs = [await png_of(request, image) for image in result.job.images] if result.body.send_images else []
    body = await asyncio.to_thread(to_body, result, pngs)
    return Response(body, media_type="application/json", headers=adjustments_header(adjustments(result)))


def without_images(body: Txt2Img | Img2Img) -> Txt2Img | Img2Img:
    """The body without images that are stored or never read, and that the answer does not repeat."""
    update: dict[str, object] = {"firstpass_image": None}
    if isinstance(body, Img2Img):
        update["latent_mask"] = None
        if not body.include_init_images:
            update |= {"init_images": [], "mask": None}
    return body.model_copy(update=update)


def _hashes(core: Core, plan: Generate) -> Mapping[str, str]:
    return hashes((lora.name for lora in plan.loras), core.library.loras) if plan.loras else {}


def _inpaints(core: Core, plan: Generate) -> bool:
    with suppress(ModelNotFound):
        return core.library.find(plan.model).inpaints
    return False


async def _file_hashes(core: Core, plan: Generate, share: Share) -> FileHashes:
    return FileHashes() if plan.sampling is None else await core.files.run(share, core.library.files.hashes, plan)


async def _tensors(core: Core, plan: Generate) -> Mapping[str, tuple[int, int]]:
    """The counts of LoRA tensors; none where the model was removed meanwhile."""
    loras = core.library.loras
    with suppress(ModelNotFound):
        names = [lora.name for lora in plan.loras]
        return await loras.off_loop(loras.tensors, names, core.library.find(plan.model)) if names else {}
    return {}


def _keep_settings(choice: ClientOptions, translation: Translation) -> None:
    """Keep the `override_settings` of a body. Source: A1111 1.10.1 `override_settings_restore_afterwards`."""
    settings = translation.body.override_settings
    choice.options.update(accepted(settings))
    if settings.get("sd_model_checkpoint") and translation.checkpoint:
        choice.checkpoint = translation.checkpoint
