"""Jobs that wait for LoRAs on their way from the hub. Pure bookkeeping; knows no store."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from gateway.downloads.sources import Sources
from gateway.jobs.job import Job
from gateway.models.lora_repositories import HubLora


@dataclass(frozen=True, slots=True)
class MissingLoras:
    """The LoRAs by name that one job waits for, and the model that they are applied to."""

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
    """Jobs, by id, that may not run before their LoRAs are downloaded."""

    def __init__(self) -> None:
        self._loras: dict[str, MissingLoras] = {}
        self._missing: dict[str, MissingLoras] = {}
        """The LoRAs of each job that are not downloaded yet."""

    @property
    def ids(self) -> frozenset[str]:
        return frozenset(self._loras)

    def hold(self, job_id: str, loras: MissingLoras) -> None:
        if loras.loras:
            self._loras[job_id] = self._missing[job_id] = loras

    def release(self, job_id: str) -> None:
        self._loras.pop(job_id, None)
        self._missing.pop(job_id, None)

    def came(self, sources: Sources) -> list[tuple[str, MissingLoras]]:
        """A download has ended well: the jobs that lack nothing more; they are held until they are released."""
        whole = []
        for job_id in self.of(sources):
            loras = self._missing[job_id]
            left = tuple((name, lora) for name, lora in loras.loras if (lora.files,) != sources)
            self._missing[job_id] = MissingLoras(loras.model, left)
            if not left:
                whole.append((job_id, self._loras[job_id]))
        return whole

    def of(self, sources: Sources) -> list[str]:
        """The jobs that wait for this download."""
        return [job_id for job_id, loras in self._missing.items() if loras.needs(sources)]

    def sources_of(self, job_id: str) -> Iterable[Sources]:
        """What a job still waits for."""
        loras = self._missing.get(job_id)
        return () if loras is None else [(lora.files,) for _, lora in loras.loras]
