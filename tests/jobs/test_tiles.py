"""Tiles: A1111's grid, blend and seeds to the pixel, and a plan that counts all of them and takes the memory of one."""

from __future__ import annotations

import io
import itertools
import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
from PIL import Image, ImageChops

from engine import passes, tiles
from engine.catalog import CATALOG
from engine.drawing.base import FinishedImage, ImageSkipped
from engine.protocol import Generate, StepDone, Tiles
from gateway.errors import InvalidRequest
from gateway.forecast.costs import Costs
from gateway.forecast.trace import Trace
from gateway.forecast.work import work_of
from gateway.jobs.resolve import GenerationRequest, Limits, resolve
from gateway.jobs.resolve_tiles import MOST_TILES, TilesRequest
from gateway.residency.footprint import guess
from tests.support.sdapi import TINY, noise

SIZES = [(64, 64), (65, 64), (128, 128), (200, 120), (640, 448), (1000, 999), (40, 300), (30, 20), (1280, 720)]


class Backend:
    """Draws what `paint` makes of a tile, and tells `steps` steps."""

    def __init__(self, paint: Callable[[Image.Image, Generate], Image.Image], steps: int = 2) -> None:
        self.paint, self.steps, self.plans = paint, steps, list[Generate]()

    def draw(self, spec: Any, plan: Generate, image: int, inputs: Mapping[str, str], watcher: Any) -> FinishedImage:
        self.plans.append(plan)
        assert plan.init_image is not None
        with Image.open(inputs[plan.init_image]) as tile:
            painted = self.paint(tile.convert("RGB"), plan)
        try:
            for step in range(1, self.steps + 1):
                watcher.step(step, self.steps, 0.1, lambda: jpeg(painted))
        except ImageSkipped:
            pass
        watcher.start_decoding()
        return FinishedImage(*painted.size, painted.tobytes(), (48, 48))


def jpeg(picture: Image.Image) -> bytes:
    out = io.BytesIO()
    picture.save(out, "JPEG")
    return out.getvalue()


class Seen:
    """A watcher that keeps what it is told; `skip_at` is the step after which the rest is not wanted."""

    def __init__(self, skip_at: int = 0) -> None:
        self.steps, self.previews, self.skip_at = list[tuple[int, int]](), list[bytes](), skip_at

    def check(self) -> None: ...

    def start_decoding(self) -> None: ...

    def step(self, step: int, steps: int, seconds: float, preview: Callable[[], bytes]) -> None:
        self.steps.append((step, steps))
        self.previews.append(preview())
        if step == self.skip_at:
            raise ImageSkipped


def tiled(
    folder: Path, before: Image.Image, backend: Backend, seen: Seen | None = None, tile: int = 64, **changes: Any
) -> Image.Image:
    """`before` drawn over by `backend` in square tiles, as the engine's child does it."""
    before.save(folder / "before.png", compress_level=1)

    def lay(picture: FinishedImage) -> str:
        Image.frombytes("RGB", (picture.width_px, picture.height_px), picture.rgb).save(folder / "tile.ppm")
        return str(folder / "tile.ppm")

    width, height = before.size
    form = {"width_px": width, "height_px": height, "overlap_px": 16} | changes
    plan = Generate(
        model="m", prompt="x", width_px=tile, height_px=tile, steps=2, guidance=1, seeds=(7,), init_image="in",
        tiles=Tiles(**form),
    )  # fmt: skip
    inputs = {"in": str(folder / "before.png")}
    made = passes.denoise(backend, TINY, plan, 0, inputs, seen or Seen(), lay)()  # type: ignore[arg-type]
    return Image.frombytes("RGB", (made.width_px, made.height_px), made.rgb)


# ---- the geometry ----------------------------------------------------------------------------------


def a1111s_corners(whole: int, tile: int, overlap: int) -> list[int]:
    """By the words of A1111's split_grid: as many tiles as cover it, spread evenly, the last one at the edge."""
    count = math.ceil((whole - overlap) / (tile - overlap))
    spread = (whole - tile) / (count - 1) if count > 1 else 0
    found = [int(number * spread) for number in range(max(1, count))]
    return [whole - tile if at + tile >= whole else at for at in found[:-1]] + [whole - tile]


def test_tile_grid_equals_the_one_of_a1111() -> None:
    for whole, tile, overlap in itertools.product(range(20, 3000, 37), (64, 96, 512, 1024), (0, 1, 16, 63)):
        form = Tiles(width_px=whole, height_px=whole + 5, overlap_px=overlap)
        across, down = a1111s_corners(whole, tile, overlap), a1111s_corners(whole + 5, tile, overlap)
        assert form.corners(tile, tile) == (across, down)
        assert form.grid(tile, tile) == (len(across), len(down))
        assert (across[-1] + tile, down[-1] + tile) == (whole, whole + 5)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("overlap", [0, 16, 40])
def test_tiles_left_unchanged_join_to_the_original_image(tmp_path: Path, size: tuple[int, int], overlap: int) -> None:
    before = noise(size)
    tile = 1024 if max(size) > 1000 else 256 if max(size) > 300 else 64
    same = tiled(tmp_path, before, Backend(lambda tile, _: tile, steps=0), tile=tile, overlap_px=overlap)
    assert same.size == size
    assert ImageChops.difference(same, before).getbbox() is None


def blend(above: int, below: int, weight: int) -> int:
    """As Pillow pastes with a mask: a weight of 255 is all of it, and halves are rounded."""
    sum_ = above * weight + below * (255 - weight) + 128
    return ((sum_ >> 8) + sum_) >> 8


def test_tile_overlaps_are_blended_evenly(tmp_path: Path) -> None:
    """112 pixels in tiles of 64: the second tile begins at 48, and 16 columns of it are laid over the first one."""
    colours = iter((10, 250, 90, 130))
    drawn = tiled(
        tmp_path,
        Image.new("RGB", (112, 112)),
        Backend(lambda tile, _: Image.new("RGB", tile.size, (next(colours),) * 3)),
    )
    upper = [10] * 48 + [blend(250, 10, i * 255 // 16) for i in range(16)] + [250] * 48
    lower = [90] * 48 + [blend(130, 90, i * 255 // 16) for i in range(16)] + [130] * 48
    rows = [upper] * 48
    rows += [[blend(b, a, i * 255 // 16) for a, b in zip(upper, lower, strict=True)] for i in range(16)] + [lower] * 48
    assert upper[48:64] == [10, 24, 39, 54, 69, 84, 99, 114, 130, 145, 160, 175, 190, 205, 220, 235]
    assert drawn.getchannel("R").tobytes() == bytes(itertools.chain.from_iterable(rows))


def test_tiles_overlapping_more_than_requested_show_the_later_tile(tmp_path: Path) -> None:
    """100 pixels in tiles of 64: the second one begins at 36, its overlap ends at 52, and from there on it is seen."""
    colours = iter((0, 200))
    before = Image.new("RGB", (100, 64))
    row = tiled(tmp_path, before, Backend(lambda tile, _: Image.new("RGB", tile.size, (next(colours),) * 3))).crop(
        (0, 0, 100, 1)
    )
    found = list(row.getchannel("R").tobytes())
    assert found[:36] == [0] * 36
    assert found[36:52] == [blend(200, 0, i * 255 // 16) for i in range(16)]
    assert found[52:] == [200] * 48


def test_image_smaller_than_a_tile_is_drawn_in_one_tile_extending_beyond_it(tmp_path: Path) -> None:
    sizes = []
    drawn = tiled(tmp_path, noise((30, 40)), Backend(lambda tile, _: (sizes.append(tile.size), tile)[1]))
    assert (drawn.size, sizes) == ((30, 40), [(64, 64)])


# ---- seeds, steps, previews ------------------------------------------------------------------------


def test_tile_seeds_equal_those_of_a1111(tmp_path: Path) -> None:
    """A batch begins one seed behind the one before it, whatever its size: 0; 0 1 | 1 2; 0 1 2 | 1 2 3."""
    for batch, expected in ((1, [7, 8, 9, 10]), (2, [7, 8, 8, 9]), (3, [7, 8, 9, 8])):
        backend = Backend(lambda tile, _: tile)
        tiled(tmp_path, noise((112, 112)), backend, batch=batch)
        assert [plan.seeds[0] for plan in backend.plans] == expected
        assert all(plan.tiles is None and plan.prompt == "x" for plan in backend.plans)
    assert tiles.seed_after(2**64 - 1, 2) == 1


def test_steps_count_over_all_tiles_and_a_preview_is_the_whole_picture(tmp_path: Path) -> None:
    seen = Seen()
    tiled(
        tmp_path,
        Image.new("RGB", (208, 112), "red"),
        Backend(lambda tile, _: Image.new("RGB", tile.size, "blue")),
        seen,
    )
    assert seen.steps == [(step, 16) for step in range(1, 17)]
    with Image.open(io.BytesIO(seen.previews[3])) as shown:
        assert shown.size == (208, 112)
        (r, _, b), far = shown.convert("RGB").getpixel((70, 20)), shown.convert("RGB").getpixel((200, 100))  # type: ignore[misc]
    assert b > 200 > 60 > r, "the tiles that are drawn"
    assert far[0] > 200 > 60 > far[2], "what is not drawn yet"  # type: ignore[index]


@pytest.mark.parametrize("skip_at", [3, 4])
def test_tiles_skipped_keep_the_upscaled_original(tmp_path: Path, skip_at: int) -> None:
    backend = Backend(lambda tile, _: Image.new("RGB", tile.size, "blue"))
    drawn = tiled(tmp_path, Image.new("RGB", (112, 112), "red"), backend, Seen(skip_at))
    assert len(backend.plans) == 2
    assert drawn.getpixel((20, 20)) == drawn.getpixel((100, 20)) == (0, 0, 255)
    assert drawn.getpixel((20, 100)) == (255, 0, 0)


# ---- plans -----------------------------------------------------------------------------------------


def resolved(form: dict[str, Any], model: str = "flux2-tiny", **said: Any) -> Generate:
    spec = next(row for row in CATALOG if row.name == model)
    request = GenerationRequest(
        prompt="x",
        init_image="0" * 64,
        tiles=TilesRequest(**{"overlap_px": 64, **form}),
        **{"width_px": 512, "height_px": 512, **said},
    )
    return resolve(request, spec, Limits(), random_seed=lambda: 7).plan


def test_tile_job_counts_the_work_of_all_tiles_and_the_memory_of_one() -> None:
    large = {"width_px": 3840, "height_px": 2160}
    plan, whole = (
        resolved(large, "flux2-klein-4b", denoise=0.5),
        resolved(large, "flux2-klein-4b").model_copy(update={"tiles": None}),
    )
    assert plan.tile_count == 45
    spec = next(row for row in CATALOG if row.name == "flux2-klein-4b")
    work, one = work_of(plan, spec), work_of(whole, spec)
    assert work.steps == 45 * round(plan.steps * 0.5)
    assert work.drawn == pytest.approx(0.512**2)
    assert work.filed == pytest.approx(3.84 * 2.16)
    assert work.mode == "img2img+tiles"
    assert one.mode == "img2img"
    peaks = [guess(each, spec, disk_bytes=None, is_float32=False).peak for each in (plan, whole)]
    assert peaks[0] == peaks[1]


def test_forecast_counts_the_time_between_two_tiles() -> None:
    """Four steps a tile of 1 s, and 4 s between two tiles: 45 tiles take 8 s each, not 4."""
    plan = resolved({"width_px": 3840, "height_px": 2160}, "flux2-klein-4b", steps=4, denoise=1.0)
    spec = next(row for row in CATALOG if row.name == "flux2-klein-4b")
    trace, now = Trace(work_of(plan, spec), 0.0, loads=False), 0.0
    for step in range(1, 91):
        now += 5.0 if step % 4 == 1 else 1.0
        list(trace.on_fact(StepDone(image=0, step=step, steps=180, seconds=1.0), now))
    assert trace.left(Costs(lambda _: spec), now).seconds == pytest.approx(90 * 2.0, rel=0.1)


@pytest.mark.parametrize(
    ("form", "said", "message"),
    [
        (
            {"width_px": 9000, "height_px": 64},
            {},
            "The result would be 9000x64; it may have 8847360 pixels, 8192 on one",
        ),
        ({"width_px": 4096, "height_px": 4096}, {}, "would be 4096x4096"),
        ({"width_px": 10**30, "height_px": 1}, {}, "it may have"),
        ({"width_px": 0, "height_px": 64}, {}, "would be 0x64"),
        ({"width_px": 512, "height_px": 512, "overlap_px": -1}, {}, "Tiles of 512x512 may overlap by 0 to 256"),
        ({"width_px": 512, "height_px": 512, "overlap_px": 257}, {}, "257 was asked"),
        ({"width_px": 512, "height_px": 512, "overlap_px": 64}, {"width_px": 64}, "by 0 to 63 pixels"),
        (
            {"width_px": 4096, "height_px": 2160, "overlap_px": 63},
            {"width_px": 64, "height_px": 64},
            f"at most {MOST_TILES} tiles",
        ),
        ({"width_px": 512, "height_px": 512}, {"mask": "0" * 64}, "Tiles go with no mask"),
    ],
)
def test_tiles_out_of_bounds_are_refused(form: dict[str, Any], said: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidRequest, match=message):
        resolved(form, **said)


def test_tile_work_in_total_is_limited() -> None:
    form = {"width_px": 2048, "height_px": 2048}
    assert resolved(form, "flux2-klein-base-4b", steps=50).tile_count == 25
    with pytest.raises(InvalidRequest, match="steps x pictures must be at most 1000000000; 6553600000 were asked"):
        resolved(form, "flux2-klein-base-4b", steps=100, count=10)


def test_tiles_with_a_subseed_strength_differ_by_their_subseeds() -> None:
    plan = resolved({"width_px": 960, "height_px": 512, "batch": 2}, count=2, seed=5, subseed=90, subseed_strength=0.5)
    assert (plan.seeds, plan.subseeds) == ((5, 6), (90, 90))
    form = plan.tiles
    assert form is not None
    drawn = [tiles.tile_plan(plan, form, 1, number) for number in range(4)]
    assert [(one.seeds[1], one.subseeds[1]) for one in drawn] == [(6, 90), (6, 91), (7, 90), (7, 91)]
