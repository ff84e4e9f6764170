"""The studio: the page at `/`, its modules and styles. Serves files; all it shows comes from /api/v1."""

from adapters.shared.pages import Plain, render_error
from adapters.web.routes import DESCRIBED, OPEN_PATHS, ROUTES
from gateway.http.adapter import Adapter

ADAPTER = Adapter(
    name="studio",
    prefix="/",
    more_prefixes=("/studio",),
    routes=ROUTES,
    render_error=render_error,
    page_paths=("/",),
    open_paths=OPEN_PATHS,
    described=DESCRIBED,
    error=Plain,
)
