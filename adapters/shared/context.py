"""The gateway and the client of a request: its core, its owner, its share of the work, its idempotency key."""

from __future__ import annotations

from starlette.requests import Request

from adapters.shared.table import Row
from gateway.context import Core
from gateway.errors import InvalidRequest
from gateway.round_robin import Share

IDEMPOTENCY_KEY_CHARS = 255


def core_of(request: Request) -> Core:
    core: Core = request.state.core
    return core


def owner_of(request: Request) -> str:
    """The owner whose jobs this request may see: the key's name, else the client's own id or address."""
    owner: str = request.state.owner
    return owner


def is_attached(request: Request) -> bool:
    """Whether a job of this request stops when its client hangs up: whether its route waits for it."""
    row: Row | None = request.scope.get("row")
    return row is not None and row.waits


def share_of(request: Request) -> Share:
    """The share by which work on a request's data takes turns: of its key, else of its address and then its owner."""
    owner = owner_of(request)
    if owner.startswith("key:"):
        return Share(owner, owner)
    return Share(f"peer:{request.client.host if request.client else 'unknown'}", owner)


def idempotency_key(request: Request) -> str | None:
    """The idempotency key of a request. Source: the Idempotency-Key header. Raises: InvalidRequest."""
    key = request.headers.get("idempotency-key")
    if key is not None and not 1 <= len(key) <= IDEMPOTENCY_KEY_CHARS:
        raise InvalidRequest("Idempotency-Key must have 1 to 255 characters.", param="Idempotency-Key")
    return key
