"""The documentation of every protocol: OpenAPI at /openapi.json, and a page to read it by. Knows none by name."""

from adapters.docs.routes import DESCRIBED, DOCUMENT_PATHS, PAGE_PATHS, ROUTES
from adapters.shared.pages import Plain, render_error
from gateway.http.adapter import Adapter

ADAPTER = Adapter(
    name="docs",
    prefix="/docs",
    more_prefixes=("/swagger", *DOCUMENT_PATHS),
    routes=ROUTES,
    render_error=render_error,
    page_paths=PAGE_PATHS,
    described=DESCRIBED,
    error=Plain,
)
