"""The table of the studio: the page and its parts."""

from __future__ import annotations

from adapters.shared.pages import ETAG, UNCHANGED
from adapters.shared.table import Row, described, routes_of
from adapters.web import files
from gateway.http.openapi import Operation

ASSET_TYPES = tuple(media_type for suffix, media_type in files.TYPES.items() if suffix != ".html")

TABLE = (
    Row("GET", "/", files.get_page, Operation(media=("text/html",), headers=ETAG, also=UNCHANGED)),
    Row("GET", "/studio/{name}", files.get_asset, Operation(media=ASSET_TYPES, headers=ETAG, also=UNCHANGED)),
)
OPEN_PATHS = ("/", *(f"/studio/{name}" for name in files.ASSETS))
ROUTES = routes_of(TABLE)
DESCRIBED = described(TABLE)
