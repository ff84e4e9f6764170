"""Tickets for EventSource, which cannot send a key."""

from __future__ import annotations

import time

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from adapters.native.answers import PREFIX, iso
from adapters.native.jobs import own_job
from adapters.native.request import TicketBody
from adapters.native.shapes import Ticket
from adapters.shared.body import parse
from adapters.shared.context import core_of, owner_of
from gateway.access.tickets import LIVES_S


async def ticket(request: Request) -> Response:
    """POST tickets: Get an address that an EventSource may open without a key, once, within a minute.

    It is that of one job's stream, or of all your jobs'. The browser that opened it opens it again where the connection
    was lost, by a cookie for that address alone; after a restart of the gateway ask for another one.
    """
    asked = await parse(TicketBody, request)
    path = f"{PREFIX}/events"
    if asked.job_id is not None:
        path = f"{PREFIX}/jobs/{(await own_job(request, asked.job_id)).id}/stream"
    given = core_of(request).tickets.give(owner_of(request), path)
    answer: Ticket = {"ticket": given, "url": f"{path}?ticket={given}", "expires_at": iso(time.time() + LIVES_S)}
    return JSONResponse(answer)
