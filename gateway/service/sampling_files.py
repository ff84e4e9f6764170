"""The files of the library that a request's sampling means: read from disk, on a thread, before the plan is decided."""

from __future__ import annotations

from engine.catalog import ModelSpec
from gateway.jobs.resolve import GenerationRequest
from gateway.jobs.resolve_sampling import is_sampled
from gateway.jobs.sampling_files import SamplingFiles, StableDiffusionFiles


def files_of(request: GenerationRequest, spec: ModelSpec, library: StableDiffusionFiles) -> SamplingFiles:
    """The files that a request means with this model; none for models of other families. Blocks."""
    if not is_sampled(spec):
        return SamplingFiles()
    asked = request.sampling
    vae = None if asked is None or not asked.vae else library.vae(asked.vae)
    refiner = None if asked is None or not asked.refiner else library.checkpoint(asked.refiner)
    return SamplingFiles(
        vae=vae,
        automatic_vae=library.vae_beside(spec),
        embeddings=tuple(one.name for one in library.embeddings(spec).loaded),
        refiner=refiner,
    )
