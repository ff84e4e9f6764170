"""POST txt2img and img2img: parse, gather the pictures, submit, wait, tell."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterator, Mapping
from functools import partial

from starlette.requests import Request
from starlette.responses import Response

from adapters.sdapi.control import controlled
from adapters.sdapi.loras import hashes
from adapters.sdapi.options import accepted, look_of
from adapters.sdapi.own_scripts import with_own_scripts
from adapters.sdapi.payloads import Img2Img, Txt2Img
from adapters.sdapi.reply import RenderInput, adjustments, to_body
from adapters.sdapi.request import dropped, field_of, is_sd_upscale, model_of, refuse, to_request
from adapters.sdapi.routing import body_of, origin_of, post
from adapters.sdapi.said import completed
from adapters.sdapi.sd_upscale import tiled_inputs
from adapters.sdapi.start import inputs_of
from adapters.sdapi.state import Chosen, chosen, state_of
from adapters.sdapi.styles import styled, styles_of
from adapters.sdapi.tags import without_hash
from adapters.shared.body import let_go
from adapters.shared.context import core_of, share_of
from adapters.shared.responses import adjustments_header, png_of, raise_for
from adapters.shared.waiting import attached
from engine.protocol import Generate
from gateway.context import Core
from gateway.errors import InvalidRequest, ModelNotFound, clip
from gateway.jobs.job import State
from gateway.jobs.resolve import Adjustment

WEIGHTS = (".ckpt", ".safetensors", ".pt", ".pth", ".gguf")


async def txt2img(request: Request) -> Response:
    """POST txt2img: waits for its pictures."""
    return await _drawn(request, await body_of(Txt2Img, request))


async def img2img(request: Request) -> Response:
    """POST img2img: as txt2img, from start pictures."""
    return await _drawn(request, await body_of(Img2Img, request))


async def _drawn(request: Request, sent: Txt2Img | Img2Img) -> Response:
    """Raises: InvalidRequest, ModelNotFound, GenerationFailed, AsA1111."""
    core, share = core_of(request), share_of(request)
    generation = core.settings.generation
    asked: Txt2Img | Img2Img = sent
    left_out: tuple[Adjustment, ...] = ()
    if sent.infotext:
        asked, left_out = await core.files.run(share, completed, sent, partial(_knows, core))
    styles = await asyncio.to_thread(styles_of, generation.styles_file) if asked.styles else ()
    asked, unknown = styled(asked, styles)
    asked, of_scripts = with_own_scripts(asked)
    asked, foreign = _without_foreign_model(core, asked)
    refuse(asked)
    choice = chosen(request)
    look = look_of(choice.options, asked.override_settings)
    with _client_names(asked):
        spec = core.library.find(model_of(asked) or choice.checkpoint)
        followed = None if is_sd_upscale(asked) else await controlled(core, asked, spec, share)
        if isinstance(asked, Img2Img) and is_sd_upscale(asked):
            inputs = await tiled_inputs(core, asked, spec, look, share)
        else:
            inputs = await inputs_of(core, asked, spec if followed is None else followed.spec, look, share)
        translated = to_request(
            asked,
            checkpoint=choice.checkpoint,
            limits=generation.limits,
            previews=generation.previews and look.previews,
            inputs=inputs,
        )
        wanted = translated.request
        if followed is not None:
            left_out = (*left_out, *followed.dropped)
            wanted = wanted.model_copy(update={"model": followed.spec.name, "control": followed.control})
        job = await core.service.submit(wanted, origin_of(request))
    asked, sent = without_pictures(asked), without_pictures(sent)
    let_go(request, vars(sent))
    if asked.force_task_id:
        state_of(core).tasks.put(job.owner, asked.force_task_id, job.id)
    job = await attached(request, job)
    if job.state is State.FAILED:
        raise_for(job)
    if not asked.override_settings_restore_afterwards:
        _keep_settings(choice, asked)
    assert isinstance(job.plan, Generate)
    told = RenderInput(
        asked,
        job,
        job.plan,
        (*left_out, *unknown, *of_scripts, *foreign, *translated.adjustments),
        sent=sent,
        look=look,
        overlay=inputs.overlay,
        params=inputs.params,
        lora_hashes=await core.files.run(share, _hashes, core, job.plan),
        lora_tensors=await _tensors(core, job.plan),
    )
    return await _told(request, told)


async def _told(request: Request, told: RenderInput) -> Response:
    """The pictures of an ended job; an interrupted one answers with those it has."""
    pngs = [await png_of(request, image) for image in told.job.images] if told.asked.send_images else []
    body = await asyncio.to_thread(to_body, told, pngs)
    return Response(body, media_type="application/json", headers=adjustments_header(adjustments(told)))


def without_pictures(asked: Txt2Img | Img2Img) -> Txt2Img | Img2Img:
    """Without the pictures that are stored by now, or never looked at, and that the reply does not repeat."""
    update: dict[str, object] = {"firstpass_image": None}
    if isinstance(asked, Img2Img):
        update["latent_mask"] = None
        if not asked.include_init_images:
            update |= {"init_images": [], "mask": None}
    return asked.model_copy(update=update)


def _without_foreign_model(core: Core, asked: Txt2Img | Img2Img) -> tuple[Txt2Img | Img2Img, tuple[Adjustment, ...]]:
    """Clients of A1111 send a checkpoint's file in `model`, which A1111 ignores; a name alone is meant for us."""
    if asked.model is None or not asked.model.lower().endswith(WEIGHTS) or _knows(core, without_hash(asked.model)):
        return asked, ()
    told = dropped("model", clip(asked.model), None, "there is no such model here, and A1111 has no such field")
    return asked.model_copy(update={"model": None}), (told,)


def _knows(core: Core, name: str) -> bool:
    with contextlib.suppress(ModelNotFound):
        return core.library.find(name) is not None
    return False


def _hashes(core: Core, plan: Generate) -> Mapping[str, str]:
    return hashes((lora.name for lora in plan.loras), core.library.loras) if plan.loras else {}


async def _tensors(core: Core, plan: Generate) -> Mapping[str, tuple[int, int]]:
    """Nothing where the model has been taken away since."""
    loras = core.library.loras
    with contextlib.suppress(ModelNotFound):
        names = [lora.name for lora in plan.loras]
        return await loras.off_loop(loras.tensors, names, core.library.find(plan.model)) if names else {}
    return {}


def _keep_settings(choice: Chosen, asked: Txt2Img | Img2Img) -> None:
    """What `override_settings` set stays set. Source: A1111 1.10.1 `override_settings_restore_afterwards`."""
    choice.options.update(accepted(asked.override_settings))
    if asked.override_settings.get("sd_model_checkpoint") and (name := model_of(asked)):
        choice.checkpoint = name


@contextlib.contextmanager
def _client_names(asked: Txt2Img | Img2Img) -> Iterator[None]:
    try:
        yield
    except InvalidRequest as error:
        error.param = field_of(asked, error.param) if error.param else None
        raise


ROUTES = (post("/txt2img", txt2img), post("/img2img", img2img))
IMAGE_PATHS = ("/txt2img", "/img2img")
