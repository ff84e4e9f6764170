"""What a plan asks for, and one series of seconds: what is learned of it, and guessed at another size."""

from __future__ import annotations

import pytest

from engine.protocol import Load, Lora, SecondPass
from gateway.forecast.series import Cost, LinearFit, Series, robust
from gateway.forecast.work import work_of
from gateway.jobs.plans import Download, Ocr
from gateway.models.lora_repositories import LORA
from tests.support import a_plan
from tests.support.forecast import SMALL, SPECS, a_picture

GUESS = LinearFit(1.0, 1.0)
approx = pytest.approx


# ---- what a plan asks for ------------------------------------------------------------------------


def test_forecast_work_counts_the_load_of_a_step_and_distinguishes_modes() -> None:
    plain = work_of(a_picture(1000, steps=4, count=3), SPECS[SMALL])
    assert (plain.mode, plain.images, plain.steps, plain.drawn, plain.filed) == ("txt2img", 3, 4, 1.0, 1.0)
    assert work_of(a_picture(1000, count=3), SPECS[SMALL], done=2).images == 1
    edit = work_of(a_plan(width_px=1000, height_px=1000, references=("a", "b")))
    assert (edit.mode, edit.drawn, edit.filed) == ("edit", 3.0, 1.0)
    assert work_of(a_plan(init_image="a", denoise=0.5, steps=8)).steps == 4
    assert work_of(a_plan(init_image="a", denoise=0.0)).steps == 0
    modes = {
        work_of(a_plan(guidance=4.0)).mode,
        work_of(a_plan(loras=(Lora(name="x"),))).mode,
        work_of(a_plan(second_pass=SecondPass(width_px=128, height_px=128, steps=4, denoise=0.5))).mode,
    }
    assert modes == {"txt2img+guidance", "txt2img+lora", "txt2img+second"}
    assert work_of(a_picture(1024, model="flux2-tiny"), SPECS["flux2-tiny"]).drawn == 128 * 128 / 1e6
    assert work_of(Load(model="m")).needs == ("m", None)
    fetched = [work_of(Download(model=model, sources=())).gigabytes for model in ("gone", f"{LORA}ink")]
    assert fetched == [10.0, 0.3]
    assert work_of(Ocr(document="d", pages=(1, 2, 3)), done=1).images == 2


def test_a_second_pass_is_counted_at_its_own_size() -> None:
    second = SecondPass(width_px=2000, height_px=1000, steps=4, denoise=0.5)
    work = work_of(a_plan(width_px=1000, height_px=1000, steps=2, second_pass=second))
    assert (work.steps, work.drawn, work.filed) == (4, 1.5, 2.0)


# ---- one series of seconds -----------------------------------------------------------------------


def test_forecast_robust_mean_resists_an_outlier_and_follows_a_new_level() -> None:
    steady = [1.0, 1.02, 0.98, 1.01, 0.99]
    assert robust([*steady, 30.0])[0] == approx(1.0, abs=0.1)
    assert robust([*steady, 2.0, 2.0, 2.0, 2.0])[0] > 1.6
    assert robust([3.0]) == (3.0, 0.0)


def test_forecast_cost_series_is_guessed_then_scaled_then_fitted_by_a_line() -> None:
    series = Series()
    assert series.cost(2.0, GUESS) == Cost(3.0, 1.5)
    for _ in range(6):
        series.learn(1.0, 4.0)
    assert series.cost(1.0, GUESS).seconds == approx(4.0, rel=0.01)
    assert series.line(GUESS) == LinearFit(2.0, 2.0)
    for _ in range(6):
        series.learn(4.0, 13.0)
    line = series.line(GUESS)
    assert (line.base, line.slope) == (approx(1.0), approx(3.0))
    assert series.cost(2.0, GUESS).seconds == approx(7.0)


@pytest.mark.parametrize(("seconds", "expected"), [((4.0, 2.0), (3.0, 0.0)), ((1.0, 8.0), (0.0, 1.5))])
def test_forecast_cost_line_has_no_negative_base_or_slope(
    seconds: tuple[float, float], expected: tuple[float, float]
) -> None:
    series = Series()
    for size, took in zip((1.0, 4.0), seconds, strict=True):
        series.learn(size, took)
    line = series.line(GUESS)
    assert min(line.base, line.slope) == 0.0
    assert line.at(2.0) > 0


def test_forecast_cost_series_stores_a_bounded_number_of_sizes_and_values() -> None:
    series = Series()
    for size in range(100):
        for _ in range(100):
            series.learn(float(size), 1.0)
    assert len(series.values) * max(map(len, series.values.values())) <= 100
