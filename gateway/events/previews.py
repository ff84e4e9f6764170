"""Previews of running jobs for other processes: stored at an address, because a message has no room for an image."""

from __future__ import annotations

from typing import Protocol

from gateway.store.base import JobStore


class Previews(Protocol):
    """A place for previews that all processes of a fleet can reach."""

    async def put(self, job_id: str, attempt: int, jpeg_base64: str) -> str:
        """Store the newest preview of a job; returns its address."""
        ...

    async def get(self, address: str) -> str | None:
        """The preview at an address as base64 of a JPEG; None where a newer one has replaced it."""
        ...


class StoredPreviews:
    """Previews in the job store: one for each node by name, which replaces the one before."""

    def __init__(self, store: JobStore, node_name: str) -> None:
        self._store = store
        self._name = f"preview {node_name}"
        self._count = 0

    async def put(self, job_id: str, attempt: int, jpeg_base64: str) -> str:
        self._count += 1
        label = f"{job_id}.{attempt}.{self._count}"
        await self._store.save_state(self._name, f"{label} {jpeg_base64}")
        return f"{label} {self._name}"

    async def get(self, address: str) -> str | None:
        label, _, name = address.partition(" ")
        stored, _, jpeg = (await self._store.read_state(name) or "").partition(" ")
        return jpeg if stored == label else None
