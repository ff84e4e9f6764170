"""The settings that the service goes by."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from gateway.access.rights import Rights
from gateway.jobs.resolve import Limits
from gateway.store.base import Bounds, InputBounds


@dataclass(frozen=True, slots=True)
class ServiceOptions:
    """What of the settings the service goes by."""

    limits: Limits = Limits()
    bounds: Bounds = Bounds()
    rights: Rights = Rights()
    quantize: int | None = None
    default_steps: int | None = None
    steps_as_sent: bool = False
    low_ram: bool = False
    auto_download: bool = False
    fall_back_to_main: tuple[str, ...] = ()
    """Repositories that are taken at `main` where the commit that is asked for is gone."""
    retention_s: float = 7 * 86400.0
    retained_jobs: int = 5000
    pictures_quota_bytes: int = 20 * 2**30
    retention_every_s: float = 600.0
    backup_every_s: float | None = None
    """Between copies of the store; None: none."""
    min_free_bytes: int = 0
    """What must be free on the disks of the store and the pictures for a new job."""
    inputs: InputBounds | None = None
    """Of what clients send in; None: no bound."""
    notes: Path | None = None
    """A folder in which children are noted while they live."""
    abandon_grace_s: float = 2.0
    places_every_s: float = 0.5
    """Places are told at most this often."""
