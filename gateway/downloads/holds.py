"""Jobs that wait for LoRAs on their way from the hub. Pure bookkeeping; knows no store."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from gateway.downloads.sources import Sources
from gateway.jobs.job import Job
from gateway.models.lora_repositories import HubLora


@dataclass(frozen=True, slots=True)
class MissingLoras:
    """What one job waits for: its LoRAs by name, and the model that will wear them."""

    model: str
    loras: tuple[tuple[str, HubLora], ...]

    def needs(self, sources: Sources) -> bool:
        return any((lora.files,) == sources for _, lora in self.loras)


class Hold:
    """The hold of one job while it is being stored."""

    def __init__(self, job_id: str) -> None:
        self._job_id = job_id
        self.is_kept = False

    def keep_for(self, stored: Job) -> Job:
        """The job that the store answered: an earlier one with the same Idempotency-Key needs no hold."""
        self.is_kept = stored.id == self._job_id
        return stored


class LoraHolds:
    """Jobs that may not run yet, by id."""

    def __init__(self) -> None:
        self._wanted: dict[str, MissingLoras] = {}
        self._coming: dict[str, MissingLoras] = {}
        """The part of it that is not here."""

    @property
    def ids(self) -> frozenset[str]:
        return frozenset(self._wanted)

    def hold(self, job_id: str, wanted: MissingLoras) -> None:
        if wanted.loras:
            self._wanted[job_id] = self._coming[job_id] = wanted

    def release(self, job_id: str) -> None:
        self._wanted.pop(job_id, None)
        self._coming.pop(job_id, None)

    def came(self, sources: Sources) -> list[tuple[str, MissingLoras]]:
        """A download has ended well: the jobs that lack nothing more; they are held until they are released."""
        whole = []
        for job_id in self.of(sources):
            wanted = self._coming[job_id]
            left = tuple((name, lora) for name, lora in wanted.loras if (lora.files,) != sources)
            self._coming[job_id] = MissingLoras(wanted.model, left)
            if not left:
                whole.append((job_id, self._wanted[job_id]))
        return whole

    def of(self, sources: Sources) -> list[str]:
        """The jobs that wait for this download."""
        return [job_id for job_id, wanted in self._coming.items() if wanted.needs(sources)]

    def sources_of(self, job_id: str) -> Iterable[Sources]:
        """What a job still waits for."""
        wanted = self._coming.get(job_id)
        return () if wanted is None else [(lora.files,) for _, lora in wanted.loras]
