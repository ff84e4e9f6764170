"""The models we know how to draw with: pure data, capabilities included. Knows no disk and no MLX."""

from engine.catalog import embedded, ernie, flux1, flux2, flux3, krea2, moss, qwen, z_image
from engine.catalog.embedded import EMBEDDED, EMBEDDED_PATH
from engine.catalog.spec import Family, HubFiles, ModelSpec

__all__ = ["CATALOG", "EMBEDDED", "EMBEDDED_PATH", "Family", "HubFiles", "ModelSpec"]

CATALOG: tuple[ModelSpec, ...] = (
    *embedded.ROWS,
    *flux2.ROWS,
    *z_image.ROWS,
    *flux1.ROWS,
    *qwen.ROWS,
    *flux3.ROWS,
    *krea2.ROWS,
    *ernie.ROWS,
    *moss.ROWS,
)
