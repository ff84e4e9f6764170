"""What /v1 remembers between two requests, until the gateway restarts."""

from __future__ import annotations

from adapters.shared.recent_ids import RecentIds
from gateway.context import Core

REQUEST_IDS_MOST = 4096


def request_ids(core: Core) -> RecentIds:
    """Jobs by the `request_id` that their client gave them."""
    found: RecentIds = core.kept.setdefault("v1.request_ids", RecentIds(REQUEST_IDS_MOST))
    return found
