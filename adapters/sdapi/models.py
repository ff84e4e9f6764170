"""Options, models, LoRAs, styles and memory: the routes that list, set, load and unload them."""

from __future__ import annotations

import asyncio
from dataclasses import asdict

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from adapters.sdapi.checkpoints import checkpoint_rows, current_of, embedding_rows, name_of, vae_rows
from adapters.sdapi.errors import AsA1111
from adapters.sdapi.lists import HR_UPSCALERS, UPSCALERS, cmd_flags
from adapters.sdapi.loras import lora_rows
from adapters.sdapi.memory import memory
from adapters.sdapi.options import MEMORY, accepted, options_of
from adapters.sdapi.protocol import body_of, origin_of
from adapters.sdapi.request_schemas import OptionsBody
from adapters.sdapi.response_schemas import PageConfig
from adapters.sdapi.sampling import LATENT_UPSCALERS
from adapters.sdapi.state import checkpoint_of, client_options
from adapters.sdapi.styles import styles_of
from adapters.shared.context import core_of, owner_of
from adapters.shared.responses import raise_for
from adapters.shared.waiting import attached
from engine.protocol import MemoryCheck
from gateway.errors import GatewayError, ModelNotFound, ModelNotOnDisk
from gateway.jobs.job import State


async def get_options(request: Request) -> Response:
    """The current checkpoint, what was set, and A1111's constants."""
    current = await asyncio.to_thread(current_of, core_of(request).library, checkpoint_of(request))
    return JSONResponse(options_of(current, client_options(request).options))


async def post_options(request: Request) -> Response:
    """`sd_model_checkpoint` loads that model, for requests that name none; what else can be set is set."""
    body = await body_of(OptionsBody, request)
    title = body.sd_model_checkpoint
    model = await asyncio.to_thread(name_of, core_of(request).library, title) if title else None
    if model and model != checkpoint_of(request):
        try:
            await _load(request, model, (body.model_extra or {}).get(MEMORY))
        except (ModelNotFound, ModelNotOnDisk) as error:
            raise AsA1111("RuntimeError", error.message, code=error.code, details=error.details) from None
    client_options(request).options.update(accepted(body.model_extra or {}))
    return JSONResponse(None)


async def _load(request: Request, model: str, memory: object = None) -> None:
    core = core_of(request)
    check: MemoryCheck = "try" if memory == "try" else "check"
    job = await attached(request, await core.service.submit_load(model, origin_of(request), check))
    if job.state is not State.SUCCEEDED:
        raise_for(job)
        raise GatewayError("The model was not loaded.")
    client_options(request).checkpoint = model


async def reload_checkpoint(request: Request) -> Response:
    """Brings the current checkpoint into memory."""
    await _load(request, checkpoint_of(request))
    return JSONResponse({})


async def unload_checkpoint(request: Request) -> Response:
    """Frees the memory of whatever model is loaded, once nothing is drawn with it; the next picture loads its own."""
    await core_of(request).service.models.unload(owner_of(request))
    return JSONResponse({})


async def refresh(request: Request) -> Response:
    """Finds new files; lists of models find them by themselves."""
    await asyncio.to_thread(core_of(request).library.refresh)
    return JSONResponse(None)


async def sd_models(request: Request) -> Response:
    """What can be drawn with now."""
    library, current = core_of(request).library, checkpoint_of(request)
    await asyncio.to_thread(library.refresh)
    return JSONResponse(await asyncio.to_thread(checkpoint_rows, library, current))


async def sd_vae(request: Request) -> Response:
    """The VAE files of the library."""
    return JSONResponse(await asyncio.to_thread(vae_rows, core_of(request).library))


async def embeddings(request: Request) -> Response:
    """The textual inversions of the library, by whether they fit the current checkpoint."""
    return JSONResponse(await asyncio.to_thread(embedding_rows, core_of(request).library, checkpoint_of(request)))


async def loras(request: Request) -> Response:
    """The LoRAs of the library, by the names that prompts call them."""
    return JSONResponse(await core_of(request).library.loras.off_loop(lora_rows, core_of(request).library.loras))


async def page_config(request: Request) -> Response:
    """The menus of A1111's page that no other list has: LoRAs, and upscalers as older clients find them.

    Source: Gradio 3's `/config`, as AIYA reads it.
    """
    library = core_of(request).library.loras
    names = [row["name"] for row in await library.off_loop(lora_rows, library)]
    upscalers = [row["name"] for row in UPSCALERS]
    menus = {
        "setting_sd_lora": ["None", *names],
        "txt2img_hr_upscaler": [*LATENT_UPSCALERS, *HR_UPSCALERS],
        "extras_upscaler_1": upscalers,
    }
    components = [
        {"id": number, "type": "dropdown", "props": {"elem_id": name, "choices": choices}}
        for number, (name, choices) in enumerate(menus.items())
    ]
    return JSONResponse(PageConfig(components=components))


async def prompt_styles(request: Request) -> Response:
    """Of the file that the settings name."""
    styles = await asyncio.to_thread(styles_of, core_of(request).settings.generation.styles_file)
    return JSONResponse([asdict(style) for style in styles])


async def get_cmd_flags(request: Request) -> Response:
    server = core_of(request).settings.server
    return JSONResponse(cmd_flags(host=server.host, port=server.port))


async def get_memory(request: Request) -> Response:
    engine_memory = core_of(request).service.engine.memory
    return JSONResponse(await asyncio.to_thread(memory, engine_memory.active_bytes if engine_memory else 0))
