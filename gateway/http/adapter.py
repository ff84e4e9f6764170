"""Adapter: one protocol as the application serves it."""

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
    """One protocol: the prefix whose 404 and 405 it answers, its routes, and the shape of its errors."""

    name: str
    prefix: str
    routes: tuple[Route, ...]
    render_error: Callable[[GatewayError], Response]
    image_paths: tuple[str, ...] = ()
    """Paths whose bodies may contain images."""
    image_prefix: str | None = None
    """Prefix of unguessable image URLs, readable from any site."""
    open_paths: tuple[str, ...] = ()
    """Paths that need no key."""
    more_prefixes: tuple[str, ...] = ()
    """Further prefixes that this protocol's clients request: errors there have its shape, too."""
    unprefixed: tuple[str, ...] = ()
    """Paths below the prefix that also work without it."""
    page_paths: tuple[str, ...] = ()
    """Pages for people: links on any site may lead to them."""
    changing_paths: tuple[str, ...] = ()
    """Paths at which a GET changes something: pages of other sites are refused even if the browser names no site."""
    described: Mapping[str, Operation] = field(default_factory=dict)
    """What each route takes and returns, under "METHOD /path"."""
    error: Any = None
    """The type of the errors from `render_error`."""
    around: Callable[[ASGIApp], ASGIApp] = lambda app: app
    """Wrapper around all its responses, including the guard's refusals."""

    @property
    def prefixes(self) -> tuple[str, ...]:
        return (self.prefix, *self.more_prefixes)
