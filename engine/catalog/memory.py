"""Memory of a family that its row does not give: for decoding an image, and of the text encoders.

Sources: mflux 0.24's READMEs (flux2, z_image, anima, qwen21, moss_image), measured on Apple silicon; the repositories'
files. docs/memory.md compares the figures with what others measured.

Decoding of Stable Diffusion is computed, not measured, by the last convolution that enlarges, to 256 channels in
float32: whole, its input, its output and Winograd's transforms of both (64/36 each) are in memory at once; in strips
its output, once more while the strips are joined, and a strip of 128 rows. Its text encoders are small, and low_ram
does not release them.
"""

from __future__ import annotations

from dataclasses import dataclass

from engine.catalog.spec import Family, ModelSpec


@dataclass(frozen=True, slots=True)
class Decoding:
    """GB per megapixel that the VAE decodes at once. With low_ram it decodes in tiles, or in strips, which take less
    per megapixel but need all of them.
    """

    whole_gb: float
    low_ram_gb: float
    in_tiles: bool = False


@dataclass(frozen=True, slots=True)
class Encoders:
    """Memory of text encoders: `gb` as in the repository, at `bits`; `fixed` if mflux does not quantise them."""

    gb: float
    fixed: bool = False
    bits: int = 16


_STRIPS = Decoding(1.4, 1.4)
_FLUX1 = Decoding(6.8, 1.4)
_QWEN = Decoding(8.3, 1.4)
_STABLE_DIFFUSION = Decoding(5.7, 2.8)
_DECODING: dict[Family, Decoding] = {
    "anima": _QWEN,
    "boogu": _FLUX1,
    "fibo": Decoding(8.3, 8.3, in_tiles=True),
    "flux1": _FLUX1,
    "iris": Decoding(0.1, 0.1),
    "krea2": _QWEN,
    "ming": _QWEN,
    "moss": Decoding(5.2, 1.1),
    "qwen": _QWEN,
    "qwen21": Decoding(12.4, 12.4, in_tiles=True),
    "sd1": _STABLE_DIFFUSION,
    "sd2": _STABLE_DIFFUSION,
    "sdxl": _STABLE_DIFFUSION,
    "sdxl_refiner": _STABLE_DIFFUSION,
    "seedvr2": Decoding(2.0, 2.0, in_tiles=True),
}
_ENCODERS: dict[str, Encoders] = {
    "anima": Encoders(1.2, fixed=True),
    "ernie": Encoders(7.7),
    "fibo": Encoders(6.2),
    "fibo2": Encoders(8.9),
    "flux1": Encoders(9.8),
    "flux2-klein-4b": Encoders(8.0),
    "flux2-klein-9b": Encoders(16.4),
    "flux2-klein-base-4b": Encoders(8.0),
    "flux2-klein-base-9b": Encoders(16.4),
    "flux3": Encoders(8.9),
    "ideogram4": Encoders(9.0, bits=8),
    "iris": Encoders(8.0),
    "krea2": Encoders(9.0, fixed=True),
    "qwen": Encoders(16.6, fixed=True),
    "qwen21": Encoders(17.5, fixed=True),
    "z_image": Encoders(8.0),
}
"""By geometry, else by family; for all others nothing is known."""


def decoding(spec: ModelSpec) -> Decoding:
    """Memory for decoding with the VAE of a model."""
    return _DECODING.get(spec.family, _STRIPS)


def encoders_gb(spec: ModelSpec, bits: int | None) -> float:
    """GB of `spec.loaded_gb(bits)` that low_ram releases once the prompt is encoded."""
    found = _ENCODERS.get(spec.geometry) or _ENCODERS.get(spec.family)
    if found is None:
        return 0.0
    bits = spec.stored_bits or bits
    return found.gb if bits is None or found.fixed else found.gb * (bits + 0.5) / found.bits
