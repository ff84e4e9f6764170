"""Management of models: download, remove, unload, clear quarantine. Draws no image."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Collection

from gateway.access.rights import Rights
from gateway.downloads.tracker import Downloads
from gateway.errors import ModelKept
from gateway.jobs.job import Job
from gateway.jobs.origin import Origin
from gateway.models.library import Library
from gateway.residency import ResidencyManager


class ModelControl:
    """The management of models. Every method takes the owner that calls it; raises Forbidden without the right.

    `loaded` is the model in this engine's memory, `loaded_anywhere` those in the memory of all nodes; `unload` frees
    one of them, or each, `unload_reader` an OCR model. `running` is the job that this engine runs, and `check_running`
    raises Unavailable once the gateway stops.
    """

    def __init__(
        self,
        *,
        library: Library,
        downloads: Downloads,
        residency: ResidencyManager,
        loaded: Callable[[], str | None],
        loaded_anywhere: Callable[[], Collection[str]],
        unload: Callable[[str | None], Awaitable[None]],
        unload_reader: Callable[[str], Awaitable[bool]],
        running: Callable[[], Job | None],
        check_running: Callable[[], None],
        rights: Rights,
    ) -> None:
        self._library = library
        self._downloads = downloads
        self._residency = residency
        self._loaded = loaded
        self._loaded_anywhere = loaded_anywhere
        self._unload_reader = unload_reader
        self._unload = unload
        self._running = running
        self._check_running = check_running
        self._rights = rights

    async def pull(self, model: str, origin: Origin) -> Job:
        """Start or join the download of a model; for a model on disk the job ends at once.

        Raises: ModelNotFound, ModelNotServed, ModelNotOnDisk for a model that no hub has, StorageFull, Unavailable.
        """
        self._rights.check(origin.owner, "pull")
        spec = self._library.find(model)
        if spec.repo is None or spec.unavailable is not None:
            self._library.folder(spec)
        self._check_running()
        return await self._downloads.bring(spec, origin.owner, origin)

    async def remove(self, model: str, owner: str) -> None:
        """Remove the weights that were downloaded for a model, and their quantised copies.

        Raises: ModelNotFound, ModelNotOnDisk, ModelKept.
        """
        self._rights.check(owner, "remove")
        spec = self._library.find(model)
        running_job = self._running()
        for used in (self._loaded(), None if running_job is None else running_job.plan.model):
            if used is not None and self._downloads.share(used, spec.name):
                raise ModelKept(f"{used} is in memory; unload it first.")
        folder = await asyncio.to_thread(self._library.find_folder, spec)
        await self._downloads.remove(spec)
        if folder is not None:
            await asyncio.to_thread(self._residency.copies.forget, spec, folder)

    async def unload(self, owner: str, model: str | None = None) -> bool:
        """Free the memory of this model, or of the loaded one, between two jobs; returns whether it was loaded.

        The next job loads its own model. Raises: ModelNotFound, Unavailable.
        """
        self._rights.check(owner, "unload")
        name = None if model is None else self._library.find(model).name
        was_loaded = any(name in (None, loaded) for loaded in self._loaded_anywhere())
        if name is None or was_loaded:
            await self._unload(name)
        return was_loaded

    async def unload_reader(self, owner: str, model: str) -> bool:
        """Free the memory of an OCR model, between two jobs; returns whether it was loaded."""
        self._rights.check(owner, "unload")
        return await self._unload_reader(model)

    async def clear_quarantine(self, model: str, owner: str) -> bool:
        """Clear the quarantine of a model; returns whether it was in quarantine.

        Raises: ModelNotFound, ModelNotServed, ModelNotOnDisk.
        """
        self._rights.check(owner, "clear_quarantine")
        return await self._residency.clear(self._library.folder(self._library.find(model)))
