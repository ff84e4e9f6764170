"""The tickets of several gateways: their secret is in the store that they share."""

from __future__ import annotations

import secrets

from gateway.access.tickets import SharedTickets
from gateway.fleet.messages import TicketUsed
from gateway.service.service import JobService

SECRET = "ticket secret"
"""The name under which the store has it."""


async def tickets_of(service: JobService) -> SharedTickets | None:
    """The tickets of a gateway whose store others use; None where none do, and of a worker. Raises: as the store."""
    if (fleet := service.fleet) is None or fleet.options.kind != "gateway":
        return None
    secret = await service.shared_state(SECRET, lambda: secrets.token_hex(32))
    tickets = SharedTickets(
        bytes.fromhex(secret), service.steady, lambda digest: fleet.messenger.send(TicketUsed(digest=digest))
    )
    fleet.messenger.on(TicketUsed, lambda message: tickets.note_used(message.digest))
    return tickets
