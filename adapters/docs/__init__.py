"""The documentation of every protocol: OpenAPI at /openapi.json, and a page to read it by. Knows none by name."""

from adapters.docs.routes import DESCRIBED, PAGES, ROUTES, SPECS, Plain, render_error
from gateway.http.adapter import Adapter

ADAPTER = Adapter(
    name="docs",
    prefix="/docs",
    more_prefixes=("/swagger", *SPECS),
    routes=ROUTES,
    render_error=render_error,
    page_paths=PAGES,
    described=DESCRIBED,
    error=Plain,
)
