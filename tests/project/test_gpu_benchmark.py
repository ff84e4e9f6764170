"""The script for a GPU, as far as a machine without one can tell: its table, its goals, its parts and their limits."""

from __future__ import annotations

import json
import math
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks import gpu, gpu_klein, gpu_pixels, syncs
from benchmarks.gpu_report import ALL_MET, GOAL_MISSED, PART_LACKING, PartResult, Report, Row, table
from benchmarks.gpu_setup import Lacking, Setup, print_row
from engine.catalog import EMBEDDED
from tests.support.live import ROOT

MACHINE = {"device": "cuda", "name": "some GPU"}


def report(*rows: Row, **parts: str) -> Report:
    return Report(MACHINE, list(rows), {name: PartResult(state, 1.0) for name, state in parts.items()})  # type: ignore[arg-type]


# ---- the report --------------------------------------------------------------------------------------


def test_gpu_report_says_which_goals_are_met() -> None:
    assert Row("a", "x", 1.01, "", 1.01).is_met
    assert not Row("a", "x", 1.02, "", 1.01).is_met
    assert Row("a", "x", 2, "", 1.0, least=True).is_met
    assert not Row("a", "x", 0.9, "", 1.0, least=True).is_met
    assert Row("a", "x", 5).is_met is None
    assert not Row("a", "x", math.nan, "", 3.0).is_met
    text = table(
        report(
            Row("whole", "gateway / mflux alone", 1.234, "", 1.01), Row("whole", "a step", 0.2, "s"), whole="complete"
        )
    )
    assert "some GPU" in text
    line = next(line for line in text.splitlines() if "gateway / mflux" in line)
    assert line.split("  ")[-1].strip() == "MISSED"
    assert "at most 1.01" in line
    assert "whole: complete after 1 s" in text


@pytest.mark.parametrize(
    ("state", "value", "goals", "code"),
    [
        ("complete", 1.0, True, ALL_MET),
        ("complete", 2.0, True, GOAL_MISSED),
        ("complete", 2.0, False, ALL_MET),
        ("failed", 1.0, True, PART_LACKING),
        ("out of time", 1.0, True, PART_LACKING),
        ("skipped", 1.0, False, PART_LACKING),
    ],
)
def test_gpu_exit_code_tells_missed_goals_from_lacking_parts(state: str, value: float, goals: bool, code: int) -> None:
    found = report(Row("a", "x", value, "", 1.5), a=state)
    assert found.exit_code(["a"], goals=goals) == code
    assert found.exit_code(["a", "b"], goals=goals) == PART_LACKING


def test_gpu_results_are_resumed_on_the_same_machine_only(tmp_path: Path) -> None:
    kept = report(Row("a", "x", 1.0, "s"), Row("b", "y", 2.0, "s", 3.0), a="complete", b="failed")
    gpu.keep(tmp_path, kept)
    again = gpu.earlier(tmp_path, MACHINE)
    assert again == kept
    assert again.is_complete("a")
    again.forget("b")
    assert [row.part for row in again.rows] == ["a"]
    assert gpu.earlier(tmp_path, {**MACHINE, "name": "another"}).rows == []
    (tmp_path / "results.json").write_text("{")
    assert gpu.earlier(tmp_path, MACHINE).parts == {}


def test_gpu_parts_are_named_and_run_in_their_order() -> None:
    assert gpu.parts_of("clients,pixels") == ["pixels", "clients"]
    with pytest.raises(gpu.argparse.ArgumentTypeError, match="there is no part pixel; there are pixels"):
        gpu.parts_of("pixel")
    assert sum(gpu.LIMITS_S.values()) > gpu.ALL_S, "the limit of all counts, whatever each part may take"
    assert gpu.ALL_S < 600


# ---- parts in processes --------------------------------------------------------------------------------


PROCESS_GROUP = gpu.process_group


class Scripted:
    """`run_child` with a program in the part's place."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, out: Path, program: str) -> None:
        self.out = out

        def group(words: list[str], environment: dict[str, str], log: Any) -> Any:
            return PROCESS_GROUP([sys.executable, "-c", program], environment, log)

        monkeypatch.setattr(gpu, "process_group", group)

    def run(self, limit_s: float) -> tuple[Report, PartResult]:
        found = Report(MACHINE)
        setup = Setup(self.out, self.out, tiny=True)
        with (self.out / "gpu.log").open("a") as log:
            return found, gpu.run_child("pixels", gpu.arguments([]), setup, found, 0.0, limit_s, log)


ROW = 'print("row", json.dumps({"part": "pixels", "what": "x", "value": 1, "unit": "s", "goal": None, "least": False}))'


def test_gpu_part_that_fails_keeps_its_rows_and_says_why(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    program = f'import json, sys\n{ROW}\nprint("failed OSError: no room")\nsys.exit(1)'
    found, result = Scripted(monkeypatch, tmp_path, program).run(30)
    assert (result.state, result.reason) == ("failed", "OSError: no room")
    assert [row.what for row in found.rows] == ["x"]
    assert [row["what"] for row in json.loads((tmp_path / "results.json").read_text())["rows"]] == ["x"]
    found, result = Scripted(monkeypatch, tmp_path, "import os; os._exit(9)").run(30)
    assert (result.state, result.reason) == ("failed", "exit code 9")
    found, result = Scripted(monkeypatch, tmp_path, 'import sys; print("lacking a GPU"); sys.exit(3)').run(30)
    assert (result.state, result.reason) == ("skipped", "a GPU")


def test_gpu_part_out_of_time_is_killed_with_what_it_started(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    program = f"""
import json, subprocess, sys, time
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
open({str(tmp_path / "pid")!r}, "w").write(str(child.pid))
{ROW}
sys.stdout.flush()
time.sleep(60)
"""
    began = time.monotonic()
    found, result = Scripted(monkeypatch, tmp_path, program).run(3)
    assert (result.state, result.reason) == ("out of time", "after 3 s")
    assert time.monotonic() - began < 30
    assert [row.what for row in found.rows] == ["x"]
    state = Path(f"/proc/{(tmp_path / 'pid').read_text()}/stat")
    while state.exists() and state.read_text().split()[2] != "Z":
        assert time.monotonic() - began < 30, "it still lives"
        time.sleep(0.05)


# ---- pixels ----------------------------------------------------------------------------------------------


def drawn(**added: int) -> dict[str, Any]:
    """An image of each case, with something added to some."""
    image = np.arange(64 * 64 * 3, dtype=np.uint8).reshape(64, 64, 3) % 200
    return {case.name: image + np.uint8(added.get(case.model.replace("-", "_"), 0)) for case in gpu_pixels.CASES}


def test_gpu_pixels_are_compared_with_the_cpu_in_both_precisions(tmp_path: Path) -> None:
    plain, coarse = drawn(), drawn(z_image=4)
    reference = {
        f"{name} {precision}": image
        for precision, images in (("float32", plain), ("bfloat16", coarse))
        for name, image in images.items()
    }
    assert {case.model for case in gpu_pixels.CASES} == {
        EMBEDDED,
        "flux2-klein-4b",
        "flux1-dev",
        "qwen-image",
        "z-image",
    }
    exact, rounded = drawn(flux1_dev=3), drawn(z_image=8, qwen_image=1)
    rows = [*gpu_pixels.exact_rows(reference, exact), *gpu_pixels.rounded_rows(reference, rounded)]
    missed = {row.what.split(":")[0] for row in rows if row.is_met is False}
    assert missed == {"flux1-dev, float32", "qwen-image, as the engine draws"}, "z-image is coarse on the CPU too"
    assert gpu_pixels.difference(plain[EMBEDDED], plain[EMBEDDED][:32]) == (255.0, 255.0)
    assert gpu_pixels.sheet(reference, exact, rounded).height == 128 * len(gpu_pixels.CASES)
    with pytest.raises(Lacking, match="one colour"):
        list(gpu_pixels.exact_rows({name: np.zeros_like(image) for name, image in reference.items()}, exact))


def test_gpu_pixels_of_a_toy_are_drawn_by_the_engines_backend(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    mx = pytest.importorskip("mlx.core")
    from mflux.models.common.config.model_config import ModelConfig

    before = ModelConfig.precision
    monkeypatch.setattr(gpu_pixels, "CASES", (gpu_pixels.Case("flux2-klein-4b", 4),))
    monkeypatch.setattr(gpu_pixels, "SIZE_PX", 32)
    monkeypatch.setattr(gpu_pixels, "STEPS", 1)
    mx.disable_compile()  # the CPU's compiler takes longer than the image
    try:
        [(name, image)] = gpu_pixels.images(tmp_path, "float32")
    finally:
        mx.enable_compile()
        ModelConfig.precision = before
    assert name == "flux2-klein-4b-4-bit"
    assert image.shape == (32, 32, 3)
    assert image.std() > 1


# ---- the model with random weights -----------------------------------------------------------------------


def test_gpu_weights_are_saved_once_and_their_estimate_is_the_admissions(tmp_path: Path) -> None:
    pytest.importorskip("mlx.core")
    told: list[Row] = []
    setup = Setup(tmp_path, tmp_path, tiny=True)
    gpu_klein.save_weights(setup, told.append)
    gpu_klein.save_weights(setup, told.append)
    assert [row.part for row in told] == ["weights"]
    whole, quantised = (gpu_klein.estimate(setup, bits) for bits in (None, 4))
    assert 0 < quantised.weights < whole.weights
    rows = list(gpu_klein.memory_rows("whole", whole, whole.weights / 1e9, 2 * (whole.weights + whole.image) / 1e9))
    assert [row.is_met for row in rows] == [None, True, None, False]
    gpu_klein.require_room(setup, None, 2, 2.1 * whole.peak)
    with pytest.raises(Lacking, match="2 times the model"):
        gpu_klein.require_room(setup, None, 2, 1.9 * whole.peak)


def test_gpu_ratios_are_medians_of_pairs() -> None:
    assert gpu_klein.median_ratio([1.0, 2.2, 9.0], [1.0, 2.0, 3.0]) == pytest.approx(1.1)
    assert gpu_klein.prompt_of(1) != gpu_klein.prompt_of(2)
    assert gpu_klein.spec_of(8).quantize == 8


def test_gpu_row_travels_as_a_line(capsys: pytest.CaptureFixture[str]) -> None:
    row = Row("a", "x", 1.5, "s", 2.0, least=True)
    print_row(row)
    word, _, rest = capsys.readouterr().out.partition(" ")
    assert word == "row"
    assert Row(**json.loads(rest)) == row


# ---- the shell -------------------------------------------------------------------------------------------


def test_gpu_shell_script_passes_words_on_and_is_clean(tmp_path: Path) -> None:
    script = str(ROOT / "benchmarks" / "gpu.sh")
    done = subprocess.run(
        [script, "--python", sys.executable, "--tiny", "--help"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "--parts" in done.stdout
    done = subprocess.run([script, "--packed", str(tmp_path)], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "no packages.tar.xz" in done.stderr
    if (linter := shutil.which("shellcheck")) is not None:
        subprocess.run([linter, script], check=True)


# ---- syncs -----------------------------------------------------------------------------------------------


def test_syncs_are_counted_by_file_and_reckoned_for_a_mac() -> None:
    lines = [
        "12 fdatasync(9</home/me/data/jobs.sqlite3-wal>) = 0",
        "12 fdatasync(9</home/me/data/jobs.sqlite3-wal> <unfinished ...>",
        "13 fsync(8</home/me/output/.0a1b.png.12ab.tmp>) = 0",
        "13 fsync(7</home/me/output>) = 0",
        "12 <... fdatasync resumed>) = 0",
    ]
    found = syncs.count_syncs(lines)
    assert found == {syncs.COMMIT: 2, syncs.FILE: 1, syncs.FOLDER: 1}
    assert syncs.mac_ms(found, syncs.Mac("a Mac", full_ms=10, barrier_ms=2)) == 32
