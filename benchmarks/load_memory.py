"""Peak memory of loading a model, relative to the loaded model: every family as a toy with many layers, FLUX.2 wider.
Quantised at load to 8 and 4 bits, and not; at 4 bits from the quantised copy too.

python -m benchmarks.load_memory (all)

python -m benchmarks.load_memory flux2-klein-4b qwen-image (these rows)

As MLX counts, without its cache.
"""

from __future__ import annotations

import argparse
import gc
import tempfile
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from engine.catalog import CATALOG, ModelSpec
from engine.drawing.base import Model
from gateway.residency.quantized_copies import Copies
from tests.support.engine_toy import save_toy_model
from tests.support.engine_toy_seedvr2 import save_toy_seedvr2, toy_sized
from tests.support.toys_deep import TOYS, deep

WIDER: dict[str, Any] = {"num_attention_heads": 16, "num_layers": 2, "num_single_layers": 24}
SPECS = {spec.name: spec for spec in CATALOG}
WIDE, UPSCALER = "flux2-tiny", "seedvr2-3b"


@dataclass(frozen=True, slots=True)
class Taken:
    """Bytes of the loaded model, and at the peak of loading."""

    held: int
    peak: int

    @property
    def ratio(self) -> float:
        return self.peak / self.held


def loading(model: Model, copies: Copies | None = None) -> Taken:
    """Memory for loading in this process. The model is freed again, after a copy was made where one is requested."""
    import mlx.core as mx

    from engine.backends.mlx import MlxBackend

    gc.collect()
    before = mx.get_active_memory()
    backend = MlxBackend()
    backend.load(model)
    taken = Taken(mx.get_active_memory() - before, mx.get_peak_memory() - before)
    if copies is not None and model.quantize is not None:
        unfinished = copies.begin(model.spec, Path(model.path), model.quantize)
        backend.save(str(unfinished))
        copies.finish(unfinished, Path(model.path))
    del backend
    gc.collect()
    return taken


@contextmanager
def saved(name: str, folder: Path) -> Iterator[tuple[ModelSpec, tuple[str, ...]]]:
    """Toy of this row in `folder`, which mflux loads during the context; yields its further folders."""
    placed: AbstractContextManager[None] = nullcontext()
    also: tuple[str, ...] = ()
    if name == WIDE:
        save_toy_model(folder, **WIDER)
    elif name == UPSCALER:
        save_toy_seedvr2(folder)
        placed = toy_sized()
    else:
        toy = deep(TOYS[name])
        with toy.in_place():
            toy.save(folder)
        also, placed = toy.part(folder), toy.in_place()
    with placed:
        yield SPECS[name], also


def main() -> None:
    names = [WIDE, *TOYS, UPSCALER]
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="ROW", help=", ".join(names))
    for name in parser.parse_args().names or names:
        with tempfile.TemporaryDirectory() as place, saved(name, Path(place) / "model") as (spec, also):
            copies = Copies(Path(place), keep=True)
            for bits in (None, 8, 4):
                taken = loading(
                    Model(spec, f"{place}/model", bits, also=also), copies if spec.copies and bits == 4 else None
                )
                print(f"{name:40} {bits or 'whole':>5} {taken.held / 1e6:8.2f} MB {taken.ratio:6.2f}")
            if (copy := copies.find(spec, Path(place) / "model", 4)) is not None:
                taken = loading(Model(spec, f"{place}/model", 4, copy=str(copy), also=also))
                print(f"{name:40} {'copy':>5} {taken.held / 1e6:8.2f} MB {taken.ratio:6.2f}", flush=True)


if __name__ == "__main__":
    main()
