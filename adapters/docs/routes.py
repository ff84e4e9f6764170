"""The table of the documentation: the page at two addresses, its parts, the documents."""

from __future__ import annotations

from typing import Any

from adapters.docs import documents, page
from adapters.shared.pages import ETAG, UNCHANGED
from adapters.shared.table import Row, described, routes_of
from gateway.http.openapi import Operation

PAGE = Operation(media=("text/html",))
ASSET = Operation(media=tuple(dict.fromkeys(page.ASSETS.values())), headers=ETAG, also=UNCHANGED)
DOCUMENT = Operation(answer=dict[str, Any], headers=ETAG, also=UNCHANGED)

TABLE = (
    Row("GET", "/docs", page.get_page, PAGE),
    Row("GET", "/swagger", page.get_page, PAGE),
    Row("GET", "/docs/assets/{name}", page.get_asset, ASSET),
    Row("GET", "/openapi.json", documents.get_openapi, DOCUMENT),
    Row("GET", "/swagger.json", documents.get_swagger, DOCUMENT),  # where generation 1 of mflux-server had its own
    Row("GET", "/api/swagger.json", documents.get_swagger, DOCUMENT),  # and generation 2
)
PAGE_PATHS = tuple(row.path for row in TABLE if row.operation is PAGE)
DOCUMENT_PATHS = tuple(row.path for row in TABLE if row.operation is DOCUMENT)
ROUTES = routes_of(TABLE)
DESCRIBED = described(TABLE)
