"""The studio: the page at `/`, its modules and styles. Serves files; all it shows comes from /api/v1."""

from adapters.web.routes import DESCRIBED, OPEN, ROUTES, Plain, render_error
from gateway.http.adapter import Adapter

ADAPTER = Adapter(
    name="studio",
    prefix="/",
    more_prefixes=("/studio",),
    routes=ROUTES,
    render_error=render_error,
    page_paths=("/",),
    open_paths=OPEN,
    described=DESCRIBED,
    error=Plain,
)
