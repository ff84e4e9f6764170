"""One protocol, as the application serves it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from starlette.responses import Response
from starlette.routing import Route
from starlette.types import ASGIApp

from gateway.errors import GatewayError
from gateway.http.openapi import Operation


@dataclass(frozen=True, slots=True)
class Adapter:
    """One protocol: the prefix whose 404 and 405 it owns, its routes, and how it spells an error."""

    name: str
    prefix: str
    routes: tuple[Route, ...]
    render_error: Callable[[GatewayError], Response]
    image_paths: tuple[str, ...] = ()
    """Paths whose bodies may carry pictures."""
    picture_prefix: str | None = None
    """Below this lie unguessable picture URLs, readable from any site."""
    open_paths: tuple[str, ...] = ()
    """Paths that need no key."""
    more_prefixes: tuple[str, ...] = ()
    """Where clients of this protocol look besides: errors there are its, too."""
    unprefixed: tuple[str, ...] = ()
    """Paths below the prefix that are its, too, where a client leaves the prefix out."""
    page_paths: tuple[str, ...] = ()
    """Pages for people: a link on any site may lead to them."""
    changing_paths: tuple[str, ...] = ()
    """Where a GET changes something: pages of other sites are refused even where the browser does not say so."""
    described: Mapping[str, Operation] = field(default_factory=dict)
    """What each route takes and answers, under "METHOD /path"."""
    error: Any = None
    """The type of what `render_error` draws."""
    around: Callable[[ASGIApp], ASGIApp] = lambda app: app
    """What all its answers go through, refusals at the door included."""

    @property
    def prefixes(self) -> tuple[str, ...]:
        return (self.prefix, *self.more_prefixes)
