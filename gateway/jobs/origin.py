"""The origin of a job: who submitted it, through which protocol, and how it is tied to them."""

from __future__ import annotations

import secrets
from dataclasses import dataclass

from gateway.jobs.job import NewJob, Plans, Priority
from gateway.jobs.resolve import Leniency


@dataclass(frozen=True, slots=True)
class Origin:
    """Who submits, and how the job is tied to them."""

    owner: str
    protocol: str
    attached: bool
    priority: Priority = Priority.NORMAL
    idempotency_key: str | None = None
    leniency: Leniency = "refuse"
    waits: bool = True
    """Whether the client waits where the model must be downloaded first."""
    note: str = ""
    """What the protocol must know to show the job later, in its own words."""

    def new_job(self, plan: Plans, fingerprint: str) -> NewJob:
        """A job of theirs with an id nobody can guess; `fingerprint` tells other requests of the same key apart."""
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
