"""The table of routes of /sdapi/v1, of A1111's page and of its ControlNet extension."""

from __future__ import annotations

from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from adapters.sdapi import control, extras, generation, models, png_info, tasks, unsupported, upscalers
from adapters.sdapi.compression import compressed
from adapters.sdapi.lists import EMPTY, LATENT_MODES, SAMPLERS, SCHEDULERS, SCRIPT_INFO, SCRIPTS
from adapters.sdapi.protocol import CONTROLNET, INTERNAL, PAGE_CONFIG, PREFIX
from adapters.sdapi.request_schemas import (
    ExtraBatch,
    ExtraSingle,
    Img2Img,
    Interrogate,
    OptionsBody,
    PngInfo,
    TaskProgress,
    Txt2Img,
)
from adapters.sdapi.response_schemas import (
    ControlModels,
    ControlModules,
    ControlSettings,
    ControlTypes,
    ControlVersion,
    Drawn,
    Enlarged,
    EnlargedAll,
    Memory,
    PageConfig,
    Pending,
    Progress,
    ProgressQuery,
    TaskShown,
    Told,
)
from adapters.sdapi.response_schemas import Row as JsonRow
from adapters.shared.table import Endpoint, Row, below, described, routes_of
from gateway.http.openapi import Operation

ONCE = ("Idempotency-Key",)
NOTHING = Operation(answer=Any)
LIST = Operation(answer=list[JsonRow])
OBJECT = Operation(answer=JsonRow)
EXTRA_SINGLE = Operation(body=ExtraSingle, answer=Enlarged, headers=ONCE)
EXTRA_BATCH = Operation(body=ExtraBatch, answer=EnlargedAll, headers=ONCE)
SET_OPTIONS = Operation(body=OptionsBody, answer=Any, headers=ONCE)
LOAD = Operation(answer=Any, headers=ONCE)


def constant(value: Any) -> Endpoint:
    """An endpoint that always answers the same JSON."""

    async def answer(_: Request) -> Response:
        return JSONResponse(value)

    return answer


SDAPI = (
    Row("POST", "/txt2img", generation.txt2img, Operation(body=Txt2Img, answer=Drawn, headers=ONCE), waits=True),
    Row("POST", "/img2img", generation.img2img, Operation(body=Img2Img, answer=Drawn, headers=ONCE), waits=True),
    Row("GET", "/upscalers", upscalers.upscalers, LIST),
    Row("POST", "/extra-single-image", extras.extra_single_image, EXTRA_SINGLE, waits=True),
    Row("POST", "/extra-batch-images", extras.extra_batch_images, EXTRA_BATCH, waits=True),
    Row("POST", "/png-info", png_info.png_info, Operation(body=PngInfo, answer=Told)),
    Row("POST", "/interrogate", unsupported.interrogate, Operation(body=Interrogate, answer=JsonRow)),
    *(
        Row("POST", f"/{verb}/{what}", unsupported.training, NOTHING)
        for verb in ("create", "train")
        for what in ("embedding", "hypernetwork")
    ),
    Row("GET", "/progress", tasks.progress, Operation(query=ProgressQuery, answer=Progress)),
    Row("POST", "/interrupt", tasks.interrupt, NOTHING),
    Row("POST", "/skip", tasks.skip, NOTHING),
)
TASKS = (
    Row("GET", "/ping", tasks.ping, NOTHING),
    Row("POST", "/progress", tasks.task_progress, Operation(body=TaskProgress, answer=TaskShown)),
    Row("GET", "/pending-tasks", tasks.pending_tasks, Operation(answer=Pending)),
)
MODELS = (
    Row("GET", "/options", models.get_options, OBJECT),
    Row("POST", "/options", models.post_options, SET_OPTIONS, waits=True),
    Row("GET", "/sd-models", models.sd_models, LIST),
    Row("GET", "/loras", models.loras, LIST),
    Row("GET", "/sd-vae", models.sd_vae, LIST),
    Row("GET", "/embeddings", models.embeddings, OBJECT),
)
SETTINGS = (
    Row("GET", "/prompt-styles", models.prompt_styles, LIST),
    Row("GET", "/cmd-flags", models.get_cmd_flags, OBJECT),
    Row("GET", "/memory", models.get_memory, Operation(answer=Memory)),
    Row("POST", "/unload-checkpoint", models.unload_checkpoint, NOTHING),
    Row("POST", "/reload-checkpoint", models.reload_checkpoint, LOAD, waits=True),
    *(
        Row("POST", f"/refresh-{what}", models.refresh, NOTHING)
        for what in ("checkpoints", "vae", "loras", "embeddings")
    ),
)
CONTROLNET_EXTENSION = (
    Row("GET", "/model_list", control.model_list, Operation(answer=ControlModels)),
    Row("GET", "/module_list", control.module_list, Operation(answer=ControlModules)),
    Row("GET", "/control_types", control.control_types, Operation(answer=ControlTypes)),
    Row("GET", "/settings", control.settings, Operation(answer=ControlSettings)),
    Row("GET", "/version", control.version, Operation(answer=ControlVersion)),
)
CONSTANTS = (
    Row("GET", "/samplers", constant(SAMPLERS), LIST),
    Row("GET", "/schedulers", constant(SCHEDULERS), LIST),
    Row("GET", "/latent-upscale-modes", constant(LATENT_MODES), LIST),
    Row("GET", "/scripts", constant(SCRIPTS), OBJECT),
    Row("GET", "/script-info", constant(SCRIPT_INFO), LIST),
    *(Row("GET", f"/{name}", constant([]), LIST) for name in EMPTY),
)
ROWS = (
    *below(PREFIX, SDAPI),
    *below(INTERNAL, TASKS),
    *below(PREFIX, MODELS),
    Row("GET", PAGE_CONFIG, models.page_config, Operation(answer=PageConfig)),
    *below(PREFIX, SETTINGS),
    *below(CONTROLNET, CONTROLNET_EXTENSION),
    *below(PREFIX, CONSTANTS),
)
TABLE = tuple(map(compressed, ROWS))
ROUTES = routes_of(TABLE, head=False)
DESCRIBED = described(TABLE)
IMAGE_PATHS = tuple(
    PREFIX + path
    for path in ("/txt2img", "/img2img", "/extra-single-image", "/extra-batch-images", "/png-info", "/interrogate")
)
OPEN_PATHS = (f"{INTERNAL}/ping",)
