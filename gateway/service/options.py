"""The options of the job service."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from gateway.access.rights import Rights
from gateway.jobs.resolve import Limits
from gateway.store.base import Bounds, InputBounds


@dataclass(frozen=True, slots=True)
class ServiceOptions:
    """The settings that the service uses."""

    limits: Limits = Limits()
    bounds: Bounds = Bounds()
    rights: Rights = Rights()
    quantize: int | None = None
    default_steps: int | None = None
    steps_as_sent: bool = False
    low_ram: bool = False
    auto_download: bool = False
    fall_back_to_main: tuple[str, ...] = ()
    """Repositories of which `main` is downloaded where the requested commit no longer exists."""
    retention_s: float = 7 * 86400.0
    retained_jobs: int = 5000
    images_quota_bytes: int = 20 * 2**30
    retention_every_s: float = 600.0
    backup_every_s: float | None = None
    """Seconds between backups of the store; None: no backups."""
    min_free_bytes: int = 0
    """Bytes that must be free on the disks of the store and the images for a new job."""
    inputs: InputBounds | None = None
    """Bounds of input images; None: no bound."""
    notes: Path | None = None
    """The folder in which running child processes are recorded."""
    abandon_grace_s: float = 3.0
    """Seconds in which clients of a job whose own client has left may come back: to a stream of the job, which they
    resume after 2 s, or, by sending the request again, to the model that is being loaded for it."""
    places_every_s: float = 0.5
    """Seconds between two publications of queue positions, at least."""
