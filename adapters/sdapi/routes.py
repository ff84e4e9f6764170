"""All routes of /sdapi/v1, and the few of A1111's own page. Each parses, asks the core, and hands on."""

from adapters.sdapi import control, drawing, extras, models, watching
from adapters.sdapi.lists import EMBEDDINGS, EMPTY, SAMPLERS, SCHEDULERS, SCRIPT_INFO, SCRIPTS
from adapters.sdapi.routing import PREFIX, constant

ROUTES = (
    *drawing.ROUTES,
    *extras.ROUTES,
    *watching.ROUTES,
    *models.ROUTES,
    *control.ROUTES,
    constant("/samplers", SAMPLERS),
    constant("/schedulers", SCHEDULERS),
    constant("/embeddings", EMBEDDINGS),
    constant("/scripts", SCRIPTS),
    constant("/script-info", SCRIPT_INFO),
    *(constant(f"/{name}", []) for name in EMPTY),
)
IMAGE_PATHS = tuple(PREFIX + path for path in (*drawing.IMAGE_PATHS, *extras.IMAGE_PATHS))
