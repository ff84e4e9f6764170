"""The script "SD upscale": A1111's grid and blend to the pixel, one durable job, and what of it is refused."""

from __future__ import annotations

import base64
import io
import itertools
import json
import math
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest
from PIL import Image, ImageChops

from adapters.sdapi.lists import SCRIPT_INFO
from adapters.sdapi.sd_upscale import SdUpscale, said_by
from engine import passes, tiles
from engine.backends.base import Picture, PictureSkipped
from engine.catalog import CATALOG
from engine.protocol import Generate, Tiles
from gateway.errors import InvalidRequest
from gateway.forecast.work import work_of
from gateway.request import GenerationRequest, Limits, resolve
from gateway.residency.footprint import guess
from gateway.tiles import MOST_TILES, TilesRequest
from tests.live import live
from tests.sdapi_support import SMALL, TINY, fixtures, opened

STEP_S = 0.1
SIZES = [(64, 64), (65, 64), (128, 128), (200, 120), (640, 448), (1000, 999), (40, 300), (30, 20), (3840, 2160)]


def gradient(size: tuple[int, int]) -> Image.Image:
    """Every pixel differs from its neighbours in every channel."""
    across, down = Image.linear_gradient("L").rotate(90).resize(size), Image.linear_gradient("L").resize(size)
    return Image.merge("RGB", (across, down, Image.effect_noise(size, 80)))


def png(picture: Image.Image) -> str:
    out = io.BytesIO()
    picture.save(out, "PNG")
    return base64.b64encode(out.getvalue()).decode()


class Backend:
    """Draws what `paint` makes of a tile, and tells `steps` steps."""

    def __init__(self, paint: Callable[[Image.Image, Generate], Image.Image], steps: int = 2) -> None:
        self.paint, self.steps, self.plans = paint, steps, list[Generate]()

    def draw(self, spec: Any, plan: Generate, image: int, inputs: Mapping[str, str], watcher: Any) -> Picture:
        self.plans.append(plan)
        assert plan.init_image is not None
        with Image.open(inputs[plan.init_image]) as tile:
            painted = self.paint(tile.convert("RGB"), plan)
        try:
            for step in range(1, self.steps + 1):
                watcher.step(step, self.steps, 0.1, lambda: jpeg(painted))
        except PictureSkipped:
            pass
        watcher.decoding()
        return Picture(*painted.size, painted.tobytes(), (48, 48))


def jpeg(picture: Image.Image) -> bytes:
    out = io.BytesIO()
    picture.save(out, "JPEG")
    return out.getvalue()


class Seen:
    """A watcher that keeps what it is told; `skip_at` is the step after which the rest is not wanted."""

    def __init__(self, skip_at: int = 0) -> None:
        self.steps, self.previews, self.skip_at = list[tuple[int, int]](), list[bytes](), skip_at

    def check(self) -> None: ...

    def decoding(self) -> None: ...

    def step(self, step: int, steps: int, seconds: float, preview: Callable[[], bytes]) -> None:
        self.steps.append((step, steps))
        self.previews.append(preview())
        if step == self.skip_at:
            raise PictureSkipped


def tiled(
    folder: Path, before: Image.Image, backend: Backend, seen: Seen | None = None, tile: int = 64, **changes: Any
) -> Image.Image:
    """`before` drawn over by `backend` in square tiles, as the engine's child does it."""
    before.save(folder / "before.png")

    def lay(picture: Picture) -> str:
        Image.frombytes("RGB", (picture.width_px, picture.height_px), picture.rgb).save(folder / "tile.ppm")
        return str(folder / "tile.ppm")

    width, height = before.size
    form = {"width_px": width, "height_px": height, "overlap_px": 16} | changes
    plan = Generate(
        model="m", prompt="x", width_px=tile, height_px=tile, steps=2, guidance=1, seeds=(7,), init_image="in",
        tiles=Tiles(**form),
    )  # fmt: skip
    inputs = {"in": str(folder / "before.png")}
    made = passes.draw(backend, TINY, plan, 0, inputs, seen or Seen(), lay)  # type: ignore[arg-type]
    return Image.frombytes("RGB", (made.width_px, made.height_px), made.rgb)


# ---- the geometry ----------------------------------------------------------------------------------


def a1111s_corners(whole: int, tile: int, overlap: int) -> list[int]:
    """By the words of A1111's split_grid: as many tiles as cover it, spread evenly, the last one at the edge."""
    count = math.ceil((whole - overlap) / (tile - overlap))
    spread = (whole - tile) / (count - 1) if count > 1 else 0
    found = [int(number * spread) for number in range(max(1, count))]
    return [whole - tile if at + tile >= whole else at for at in found[:-1]] + [whole - tile]


def test_the_grid_is_a1111s() -> None:
    for whole, tile, overlap in itertools.product(range(20, 3000, 37), (64, 96, 512, 1024), (0, 1, 16, 63)):
        form = Tiles(width_px=whole, height_px=whole + 5, overlap_px=overlap)
        across, down = a1111s_corners(whole, tile, overlap), a1111s_corners(whole + 5, tile, overlap)
        assert form.corners(tile, tile) == (across, down)
        assert form.grid(tile, tile) == (len(across), len(down))
        assert (across[-1] + tile, down[-1] + tile) == (whole, whole + 5)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("overlap", [0, 16, 63])
def test_tiles_that_nobody_changed_are_the_picture(tmp_path: Path, size: tuple[int, int], overlap: int) -> None:
    if overlap == 63 and max(size) > 200:
        return  # thousands of tiles
    before = gradient(size)
    same = tiled(
        tmp_path, before, Backend(lambda tile, _: tile), tile=512 if max(size) > 999 else 64, overlap_px=overlap
    )
    assert same.size == size
    assert ImageChops.difference(same, before).getbbox() is None


def blend(above: int, below: int, weight: int) -> int:
    """As Pillow pastes with a mask: a weight of 255 is all of it, and halves are rounded."""
    sum_ = above * weight + below * (255 - weight) + 128
    return ((sum_ >> 8) + sum_) >> 8


def test_overlaps_go_over_evenly_from_one_tile_into_the_next(tmp_path: Path) -> None:
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


def test_tiles_that_overlap_by_more_than_asked_show_the_later_one(tmp_path: Path) -> None:
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


def test_a_picture_smaller_than_a_tile_is_drawn_in_one_that_reaches_beyond_it(tmp_path: Path) -> None:
    sizes = []
    drawn = tiled(tmp_path, gradient((30, 40)), Backend(lambda tile, _: (sizes.append(tile.size), tile)[1]))
    assert (drawn.size, sizes) == ((30, 40), [(64, 64)])


# ---- seeds, steps, previews ------------------------------------------------------------------------


def test_tiles_have_a1111s_seeds(tmp_path: Path) -> None:
    """A batch begins one seed behind the one before it, whatever its size: 0; 0 1 | 1 2; 0 1 2 | 1 2 3."""
    for batch, expected in ((1, [7, 8, 9, 10]), (2, [7, 8, 8, 9]), (3, [7, 8, 9, 8])):
        backend = Backend(lambda tile, _: tile)
        tiled(tmp_path, gradient((112, 112)), backend, batch=batch)
        assert [plan.seeds[0] for plan in backend.plans] == expected
        assert all(plan.tiles is None and plan.prompt == "x" for plan in backend.plans)
    assert tiles.later(2**64 - 1, 2) == 1


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
def test_what_is_skipped_stays_as_it_was_enlarged(tmp_path: Path, skip_at: int) -> None:
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


def test_a_job_of_tiles_counts_all_of_them_and_takes_the_memory_of_one() -> None:
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


def test_the_work_of_all_tiles_is_bounded() -> None:
    form = {"width_px": 2048, "height_px": 2048}
    assert resolved(form, "flux2-klein-base-4b", steps=50).tile_count == 25
    with pytest.raises(InvalidRequest, match="steps x pictures must be at most 1000000000; 6553600000 were asked"):
        resolved(form, "flux2-klein-base-4b", steps=100, count=10)


def test_with_a_subseed_strength_the_tiles_differ_by_their_subseeds() -> None:
    plan = resolved({"width_px": 960, "height_px": 512, "batch": 2}, count=2, seed=5, subseed=90, subseed_strength=0.5)
    assert (plan.seeds, plan.subseeds) == ((5, 6), (90, 90))
    form = plan.tiles
    assert form is not None
    drawn = [tiles.tile_plan(plan, form, 1, number) for number in range(4)]
    assert [(one.seeds[1], one.subseeds[1]) for one in drawn] == [(6, 90), (6, 91), (7, 90), (7, 91)]


# ---- what the script is told -----------------------------------------------------------------------

HERE = ["None", "Lanczos", "Nearest", "SeedVR2"]


@pytest.mark.parametrize(
    ("args", "expected"),
    [
        ([], SdUpscale(64, "None", 2.0, "None")),
        (["", 8, "Lanczos", 2], SdUpscale(8, "Lanczos", 2.0, "Lanczos")),
        (["", 8, 2, 1.5], SdUpscale(8, "Nearest", 1.5, "Nearest")),
        ([None, "16", "1", "3"], SdUpscale(16, "Lanczos", 3.0, "Lanczos")),
        ([None, None, None, None, "more"], SdUpscale(64, "None", 2.0, "None")),
        (["", 64.0, "R-ESRGAN 4x+", 4], SdUpscale(64, "Lanczos", 4.0, "R-ESRGAN 4x+")),
    ],
)
def test_arguments_are_read_in_a1111s_order(args: list[Any], expected: SdUpscale) -> None:
    assert said_by(args, HERE) == expected


def test_the_script_says_its_arguments() -> None:
    (script,) = SCRIPT_INFO
    labels = [argument["label"] for argument in script["args"]]
    assert labels == ["", "Tile overlap", "Upscaler", "Scale Factor"]
    assert [argument["value"] for argument in script["args"]][1:] == [64, "None", 2]


# ---- over the wire ---------------------------------------------------------------------------------

gateway, client = fixtures(fake_script={"step_seconds": 0.001})
slow_gateway, slow = fixtures("slow_gateway", "slow", fake_script={"step_seconds": STEP_S})
BEFORE = gradient((96, 72))
UPSCALE = {
    **SMALL,
    "init_images": [png(BEFORE)],
    "script_name": "SD upscale",
    "script_args": ["", 16, "Lanczos", 2],
    "seed": 3,
}


def info_of(answer: httpx.Response) -> dict[str, Any]:
    assert answer.status_code == 200, answer.text
    return dict(json.loads(answer.json()["info"]))


@pytest.mark.parametrize(
    ("args", "size", "filter"),
    [
        (["", 16, "Lanczos", 2], (192, 144), Image.Resampling.LANCZOS),
        (["", 8, 2, 3.3], (312, 232), Image.Resampling.NEAREST),
        (["", 0, 0, 2], (96, 72), None),
        (["", 16, "LDSR", 0.5], (48, 32), Image.Resampling.LANCZOS),
    ],
)
def test_without_denoising_the_picture_is_enlarged_and_no_more(
    client: httpx.Client, args: list[Any], size: tuple[int, int], filter: Image.Resampling | None
) -> None:
    answer = client.post("img2img", json={**UPSCALE, "script_args": args, "denoising_strength": 0})
    found = opened(base64.b64decode(answer.json()["images"][0]))
    expected = BEFORE if filter is None else BEFORE.resize(size, filter)
    assert found.size == size
    assert ImageChops.difference(found, expected).getbbox() is None
    told = {item["param"]: item["used"] for item in info_of(answer)["adjustments"]}
    assert told.get("script_args.upscaler") == ("Lanczos" if args[2] == "LDSR" else None)
    assert told.get("script_args.scale_factor") == (1 if args[2] == 0 else None)


def test_one_job_draws_n_iter_pictures_and_tells_them_as_a1111_does(client: httpx.Client) -> None:
    body = {**UPSCALE, "script_name": "sd upscale", "n_iter": 2, "batch_size": 3, "denoising_strength": 0.5}
    answer = client.post("img2img", json=body)
    info, pictures = info_of(answer), [opened(base64.b64decode(image)) for image in answer.json()["images"]]
    assert [picture.size for picture in pictures] == [(192, 144)] * 2
    assert pictures[0].tobytes() != pictures[1].tobytes()
    assert (info["all_seeds"], info["width"], info["height"]) == ([3, 4], 64, 64)
    assert info["extra_generation_params"] == {"SD upscale overlap": 16, "SD upscale upscaler": "Lanczos"}
    assert "SD upscale overlap: 16, SD upscale upscaler: Lanczos" in info["infotexts"][0]
    assert "Size: 64x64" in info["infotexts"][0]
    again = client.post("img2img", json={**body, "n_iter": 1, "seed": 4})
    assert opened(base64.b64decode(again.json()["images"][0])).tobytes() == pictures[1].tobytes()


def test_it_is_listed_with_its_arguments(client: httpx.Client) -> None:
    assert client.get("scripts").json() == {"txt2img": [], "img2img": ["sd upscale"]}
    (script,) = client.get("script-info").json()
    assert (script["name"], script["is_alwayson"], script["is_img2img"]) == ("sd upscale", False, True)
    assert script["args"][2]["choices"] == [row["name"] for row in client.get("upscalers").json()][:3]


@pytest.mark.parametrize(
    ("changes", "status", "said"),
    [
        ({"script_args": ["", 16, "no such", 2]}, 500, "could not find upscaler named no such"),
        ({"script_args": ["", 16, 99, 2]}, 500, "could not find upscaler named 99"),
        ({"script_args": ["", 16, {"a": 1}, 2]}, 422, "script_args"),
        ({"script_args": ["", 16, "SeedVR2", 2]}, 422, "extra-single-image"),
        ({"script_args": ["", 64, 1, 2]}, 422, "may overlap by 0 to 63 pixels"),
        ({"script_args": ["", -1, 1, 2]}, 422, "script_args"),
        ({"script_args": ["", 16, 1, 0]}, 422, "above 0"),
        ({"script_args": ["", 16, 1, 1e9]}, 422, "it may have"),
        ({"script_args": ["", "many", 1, 1]}, 422, "script_args"),
        ({"script_args": {"overlap": 1}}, 422, "script_args"),
        ({"script_args": ["", 16, 1, 20]}, 422, "at most 256 tiles"),
        ({"mask": png(Image.new("L", (96, 72), "white"))}, 422, "mask"),
        ({"width": 10**9}, 422, "width must be between 64 and 8192"),
        ({"alwayson_scripts": {"ControlNet": {"args": [{"enabled": True, "module": "canny"}]}}}, 422, "ControlNet"),
        ({"script_name": "sd upscale 2"}, 422, "Script 'sd upscale 2' not found"),
        ({"init_images": []}, 404, "Init image not found"),
    ],
)
def test_what_cannot_be_done_is_refused_by_name(
    client: httpx.Client, changes: dict[str, Any], status: int, said: str
) -> None:
    answer = client.post("img2img", json={**UPSCALE, **changes})
    assert answer.status_code == status, answer.text
    assert said in answer.text


def test_txt2img_has_no_such_script(client: httpx.Client) -> None:
    assert client.post("txt2img", json={**SMALL, "script_name": "SD upscale"}).status_code == 422


@pytest.fixture
def background() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(2) as pool:
        yield pool


def at_tile(client: httpx.Client, number: int) -> dict[str, Any]:
    while True:
        body: dict[str, Any] = client.get("progress").json()
        if body["state"]["job_no"] >= number and body["state"]["sampling_step"]:
            return body
        time.sleep(0.02)


def test_progress_goes_over_all_tiles_and_an_interrupt_ends_the_job_within_a_step(
    slow: httpx.Client, background: ThreadPoolExecutor
) -> None:
    answer = background.submit(slow.post, "img2img", json={**UPSCALE, "denoising_strength": 0.5})
    body = at_tile(slow, 2)
    state = body["state"]
    assert (state["job_count"], state["sampling_steps"]) == (12, 2)
    assert 1 <= state["sampling_step"] <= 2
    assert 2 / 12 < body["progress"] < 1
    began = time.monotonic()
    slow.post("interrupt")
    assert answer.result().json()["images"] == []
    assert time.monotonic() - began < 10


def test_a_skip_leaves_the_rest_as_it_was_enlarged(slow: httpx.Client, background: ThreadPoolExecutor) -> None:
    answer = background.submit(slow.post, "img2img", json=UPSCALE)
    at_tile(slow, 1)
    slow.post("skip")
    found = opened(base64.b64decode(answer.result().json()["images"][0]))
    plain = BEFORE.resize((192, 144), Image.Resampling.LANCZOS)
    corner = (160, 120, 192, 144)
    assert found.crop(corner).tobytes() == plain.crop(corner).tobytes()
    assert found.crop((0, 0, 40, 40)).tobytes() != plain.crop((0, 0, 40, 40)).tobytes()


def test_a_job_whose_engine_dies_in_a_later_tile_is_drawn_all_the_same(tmp_path: Path) -> None:
    """The fake engine dies once, in the step that its counter names; the job is claimed again and drawn whole."""
    script = {"crash_in": "decode", "crash_times": 1, "counter_path": str(tmp_path / "count")}
    with live(tmp_path, fake_script=script) as running:
        body = {**UPSCALE, "denoising_strength": 0.5}
        first, second = (httpx.post(f"{running.url}/sdapi/v1/img2img", json=body, timeout=100) for _ in range(2))
    assert (tmp_path / "count").stat().st_size == 1
    assert opened(base64.b64decode(first.json()["images"][0])).size == (192, 144)
    assert first.json()["images"] == second.json()["images"]
