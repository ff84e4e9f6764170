"""Tiled img2img ("SD upscale"): denoises an image in overlapping tiles. It knows backends, no wire and no job.

Source: A1111 1.10.1 scripts/sd_upscale.py run, modules/images.py combine_grid.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from PIL import Image

from engine.catalog import ModelSpec
from engine.drawing import canvas
from engine.drawing.base import Backend, FinishedImage, Watcher
from engine.pass_watcher import PassWatcher
from engine.protocol import Generate, Tiles, steps_to_run

TILE = "tile"
"""Name of the current tile among a backend's inputs; no blob has this name."""
FILTERS = {"lanczos": Image.Resampling.LANCZOS, "nearest": Image.Resampling.NEAREST}
SEEDS = 2**64
SaveTemporary = Callable[[FinishedImage], str]
Box = tuple[int, int, int, int]
"""Left, top, right and bottom in pixels of the whole image."""


def draw(
    backend: Backend,
    spec: ModelSpec,
    plan: Generate,
    tiles: Tiles,
    image: int,
    inputs: Mapping[str, str],
    watcher: Watcher,
    save_temporary: SaveTemporary,
) -> FinishedImage:
    """Image number `image`: the input image of `plan`, enlarged, then denoised tile by tile.

    After a skip the remaining tiles stay as they were enlarged. Raises: as Backend.draw.
    """
    assert plan.init_image is not None
    before = enlarge(canvas.open_input(inputs[plan.init_image]), tiles)
    result = Image.new("RGB", before.size)
    lefts, tops = tiles.corners(plan.width_px, plan.height_px)
    steps, count, number = steps_to_run(plan.steps, plan.denoise, plan.sampling), len(lefts) * len(tops), 0
    drawn_px, skipped, overview = (plan.width_px, plan.height_px), False, Overview(before)
    for row, top in enumerate(tops):
        strip = Image.new("RGB", (before.width, plan.height_px))
        for column, left in enumerate(lefts):
            watcher.check()
            tile = before.crop((left, top, left + plan.width_px, top + plan.height_px))
            if not skipped:
                path = save_temporary(canvas.to_finished_image(tile, tile.size))
                box = (left, top, left + tile.width, top + tile.height)
                after = (count - number - 1) * steps
                tile_watcher = TileWatcher(watcher, number * steps, after, overview=overview, box=box)
                one = tile_plan(plan, tiles, image, number)
                finished = backend.draw(spec, one, image, {**inputs, TILE: path}, tile_watcher)
                tile = Image.frombytes("RGB", (finished.width_px, finished.height_px), finished.rgb)
                skipped, drawn_px = tile_watcher.skipped, finished.drawn_px
                overview.paste(tile, box)
            paste_beside(strip, tile, left, 0 if column == 0 else tiles.overlap_px)
            number += 1
        paste_below(result, strip, top, 0 if row == 0 else tiles.overlap_px)
    return canvas.to_finished_image(result, drawn_px)


def tile_plan(plan: Generate, tiles: Tiles, image: int, number: int) -> Generate:
    """Plan of tile `number`, counted row by row, of image number `image`.

    Source: A1111 1.10.1: a batch begins one seed after the first seed of the batch before; with a subseed strength the
    tiles of a batch differ by their subseeds.
    """
    batch, within = divmod(number, tiles.batch)
    varied = plan.subseed_strength > 0
    seeds, subseeds = list(plan.seeds), list(plan.subseeds)
    seeds[image] = seed_after(seeds[image], batch + (0 if varied else within))
    if varied:
        subseeds[image] = seed_after(subseeds[image], within)
    update = {
        "seeds": tuple(seeds),
        "subseeds": tuple(subseeds),
        "init_image": TILE,
        "further_init_images": (),
        "stretch_latents": False,
        "tiles": None,
    }
    return plan.model_copy(update=update)


def seed_after(seed: int, by: int) -> int:
    """The seed plus `by`, modulo the 64 bits that the engine accepts."""
    return seed + by if seed + by < SEEDS else seed + by - SEEDS


def enlarge(image: Image.Image, tiles: Tiles) -> Image.Image:
    size = (tiles.width_px, tiles.height_px)
    return image if image.size == size else image.resize(size, FILTERS[tiles.enlarge])


def ramp(length: int) -> list[int]:
    """Opacity of the later tile at each pixel of an overlap, 0 to 255."""
    return [i * 255 // length for i in range(length)]


def paste_beside(strip: Image.Image, tile: Image.Image, left: int, overlap: int) -> None:
    """Paste a tile into its row; its first `overlap` columns are blended."""
    if overlap:
        mask = Image.frombytes("L", (overlap, 1), bytes(ramp(overlap))).resize((overlap, tile.height))
        strip.paste(tile.crop((0, 0, overlap, tile.height)), (left, 0), mask)
    strip.paste(tile.crop((overlap, 0, *tile.size)), (left + overlap, 0))


def paste_below(result: Image.Image, strip: Image.Image, top: int, overlap: int) -> None:
    """Paste a row into the image; its first `overlap` lines are blended."""
    if overlap:
        mask = Image.frombytes("L", (1, overlap), bytes(ramp(overlap))).resize((strip.width, overlap))
        result.paste(strip.crop((0, 0, strip.width, overlap)), (0, top), mask)
    result.paste(strip.crop((0, overlap, *strip.size)), (0, top + overlap))


class Overview:
    """The whole image, small, with the tiles finished so far."""

    def __init__(self, image: Image.Image) -> None:
        self._scale = min(1.0, canvas.PREVIEW_PX / max(image.size))
        size = (max(1, round(image.width * self._scale)), max(1, round(image.height * self._scale)))
        self._small = image.resize(size, Image.Resampling.BILINEAR)

    def paste(self, tile: Image.Image, box: Box) -> None:
        """Paste a tile at its place."""
        left, top, right, bottom = (round(px * self._scale) for px in box)
        self._small.paste(tile.resize((max(1, right - left), max(1, bottom - top))), (left, top))

    def with_tile(self, jpeg: bytes, box: Box) -> bytes:
        """JPEG of the whole image with this preview of a tile in it."""
        before = self._small.copy()
        with Image.open(io.BytesIO(jpeg)) as preview:
            self.paste(preview.convert("RGB"), box)
        out = io.BytesIO()
        self._small.save(out, "JPEG", quality=75)
        self._small = before
        return out.getvalue()


@dataclass(slots=True)
class TileWatcher(PassWatcher):
    """Watcher that counts the steps of one tile among those of all, and shows it in the whole image."""

    overview: Overview = field(kw_only=True)
    box: Box = field(kw_only=True)

    def step(self, step: int, steps: int, seconds: float, preview: Callable[[], bytes]) -> None:
        PassWatcher.step(self, step, steps, seconds, lambda: self.overview.with_tile(preview(), self.box))
