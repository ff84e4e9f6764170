"""How far downloads are: for lists of models, and for the jobs that wait for them. Changes nothing."""

from __future__ import annotations

from collections.abc import Mapping

from engine.catalog import ModelSpec
from gateway.downloads.holds import LoraHolds
from gateway.downloads.live import LiveDownloads
from gateway.downloads.sources import Sources, sources_of
from gateway.downloads.status import DownloadStatus
from gateway.events.bus import ProgressEvent
from gateway.forecast import Forecaster
from gateway.jobs.job import Job, Progress, State
from gateway.jobs.plans import lane_of
from gateway.store.base import JobStore


class DownloadProgress:
    """`missing` are the models that jobs may wait for, with their sources; `holds` the jobs that wait for LoRAs."""

    def __init__(
        self,
        store: JobStore,
        forecaster: Forecaster,
        live: LiveDownloads,
        missing: Mapping[str, Sources],
        holds: LoraHolds,
    ) -> None:
        self._store = store
        self._forecaster = forecaster
        self._live = live
        self._missing = missing
        self._holds = holds

    def of(self, spec: ModelSpec) -> DownloadStatus | None:
        """The download that brings this model, where there is one."""
        sources = sources_of(spec)
        for job_id, plan in self._live:
            if plan.sources == sources:
                forecast = self._forecaster.of(job_id, self._store.order("network"))
                seconds = None if forecast is None else forecast.expected_s
                is_running = self._live.is_running(job_id)
                return DownloadStatus(job_id, plan.model, is_running, self._live.fact(sources), seconds)
        return None

    def waits(self, job: Job) -> Progress | None:
        """Of a queued job that waits for its model, or a LoRA: how far that is."""
        if job.state is not State.QUEUED or lane_of(job.plan) != "engine":
            return None
        model = self._missing.get(job.plan.model)
        sources = model or next(iter(self._holds.sources_of(job.id)), None)
        if sources is None:
            return None
        fact = self._live.fact(sources)
        if fact is not None and model is not None:
            fact = fact.model_copy(update={"model": job.plan.model})
        forecast = self._forecaster.of(job.id, self._store.order("engine"))
        seconds = None if forecast is None else forecast.expected_s
        return Progress(job_id=job.id, images=1, phase="downloading", download=fact, expected_s=seconds)

    def newest(self, job: Job) -> ProgressEvent | None:
        """What a subscriber that comes late should know first."""
        progress = self.waits(job)
        if progress is None or progress.download is None:
            return None
        return ProgressEvent(job.id, progress, progress.download)

    def due(self) -> Mapping[str, float]:
        """When the missing models, and the LoRAs of jobs by id, are expected to be here, in whole seconds from now."""
        seconds: dict[Sources, float] = {}
        order = self._store.order("network") if self._missing or self._holds.ids else ()
        for job_id, plan in self._live:
            forecast = self._forecaster.of(job_id, order)
            if forecast is not None:
                seconds[plan.sources] = float(round(forecast.expected_s))
        due = {model: seconds[sources] for model, sources in self._missing.items() if sources in seconds}
        for job_id in self._holds.ids:
            of_job = [seconds[sources] for sources in self._holds.sources_of(job_id) if sources in seconds]
            due |= {job_id: max(of_job)} if of_job else {}
        return due
