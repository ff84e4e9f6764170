"""The context of adapters: one running gateway, with everything that adapters may use."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from engine.catalog import EMBEDDED
from gateway import __version__
from gateway.access.tickets import TicketOffice, Tickets
from gateway.errors import TooManyStreams, Unavailable
from gateway.files.shared import SharedFiles
from gateway.http.metrics import Metrics
from gateway.http.openapi import Section
from gateway.images.codec import ImageDecoder
from gateway.images.file_pool import FilePool
from gateway.images.output import OutputFolder
from gateway.models.library import Library
from gateway.residency.default import DefaultModel, describe
from gateway.residency.device import Device
from gateway.service.readiness import Readiness
from gateway.service.service import JobService
from gateway.settings import Settings


@dataclass(slots=True)
class Core:
    """The core of one gateway: its settings, its service and what both need."""

    settings: Settings
    service: JobService
    library: Library
    output: OutputFolder
    decoder: ImageDecoder
    device: Device
    """The device as expected at the start."""
    shared_files: SharedFiles | None = None
    """The files in a place that several gateways share; None: in folders of this one."""
    files: FilePool = field(default_factory=FilePool)
    """Threads for work on clients' data."""
    started_at: float = field(default_factory=time.monotonic)
    tickets: TicketOffice = field(default_factory=Tickets)
    metrics: Metrics = field(default_factory=Metrics)
    waiting: int = 0
    streaming: Counter[str] = field(default_factory=Counter)
    """Open event streams by owner."""

    sections: tuple[Section, ...] = ()
    """Sections of the API documentation."""
    readiness: Readiness = field(default_factory=Readiness)
    """The checks that must pass before images can be drawn."""
    adapter_state: dict[str, Any] = field(default_factory=dict)
    """The state of adapters until the gateway stops, each under the adapter's name."""

    @property
    def draws_embedded(self) -> bool:
        """Whether the embedded model draws requests that name no model."""
        return self.library.default == EMBEDDED

    @property
    def default_model(self) -> DefaultModel:
        """The model of requests that name none, which never changes while the gateway runs. Blocks for milliseconds."""
        return describe(
            self.service.residency.admission,
            self.library.find(None),
            self.device.kind,
            is_set=self.settings.models.default is not None,
            quantize=self.settings.models.quantize,
            low_ram=self.settings.engine.low_ram,
        )

    def greeting(self) -> str:
        """The greeting for the operator at the start: address and default model."""
        server, default = self.settings.server, self.library.find(None)
        lines = [f"mflux-gateway {__version__} on http://{server.host}:{server.port}, drawing with {default.name}"]
        if not self.library.on_disk(default):
            step = f"`mflux-gateway models pull {default.name}` fetches it"
            if self.settings.models.auto_download and default.repo is not None:
                which = "the first" if self.settings.access.keys_file is None else "an operator's first"
                step = f"{which} picture downloads it ({default.size_gb:.0f} GB)"
            lines.append(
                f"{default.name} is not on this machine: {step}. Start with --model {EMBEDDED} to draw at once."
            )
        elif self.draws_embedded:
            lines.append(
                f"{EMBEDDED} is the small embedded model: shapes and simple things, no download. --model names another."
            )
        if self.device.kind != "cpu" or not self.default_model.fits:
            lines.append(self.default_model.sentence)
        return "\n".join(lines)

    def check_waits(self) -> None:
        """Raises: Unavailable where no more clients may wait on their connections."""
        if self.waiting >= self.settings.http.sync_waits:
            raise Unavailable("Too many clients are waiting for pictures.", retry_after_s=10)

    @contextmanager
    def waits(self) -> Iterator[None]:
        """Count a client that waits on its connection. Raises: as `check_waits`."""
        self.check_waits()
        self.waiting += 1
        try:
            yield
        finally:
            self.waiting -= 1

    @contextmanager
    def streams(self, owner: str) -> Iterator[None]:
        """Count an open event stream of this owner. Raises: Unavailable or TooManyStreams where there are too many."""
        http = self.settings.http
        if self.streaming.total() >= http.max_streams:
            raise Unavailable("Too many event streams are open.", retry_after_s=10)
        if self.streaming[owner] >= http.max_streams_per_client:
            raise TooManyStreams(retry_after_s=10)
        self.streaming[owner] += 1
        try:
            yield
        finally:
            self.streaming[owner] -= 1
            if not self.streaming[owner]:
                del self.streaming[owner]
