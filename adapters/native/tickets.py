"""Tickets for EventSource, which cannot send a key."""

from __future__ import annotations

import time

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from adapters.native.jobs import own_job
from adapters.native.request_schemas import TicketBody
from adapters.native.response_schemas import Ticket
from adapters.native.responses import PREFIX, iso
from adapters.shared.body import parse
from adapters.shared.context import core_of, owner_of
from gateway.access.tickets import LIVES_S


async def create_ticket(request: Request) -> Response:
    """POST tickets: Get an address that an EventSource may open without a key, once, within a minute.

    It is that of one job's stream, or of all your jobs'. The browser that opened it opens it again where the connection
    was lost, by a cookie for that address alone; after a restart of the gateway ask for another one.
    """
    body = await parse(TicketBody, request)
    path = f"{PREFIX}/events"
    if body.job_id is not None:
        path = f"{PREFIX}/jobs/{(await own_job(request, body.job_id)).id}/stream"
    ticket = core_of(request).tickets.give(owner_of(request), path)
    answer: Ticket = {"ticket": ticket, "url": f"{path}?ticket={ticket}", "expires_at": iso(time.time() + LIVES_S)}
    return JSONResponse(answer)
