"""What every backend owes, asked of each in turn: the fake, and mflux on MLX with random weights at toy width."""

import asyncio
import base64
import io
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from PIL import Image, ImageChops, ImageOps

from engine.client import Engine, EngineOptions
from engine.client.turn import Fact
from engine.protocol import Drawn, Failed, Load, Lora, Paste, Preview, PromptRead, Run, SecondPass, StepDone
from tests.support.engine import TINY, facts_of, fake, kinds, plan, read_ppm, run_of
from tests.support.engine_toy import save_toy_lora, save_toy_model

FREE = TINY.model_copy(update={"native_px": None})
"""The toy at any size."""


@dataclass
class Bench:
    """A running engine, and the loop it runs on between the tests."""

    name: str
    engine: Engine
    runner: asyncio.Runner
    spool: Path
    model: Path

    def facts(
        self, what: Any = None, on_fact: Callable[[Fact], Awaitable[None]] | None = None, **changes: Any
    ) -> list[Fact]:
        """All but how the prompt was read: the toy's tokenizer has a token a letter, and reads few of them."""
        facts = self.runner.run(facts_of(self.engine, self.run_of(what, **changes), on_fact))
        return [fact for fact in facts if not isinstance(fact, PromptRead)]

    def run_of(self, what: Any = None, **changes: Any) -> Run:
        return run_of(self.spool, what, **{"spec": FREE, "model_path": str(self.model), **changes})

    def drawn(self, facts: list[Fact]) -> list[bytes]:
        return [read_ppm(self.spool / fact.spool)[2] for fact in facts if isinstance(fact, Drawn)]


@pytest.fixture(scope="module", params=["fake", "mlx"])
def bench(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bench]:
    folder = tmp_path_factory.mktemp(request.param)
    spool, model = folder / "spool", folder / "model"
    spool.mkdir()
    if request.param == "mlx":
        save_toy_model(model)
        options = EngineOptions(backend="mlx")
    else:
        model.mkdir()
        options = fake(step_seconds=0.01)
    with asyncio.Runner() as runner:
        engine = Engine(options)
        runner.run(engine.start())
        runner.run(engine.wait_ready(90))
        yield Bench(request.param, engine, runner, spool, model)
        runner.run(engine.stop())


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    path = tmp_path / "photo.png"
    Image.linear_gradient("L").resize((80, 40)).convert("RGB").save(path)
    return path


def test_engine_events_arrive_in_order_and_images_are_in_the_spool(bench: Bench) -> None:
    bench.facts(Load(model=TINY.name))
    facts = bench.facts(plan(seeds=(5, 6), steps=3), job="order", attempt=4)
    one = ["step_done"] * 3 + ["decoding", "drawn"]
    assert kinds(facts) == [*one, *one, "succeeded"]
    steps = [(fact.image, fact.step, fact.steps) for fact in facts if isinstance(fact, StepDone)]
    assert steps == [(image, step, 3) for image in (0, 1) for step in (1, 2, 3)]
    drawn = [fact for fact in facts if isinstance(fact, Drawn)]
    assert [(fact.spool, fact.seed) for fact in drawn] == [("order.4.0.ppm", 5), ("order.4.1.ppm", 6)]
    for fact in drawn:
        assert read_ppm(bench.spool / fact.spool)[:2] == (64, 48) == (fact.width_px, fact.height_px) == fact.drawn_px
        assert fact.seconds >= sum(f.seconds for f in facts if isinstance(f, StepDone) and f.image == fact.image)
    assert not list(bench.spool.glob("*.part"))


def test_model_is_loaded_by_first_job_and_reused_by_the_next(bench: Bench) -> None:
    assert kinds(bench.facts(Load(model=TINY.name, quantize=8))) == ["model_loading", "model_loaded", "succeeded"]
    assert bench.engine.status.loaded_model == TINY.name
    assert kinds(bench.facts(plan(quantize=8)))[0] == "step_done"
    assert kinds(bench.facts(plan()))[:2] == ["model_loading", "model_loaded"]
    assert kinds(bench.facts(Load(model=TINY.name))) == ["succeeded"]
    bench.runner.run(bench.engine.wait_ready(20))
    assert bench.engine.status.memory is not None


def test_image_pixels_are_equal_for_same_plan_and_differ_for_another_seed(bench: Bench) -> None:
    first, second = bench.drawn(bench.facts(plan(seeds=(1, 2))))
    assert first != second
    assert bench.drawn(bench.facts(plan(seeds=(2, 1)), job="again")) == [second, first]
    assert bench.drawn(bench.facts(plan(seeds=(1,), prompt="something else"), job="else")) != [first]
    assert bench.drawn(bench.facts(plan(seeds=(1,), previews=3), job="seen")) == [first]


def test_job_resumed_starts_at_first_undrawn_image(bench: Bench) -> None:
    whole = bench.drawn(bench.facts(plan(seeds=(1, 2, 3)), job="whole"))
    facts = bench.facts(plan(seeds=(1, 2, 3)), job="rest", attempt=2, first_image=1)
    assert {fact.image for fact in facts if isinstance(fact, Drawn | StepDone)} == {1, 2}
    assert bench.drawn(facts) == whole[1:]


def test_cancel_stops_within_a_step_and_keeps_the_model(bench: Bench) -> None:
    async def stop(fact: Fact) -> None:
        if isinstance(fact, StepDone) and fact.step == 2:
            await bench.engine.cancel("long")

    bench.facts(Load(model=TINY.name))
    facts = bench.facts(plan(steps=2000), stop, job="long")
    assert kinds(facts)[-1] == "cancelled"
    assert len(facts) < 1000
    pid = bench.engine.status.pid
    assert kinds(bench.facts())[0] == "step_done"
    assert bench.engine.status.pid == pid


@pytest.mark.parametrize(
    ("steps", "previews", "after"), [(4, 2, [1, 3]), (4, 9, [1, 2, 3]), (9, 2, [3, 6]), (1, 5, [])]
)
def test_preview_images_are_small_spread_and_never_of_last_step(
    bench: Bench, steps: int, previews: int, after: list[int]
) -> None:
    facts = bench.facts(plan(steps=steps, previews=previews, width_px=272, height_px=96))
    seen = [fact for fact in facts if isinstance(fact, Preview)]
    assert [fact.step for fact in seen] == after
    for fact in seen:
        with Image.open(io.BytesIO(base64.b64decode(fact.jpeg_base64))) as image:
            assert (image.format, image.size) == ("JPEG", (256, 90))


def test_denoise_0_gives_the_input_at_the_asked_size(bench: Bench, photo: Path) -> None:
    facts = bench.facts(plan(init_image="x", denoise=0.0), inputs={"x": str(photo)})
    assert kinds(facts)[-2:] == ["drawn", "succeeded"]
    with Image.open(photo) as original:
        assert bench.drawn(facts) == [original.resize((64, 48), Image.Resampling.LANCZOS).tobytes()]


def test_denoise_1_ignores_the_input(bench: Bench, photo: Path) -> None:
    without = bench.drawn(bench.facts(plan()))
    assert bench.drawn(bench.facts(plan(init_image="x", denoise=1.0), inputs={"x": str(photo)})) == without


@pytest.mark.parametrize(
    ("steps", "denoise", "runs"), [(1, 0.5, 1), (4, 0.1, 1), (4, 0.5, 2), (4, 0.9, 4), (4, 0.999, 4), (20, 0.3, 6)]
)
def test_img2img_runs_that_fraction_of_the_steps_and_one_at_least(
    bench: Bench, photo: Path, steps: int, denoise: float, runs: int
) -> None:
    facts = bench.facts(plan(init_image="x", denoise=denoise, steps=steps), inputs={"x": str(photo)})
    assert [(fact.step, fact.steps) for fact in facts if isinstance(fact, StepDone)] == [
        (step, runs) for step in range(1, runs + 1)
    ]
    assert kinds(facts)[-1] == "succeeded"


def test_img2img_depends_on_the_input(bench: Bench, photo: Path, tmp_path: Path) -> None:
    other = tmp_path / "other.png"
    Image.new("RGBA", (10, 10), (255, 0, 0, 128)).save(other)
    what = plan(init_image="x", denoise=0.4)
    one, two = (bench.drawn(bench.facts(what, inputs={"x": str(path)})) for path in (photo, other))
    assert one != two


def test_model_with_native_size_draws_at_it_and_resizes_result(bench: Bench, photo: Path) -> None:
    for changes in ({}, {"init_image": "x", "denoise": 0.5}):
        facts = bench.facts(
            plan(width_px=64, height_px=32, previews=1, steps=2, **changes),
            spec=TINY,
            inputs={"x": str(photo)} if changes else {},
        )
        drawn = facts[-2]
        assert isinstance(drawn, Drawn)
        assert (drawn.width_px, drawn.height_px, drawn.drawn_px) == (64, 32, (128, 128))
        assert read_ppm(bench.spool / drawn.spool)[:2] == (64, 32)


def _save(path: Path, image: Image.Image) -> str:
    image.save(path)
    return str(path)


@pytest.fixture
def inputs(tmp_path: Path) -> dict[str, str]:
    """A picture of 64x48, the mask of its right half, a larger picture, and a mask of part of that."""
    half, ring = Image.new("L", (64, 48)), Image.new("L", (100, 80))
    half.paste(255, (32, 0, 64, 48))
    ring.paste(255, (20, 20, 60, 60))
    gradient = Image.linear_gradient("L").convert("RGB")
    pictures = {"x": gradient.resize((64, 48)), "mask": half, "large": gradient.resize((100, 80)), "ring": ring}
    return {name: _save(tmp_path / f"{name}.png", image) for name, image in pictures.items()}


@pytest.mark.parametrize("content", ["original", "noise", "nothing"])
@pytest.mark.parametrize("denoise", [0.5, 1.0])
def test_mask_repaints_only_white_area(bench: Bench, inputs: dict[str, str], content: str, denoise: float) -> None:
    what = plan(init_image="x", mask="mask", denoise=denoise, mask_content=content)
    pixels = bench.drawn(bench.facts(what, inputs=inputs))[0]
    image = Image.frombytes("RGB", (64, 48), pixels)
    with Image.open(inputs["x"]) as original:
        assert image.crop((0, 0, 32, 48)).tobytes() == original.crop((0, 0, 32, 48)).tobytes()
        assert image.crop((32, 0, 64, 48)).tobytes() != original.crop((32, 0, 64, 48)).tobytes()


def test_image_generated_can_be_outpainted_into_larger_canvas(bench: Bench, inputs: dict[str, str]) -> None:
    paste = Paste(picture="large", mask="ring", left_px=10, top_px=10, width_px=64, height_px=64)
    what = plan(init_image="x", mask="mask", denoise=0.8, paste=paste)
    facts = bench.facts(what, inputs=inputs)
    drawn = next(fact for fact in facts if isinstance(fact, Drawn))
    assert (drawn.width_px, drawn.height_px) == (100, 80)
    image = Image.frombytes("RGB", (100, 80), bench.drawn(facts)[0])
    with Image.open(inputs["large"]) as original:
        difference = ImageChops.difference(image, original).convert("L").getbbox()
    assert difference is not None
    left, top, right, bottom = difference
    assert 20 <= left < right <= 60
    assert 20 <= top < bottom <= 60


def test_a_reference_picture_changes_what_is_drawn(bench: Bench, inputs: dict[str, str]) -> None:
    pictures = [
        bench.drawn(bench.facts(plan(references=names), inputs=inputs)) for names in ((), ("x",), ("x", "large"))
    ]
    assert len({picture[0] for picture in pictures}) == 3


def test_image_subseed_interpolates_between_images(bench: Bench) -> None:
    def drawn(seed: int, **changes: Any) -> bytes:
        return bench.drawn(bench.facts(plan(seeds=(seed,), **changes)))[0]

    between = [drawn(7, subseeds=(8,), subseed_strength=share) for share in (0.0, 0.5, 1.0)]
    assert between[0] == drawn(7)
    assert between[2] == drawn(8)
    assert len(set(between)) == 3


def test_loras_are_applied_scaled_combined_and_removed(bench: Bench, tmp_path: Path) -> None:
    one, other = tmp_path / "one.safetensors", tmp_path / "other.safetensors"
    if bench.name == "mlx":
        save_toy_lora(one)
        save_toy_lora(other, rank=2)
    files = {"one": str(one), "other": str(other)}

    def drawn(*loras: Lora) -> bytes:
        facts = bench.facts(plan(loras=loras), inputs=files)
        assert "model_loading" not in kinds(facts)
        return bench.drawn(facts)[0]

    bare = bench.drawn(bench.facts(plan()))[0]
    worn = [drawn(Lora(name="one")), drawn(Lora(name="one", scale=0.5)), drawn(Lora(name="one"), Lora(name="other"))]
    assert len({bare, *worn}) == 4
    assert drawn() == bare
    assert drawn(Lora(name="one")) == worn[0]
    assert drawn() == bare


def test_lora_that_does_not_fit_fails_and_leaves_model_unmodified(bench: Bench, tmp_path: Path) -> None:
    if bench.name == "fake":
        pytest.skip("the fake reads no weights")
    bare = bench.drawn(bench.facts(plan()))[0]
    save_toy_lora(tmp_path / "odd.safetensors", layer="single_transformer_blocks.9.attn.to_out")
    failed = bench.facts(plan(loras=(Lora(name="odd"),)), inputs={"odd": str(tmp_path / "odd.safetensors")})[-1]
    assert isinstance(failed, Failed)
    assert failed.code == "bad_input"
    assert str(tmp_path) not in failed.message
    assert bench.drawn(bench.facts(plan()))[0] == bare


def test_image_to_image_batch_uses_its_inputs_in_turn(bench: Bench, inputs: dict[str, str]) -> None:
    def drawn(*names: str) -> list[bytes]:
        what = plan(seeds=(1, 1, 1), init_image=names[0], further_init_images=names[1:], denoise=0.3)
        return bench.drawn(bench.facts(what, inputs=inputs))

    assert drawn("x", "large") == [drawn("x")[0], drawn("large")[0], drawn("x")[0]]
    assert drawn("x")[0] != drawn("large")[0]


def test_image_to_image_input_of_other_size_is_resized_as_pixels_or_latents(
    bench: Bench, inputs: dict[str, str]
) -> None:
    def drawn(**changes: bool) -> bytes:
        return bench.drawn(bench.facts(plan(init_image="large", denoise=0.5, **changes), inputs=inputs))[0]

    pixels, latents = drawn(), drawn(stretch_latents=True)
    assert len(latents) == len(pixels)
    assert bench.name == "fake" or latents != pixels
    assert drawn(stretch_latents=True) == latents


@pytest.mark.parametrize(("denoise", "steps"), [(0.0, 2), (0.5, 4), (1.0, 6)])
def test_image_second_pass_draws_over_upscaled_image(bench: Bench, denoise: float, steps: int) -> None:
    first = plan(seeds=(1,), steps=2, width_px=64, height_px=64)
    larger = SecondPass(width_px=128, height_px=96, steps=4, denoise=denoise)
    facts = bench.facts(first.model_copy(update={"second_pass": larger}), job="twice")
    told = [(fact.step, fact.steps) for fact in facts if isinstance(fact, StepDone)]
    assert told == [(step, steps) for step in range(1, steps + 1)]
    drawn = next(fact for fact in facts if isinstance(fact, Drawn))
    assert (drawn.width_px, drawn.height_px) == (128, 96)
    small = Image.frombytes("RGB", (64, 64), bench.drawn(bench.facts(first))[0])
    enlarged = ImageOps.fit(small, (128, 96), Image.Resampling.LANCZOS).tobytes()
    assert (bench.drawn(facts)[0] == enlarged) == (denoise == 0)
    assert not list(bench.spool.glob("*first*"))


@pytest.mark.parametrize("passes", [1, 2])
def test_image_skip_finishes_current_image_and_draws_next_one_completely(bench: Bench, passes: int) -> None:
    async def skip(fact: Fact) -> None:
        if isinstance(fact, StepDone) and (fact.image, fact.step) == (0, 2):
            bench.engine.skip("skipped")

    second = SecondPass(width_px=64, height_px=64, steps=2, denoise=0.5) if passes == 2 else None
    what = plan(seeds=(1, 2), steps=100, second_pass=second)
    facts = bench.facts(what, skip, job="skipped")
    first, last = (fact for fact in facts if isinstance(fact, Drawn))
    assert (first.cut_short, last.cut_short) == (True, False)
    assert kinds(facts)[-1] == "succeeded"
    assert sum(isinstance(fact, StepDone) and fact.image == 0 for fact in facts) < 80
    assert len(bench.drawn(facts)) == 2


def test_image_input_invalid_fails_and_next_job_runs(bench: Bench, tmp_path: Path) -> None:
    (tmp_path / "bad").write_bytes(b"\x89PNG\r\n\x1a\n nothing")
    failed = bench.facts(plan(init_image="x", denoise=0.5), inputs={"x": str(tmp_path / "bad")})[-1]
    assert isinstance(failed, Failed)
    assert failed.code == "bad_input"
    assert str(tmp_path) not in failed.message
    assert kinds(bench.facts())[-1] == "succeeded"


def test_model_damaged_fails_to_load_and_engine_survives(bench: Bench, tmp_path: Path) -> None:
    if bench.name == "fake":
        pytest.skip("the fake reads no weights")
    save_toy_model(tmp_path / "short")
    weights = tmp_path / "short" / "transformer" / "0.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1000])
    pid = bench.engine.status.pid
    for path, code in ((tmp_path / "short", "model_load_failed"), (tmp_path / "nowhere", "model_missing")):
        failed = bench.facts(plan(), model_path=str(path))[-1]
        assert isinstance(failed, Failed)
        assert failed.code == code
        assert str(tmp_path) not in failed.message
    assert kinds(bench.facts())[:2] == ["model_loading", "model_loaded"]
    assert bench.engine.status.pid == pid
