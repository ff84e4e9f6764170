"""The origin of a job: its owner, its protocol, and whether it ends with the client's connection."""

from __future__ import annotations

import secrets
from dataclasses import dataclass

from gateway.jobs.job import NewJob, Plans, Priority
from gateway.jobs.resolve import Leniency


@dataclass(frozen=True, slots=True)
class Origin:
    """The origin of a job; an `attached` job is cancelled when its client disconnects."""

    owner: str
    protocol: str
    attached: bool
    priority: Priority = Priority.NORMAL
    idempotency_key: str | None = None
    leniency: Leniency = "refuse"
    waits: bool = True
    """Whether the client waits for a download of the model."""
    note: str = ""
    """Text that the protocol stores with the job, to show it later."""

    def new_job(self, plan: Plans, fingerprint: str) -> NewJob:
        """A new job with a random id; `fingerprint` distinguishes requests with the same idempotency key."""
        return NewJob(
            id=secrets.token_hex(16),
            owner=self.owner,
            protocol=self.protocol,
            plan=plan,
            attached=self.attached,
            priority=self.priority,
            idempotency_key=self.idempotency_key,
            fingerprint=fingerprint + self.note,
            note=self.note,
        )
