"""The table of a protocol: each route with its endpoint and the description of its request and answer."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable
from typing import NamedTuple

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from gateway.http.openapi import Operation

Endpoint = Callable[[Request], Awaitable[Response]]


class Row(NamedTuple):
    """A row of the table: one method of one path."""

    method: str
    path: str
    endpoint: Endpoint
    operation: Operation = Operation()
    """Its sentence in the documentation is the docstring of `endpoint`."""


def below(prefix: str, rows: Iterable[Row]) -> tuple[Row, ...]:
    """The rows with `prefix` before each path."""
    return tuple(row._replace(path=prefix + row.path) for row in rows)


def routes_of(rows: Iterable[Row], *, head: bool = True) -> tuple[Route, ...]:
    """The routes in the order of the rows; `head` is whether a GET also answers HEAD, as in starlette."""
    routes = []
    for row in rows:
        route = Route(row.path, row.endpoint, methods=[row.method])
        if not head:
            route.methods = {row.method}
        routes.append(route)
    return tuple(routes)


def described(rows: Iterable[Row]) -> dict[str, Operation]:
    """The operation of each row, under "METHOD /path"."""
    return {f"{row.method} {row.path}": row.operation for row in rows}
