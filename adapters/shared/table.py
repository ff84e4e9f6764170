"""The table of a protocol: each route with its endpoint and the description of its request and answer."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable
from typing import Any, NamedTuple

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Match, Route
from starlette.types import Scope

from gateway.http.openapi import Operation

Endpoint = Callable[[Request], Awaitable[Response]]


class Row(NamedTuple):
    """A row of the table: one method of one path."""

    method: str
    path: str
    endpoint: Endpoint
    operation: Operation = Operation()
    """Its sentence in the documentation is the docstring of `endpoint`."""
    waits: bool = False
    """Whether its client waits on the connection for a job. Such a job stops when the client hangs up, unless the
    client can come back for it: by the Idempotency-Key that it sent."""


class TableRoute(Route):
    """A route that hands its row to its endpoint, in the scope."""

    def __init__(self, row: Row) -> None:
        super().__init__(row.path, row.endpoint, methods=[row.method])
        self.row = row

    def matches(self, scope: Scope) -> tuple[Match, dict[str, Any]]:
        match, child_scope = super().matches(scope)
        return match, {} if match is Match.NONE else {**child_scope, "row": self.row}


def below(prefix: str, rows: Iterable[Row]) -> tuple[Row, ...]:
    """The rows with `prefix` before each path."""
    return tuple(row._replace(path=prefix + row.path) for row in rows)


def routes_of(rows: Iterable[Row], *, head: bool = True) -> tuple[Route, ...]:
    """The routes in the order of the rows; `head` is whether a GET also answers HEAD, as in starlette."""
    routes = []
    for row in rows:
        route = TableRoute(row)
        if not head:
            route.methods = {row.method}
        routes.append(route)
    return tuple(routes)


def described(rows: Iterable[Row]) -> dict[str, Operation]:
    """The operation of each row, under "METHOD /path"."""
    return {f"{row.method} {row.path}": row.operation for row in rows}
