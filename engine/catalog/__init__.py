"""Catalogue of the known models: pure data with their capabilities. It knows no disk and no MLX."""

from engine.catalog import (
    anima,
    boogu,
    embedded,
    ernie,
    fibo,
    fibo2,
    flux1,
    flux2,
    flux3,
    ideogram4,
    iris,
    krea2,
    lens,
    ming,
    moss,
    qwen,
    qwen21,
    seedvr2,
    stable_diffusion,
    z_image,
)
from engine.catalog.embedded import EMBEDDED, EMBEDDED_PATH
from engine.catalog.revisions import REVISIONS
from engine.catalog.spec import Family, HubFiles, ModelSpec

__all__ = ["CATALOG", "EMBEDDED", "EMBEDDED_PATH", "Family", "HubFiles", "ModelSpec"]

_FAMILIES = (
    embedded,
    flux2,
    z_image,
    flux1,
    qwen,
    qwen21,
    flux3,
    krea2,
    fibo2,
    ernie,
    ideogram4,
    moss,
    boogu,
    anima,
    iris,
    lens,
    ming,
    fibo,
    stable_diffusion,
    seedvr2,
)


def _pinned(spec: ModelSpec) -> ModelSpec:
    """The row with the commits of `revisions`, where it names none itself."""
    also = tuple(more.model_copy(update={"revision": more.revision or REVISIONS.get(more.repo)}) for more in spec.also)
    return spec.model_copy(update={"revision": spec.revision or REVISIONS.get(spec.repo or ""), "also": also})


CATALOG: tuple[ModelSpec, ...] = tuple(_pinned(spec) for family in _FAMILIES for spec in family.ROWS)
