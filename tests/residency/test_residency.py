"""What memory a job takes, which copies of models there are, which models are set aside: each part alone."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest

from engine.catalog import CATALOG, ModelSpec
from engine.protocol import Generate, Load, SecondPass
from gateway.errors import InsufficientMemory
from gateway.models.library import Library, LocalModel
from gateway.models.weights import weights_bytes
from gateway.residency.admission import Admission
from gateway.residency.footprint import GB, Footprint, Peaks, guess
from gateway.residency.manager import ResidencyManager, ResidencyOptions
from gateway.residency.quantized_copies import INCOMPLETE, STAMP, Copies, fingerprint
from gateway.residency.quarantine import Quarantine

SPECS = {spec.name: spec for spec in CATALOG}
KLEIN, KLEIN_4 = SPECS["flux2-klein-4b"], SPECS["flux2-klein-4b-4-bit"]
WEIGHTS = b'{"w":{"dtype":"U8","shape":[1],"data_offsets":[0,1]}}'


def plan_of(spec: ModelSpec = KLEIN, **changes: Any) -> Generate:
    fields = {"model": spec.name, "prompt": "x", "width_px": 1024, "height_px": 1024, "steps": 4, "guidance": 1.0}
    return Generate(**{**fields, "seeds": (1,), "quantize": spec.quantize, **changes})


def peak_of(plan: Generate | Load, spec: ModelSpec = KLEIN, **known: Any) -> int:
    return guess(plan, spec, **{"disk_bytes": None, "is_float32": False, **known}).peak


def test_memory_estimate_grows_with_bits_pixels_references_and_shrinks_with_tiles() -> None:
    plain = peak_of(plan_of())
    assert peak_of(plan_of(KLEIN_4), KLEIN_4) < peak_of(plan_of(quantize=8)) < plain
    assert peak_of(plan_of(width_px=512)) < plain < peak_of(plan_of(width_px=2048))
    assert peak_of(plan_of(low_ram=True)) < plain < peak_of(plan_of(references=("a", "b", "c")))
    second = SecondPass(width_px=2048, height_px=2048, steps=4, denoise=0.5)
    assert peak_of(plan_of(second_pass=second)) == peak_of(plan_of(width_px=2048, height_px=2048))
    assert peak_of(Load(model=KLEIN.name)) < plain < peak_of(plan_of(), is_float32=True)
    assert peak_of(plan_of(), disk_bytes=int(GB)) < plain, "what lies on disk is known better than the catalogue"
    qwen = SPECS["qwen-image-4-bit"]
    guessed = peak_of(plan_of(qwen), qwen)
    assert peak_of(plan_of(qwen), qwen, disk_bytes=int(qwen.size_gb * GB)) == guessed, "a part stays at 16 bits"


def test_memory_measured_in_jobs_replaces_the_estimate() -> None:
    peaks, guessed = Peaks(), Footprint(16 * GB, 17 * GB, 3 * GB)
    peaks.learn_load(plan_of(), 8 * GB, 9 * GB)
    peaks.learn_image(plan_of(), KLEIN, 8 * GB, 10 * GB)
    assert peaks.correct(plan_of(), KLEIN, guessed) == Footprint(8 * GB, 9 * GB, 2 * GB)
    assert peaks.correct(plan_of(width_px=512), KLEIN, guessed).image == 2 * GB, "at most what a larger one took"
    assert peaks.correct(plan_of(width_px=2048), KLEIN, guessed).image == pytest.approx(4 * GB, rel=1e-4)
    assert peaks.correct(plan_of(low_ram=True), KLEIN, guessed).image == 3 * GB, "another way of drawing"
    assert peaks.correct(plan_of(KLEIN_4), KLEIN_4, guessed) == guessed, "another model"
    assert peaks.most == 10 * GB


def test_memory_measurements_round_trip_through_file() -> None:
    peaks, again, guessed = Peaks(), Peaks(), Footprint(1, 1, 1)
    peaks.learn_load(plan_of(), 5, 6)
    peaks.learn_image(plan_of(), KLEIN, 5, 9)
    again.read_json(json.loads(json.dumps(peaks.to_json())))
    assert again.correct(plan_of(), KLEIN, guessed) == peaks.correct(plan_of(), KLEIN, guessed)
    assert again.most == peaks.most
    version = peaks.version
    peaks.learn_image(plan_of(), KLEIN, 5, 7)
    assert peaks.version == version, "nothing new: nothing to store"


def test_memory_records_are_bounded() -> None:
    peaks = Peaks()
    for number in range(500):
        peaks.learn_load(Load(model=f"model{number}"), 1, 1)
        peaks.learn_image(plan_of(width_px=64 + 16 * number), KLEIN, 1, 2)
    assert len(json.dumps(peaks.to_json())) < 10_000


# ---- admission -----------------------------------------------------------------------------------


def model_in(folder: Path, name: str, metadata: dict[str, str] | None = None) -> Path:
    for part in ("transformer", "vae"):
        (folder / name / part).mkdir(parents=True)
        header = json.dumps(json.loads(WEIGHTS) | ({"__metadata__": metadata} if metadata else {})).encode()
        file = folder / name / part / "0.safetensors"
        file.write_bytes(len(header).to_bytes(8, "little") + header + b"w")
        file.chmod(0o644)
        (folder / name / part / "config.json").write_text("{}")
    return folder / name


def admission(folder: Path, limit_gb: float, peaks: Peaks | None = None, *, is_set: bool = True) -> Admission:
    library = Library(folder, default=KLEIN.name)
    return Admission(library, lambda: ("metal", int(limit_gb * GB)), peaks or Peaks(), is_set=is_set)


@pytest.mark.parametrize(
    ("limit_gb", "suggestion"),
    [
        (17.5, "Use flux2-klein-4b-mlx-8bit or set low_ram=true"),
        (13.0, "Use flux2-klein-4b-mlx-8bit or set low_ram=true"),
        (8.0, "Use flux2-klein-4b-mlx-4bit"),
        (0.5, "Use flux2-tiny, or a machine with more memory"),
    ],
)
def test_job_that_cannot_fit_memory_is_refused_with_fitting_options(
    limit_gb: float, suggestion: str, tmp_path: Path
) -> None:
    with pytest.raises(InsufficientMemory) as caught:
        admission(tmp_path, limit_gb).check(plan_of(), KLEIN)
    assert caught.value.code == "oom_error"
    assert caught.value.message == "Insufficient memory. Try using a quantized model or low_ram mode"
    found = caught.value.details["suggestion"]
    assert found == suggestion


def test_image_too_large_for_smallest_model_is_reported(tmp_path: Path) -> None:
    bits_3 = SPECS["flux2-klein-4b-3-bit"]
    large = plan_of(bits_3, width_px=2048, height_px=2048, low_ram=True)
    assert admission(tmp_path, 6.0).advice(large, bits_3) == "Use a smaller size"


def test_memory_admits_previously_successful_job_unless_operator_set_a_limit(tmp_path: Path) -> None:
    peaks = Peaks()
    peaks.learn_load(plan_of(), 16 * GB, 16 * GB)
    peaks.learn_image(plan_of(), KLEIN, 16 * GB, 20 * GB)
    assert admission(tmp_path, 12.0, peaks, is_set=False).fits(plan_of(), KLEIN)
    assert not admission(tmp_path, 12.0, peaks).fits(plan_of(), KLEIN)


def test_memory_estimate_of_prequantised_weights_is_not_reduced_again(tmp_path: Path) -> None:
    folder = model_in(tmp_path, "mine", {"quantization_level": "8"})
    library = Library(tmp_path, default=KLEIN.name, local={"mine": LocalModel(folder, KLEIN.name)})
    found = Admission(library, lambda: ("metal", None), Peaks(), is_set=False)
    mine = library.find("mine")
    assert mine.stored_bits == 8
    as_stored = int(mine.size_gb * GB)
    assert {found.footprint(Load(model="mine", quantize=bits), mine).weights for bits in (4, None)} == {as_stored}


# ---- copies --------------------------------------------------------------------------------------


def saved(copies: Copies, source: Path, bits: int = 4) -> Path:
    """As the engine does it."""
    unfinished = copies.begin(KLEIN, source, bits)
    shutil.copytree(source / "transformer", unfinished / "transformer", ignore=shutil.ignore_patterns("*.json"))
    assert copies.find(KLEIN, source, bits) is None, "half a copy is none"
    return copies.finish(unfinished, source)


def test_quantised_copy_is_found_when_complete_with_unsaved_parts_present(tmp_path: Path) -> None:
    source, copies = model_in(tmp_path, "source"), Copies(tmp_path / "models", keep=True)
    assert copies.wants(KLEIN, source, 4, 1)
    copy = saved(copies, source)
    assert copies.find(KLEIN, source, 4) == copy
    assert copies.find(KLEIN, source, 8) is None
    assert not copies.wants(KLEIN, source, 4, 1)
    assert (copy / "vae" / "config.json").exists()
    assert not (copy / "vae" / "0.safetensors").exists(), "weights are not mixed with those of the source"
    assert not list((tmp_path / "models").rglob(f"*{INCOMPLETE}"))


@pytest.mark.parametrize("change", ["touched", "longer", "config"])
def test_quantised_copy_of_changed_source_is_ignored_and_rebuilt(change: str, tmp_path: Path) -> None:
    source, copies = model_in(tmp_path, "source"), Copies(tmp_path / "models", keep=True)
    before = saved(copies, source)
    file = source / "transformer" / ("config.json" if change == "config" else "0.safetensors")
    if change == "touched":
        os.utime(file, ns=(1, 1))
    else:
        file.write_bytes(file.read_bytes() + b" ")
    assert copies.find(KLEIN, source, 4) is None
    assert copies.wants(KLEIN, source, 4, 1)
    assert saved(copies, source) == before, "in the same place"
    assert copies.find(KLEIN, source, 4) == before


@pytest.mark.parametrize("path", ["seedvr2.safetensors", "split_files/vae/anima.safetensors"])
def test_download_finds_weights_anywhere_in_a_repository(path: str, tmp_path: Path) -> None:
    file = tmp_path / path
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(b"x" * 100)
    assert weights_bytes(tmp_path) == 100
    before = fingerprint(tmp_path)
    os.utime(file, ns=(1, 1))
    assert fingerprint(tmp_path) != before


def test_model_source_changed_during_copy_leaves_no_copy(tmp_path: Path) -> None:
    source, copies = model_in(tmp_path, "source"), Copies(tmp_path / "models", keep=True)
    unfinished = copies.begin(KLEIN, source, 4)
    os.utime(source / "vae" / "0.safetensors", ns=(1, 1))
    with pytest.raises(OSError, match="changed"):
        copies.finish(unfinished, source)
    assert not unfinished.exists()


def test_quantised_copy_of_interrupted_save_is_ignored_and_removed(tmp_path: Path) -> None:
    source, models = model_in(tmp_path, "source"), tmp_path / "models"
    unfinished = Copies(models, keep=True).begin(KLEIN, source, 4)
    assert (unfinished / STAMP).exists()
    assert Copies(models, keep=True).find(KLEIN, source, 4) is None
    Copies(models, keep=True).sweep()
    assert not unfinished.exists()


def test_quantised_copy_is_not_made_without_room_or_against_settings_or_twice(tmp_path: Path) -> None:
    source, copies = model_in(tmp_path, "source"), Copies(tmp_path / "models", keep=True)
    assert not copies.wants(KLEIN, source, 4, 2**60)
    assert not Copies(tmp_path / "models", keep=False).wants(KLEIN, source, 4, 1)
    assert not copies.wants(KLEIN, model_in(tmp_path, "small", {"quantization_level": "4"}), 4, 1)
    assert not copies.wants(KLEIN.model_copy(update={"stored_bits": 4}), source, 4, 1)
    kept = saved(copies, source)
    assert Copies(tmp_path / "models", keep=False).find(KLEIN, source, 4) is None
    copies.discard(kept)
    assert not kept.exists()
    copies.discard(source)
    assert source.exists(), "only what lies among the copies is removed"


# ---- models set aside ----------------------------------------------------------------------------


def test_model_is_quarantined_after_second_crash_until_a_file_changes(tmp_path: Path) -> None:
    quarantine, folder = Quarantine(), model_in(tmp_path, "bad")
    assert not quarantine.note(folder)
    assert quarantine.note(folder)
    again = Quarantine()
    again.read_json(json.loads(json.dumps(quarantine.to_json())))
    assert again.holds(folder)
    os.utime(folder / "vae" / "0.safetensors")
    assert not again.holds(folder)
    assert not again.note(folder), "counted anew"


def test_model_cleared_from_quarantine_is_trusted(tmp_path: Path) -> None:
    quarantine, folder = Quarantine(), model_in(tmp_path, "bad")
    assert not quarantine.clear(folder)
    quarantine.note(folder)
    quarantine.note(folder)
    assert quarantine.clear(folder)
    assert not quarantine.holds(folder)


def test_images_decoded_beside_others_need_the_memory_of_both() -> None:
    both, plain = (
        guess(plan_of(), KLEIN, disk_bytes=None, is_float32=False, beside=beside) for beside in (True, False)
    )
    assert (both.weights, both.load) == (plain.weights, plain.load)
    assert plain.image < both.image <= 2 * plain.image
    peaks = Peaks()
    peaks.learn_image(plan_of(), KLEIN, 8 * GB, 10 * GB)
    assert peaks.correct(plan_of(), KLEIN, both, beside=True).image == 4 * GB, "twice what is known of one"
    peaks.learn_image(plan_of(), KLEIN, 8 * GB, 11 * GB, beside=True)
    assert peaks.correct(plan_of(), KLEIN, both, beside=True).image == 3 * GB
    assert peaks.correct(plan_of(), KLEIN, plain).image == 2 * GB, "one image needs no more than before"


@pytest.mark.parametrize(
    ("setting", "kind", "changes", "limit_gb", "expected"),
    [
        (None, "cpu", {}, 1000, True),
        (None, "metal", {}, 1000, False),
        (True, "metal", {}, 1000, True),
        (False, "cpu", {}, 1000, False),
        (None, "cpu", {"seeds": (1,)}, 1000, False),
        (None, "cpu", {"low_ram": True}, 1000, False),
        (None, "cpu", {}, 1, False),
    ],
)
def test_images_are_decoded_beside_others_where_both_fit(
    setting: bool | None, kind: str, changes: dict[str, Any], limit_gb: int, expected: bool, tmp_path: Path
) -> None:
    library = Library(tmp_path, default=KLEIN.name)
    manager = ResidencyManager(
        store=None,  # type: ignore[arg-type]
        library=library,
        device=lambda: (kind, int(limit_gb * GB)),
        options=ResidencyOptions(models_dir=tmp_path, memory_is_set=True, decode_beside=setting),
    )
    assert manager.decodes_beside(plan_of(**{"seeds": (1, 2), **changes}), KLEIN) is expected


@pytest.mark.parametrize(
    ("setting", "changes", "limit_gb", "expected"),
    [
        (True, {}, 1000, (True, True)),
        (False, {}, 1000, (False, False)),
        (True, {"low_ram": True}, 1000, (False, False)),
        (True, {}, 1, (False, False)),
        (True, {"model": "flux2-klein-9b"}, 1000, (True, False)),
        (True, {"quantize": 8}, 1000, (True, False)),
    ],
)
def test_jobs_run_beside_the_decoding_of_the_former_where_both_fit(
    setting: bool, changes: dict[str, Any], limit_gb: int, expected: tuple[bool, bool], tmp_path: Path
) -> None:
    """Of the same weights: a load would need memory for both models."""
    library = Library(tmp_path, default=KLEIN.name)
    manager = ResidencyManager(
        store=None,  # type: ignore[arg-type]
        library=library,
        device=lambda: ("cpu", int(limit_gb * GB)),
        options=ResidencyOptions(models_dir=tmp_path, memory_is_set=True, decode_beside=setting),
    )
    plan = plan_of(**changes)
    beside = manager.beside(plan, library.find(plan.model), plan_of())
    assert (beside.end, beside.begin) == expected
    assert not beside.images


def test_two_jobs_need_the_memory_of_both_images(tmp_path: Path) -> None:
    library = Library(tmp_path, default=KLEIN.name)
    options = ResidencyOptions(models_dir=tmp_path, memory_is_set=True, decode_beside=True)
    small, large = plan_of(width_px=256, height_px=256), plan_of(width_px=2048, height_px=2048)

    def begins(limit_bytes: int, former: Any, latter: Any) -> bool:
        manager = ResidencyManager(
            store=None,  # type: ignore[arg-type]
            library=library,
            device=lambda: ("cpu", limit_bytes),
            options=options,
        )
        return manager.beside(latter, KLEIN, former).begin

    alone = guess(large, KLEIN, disk_bytes=None, is_float32=True)
    added = guess(small, KLEIN, disk_bytes=None, is_float32=True).image
    for former, latter in ((large, small), (small, large)):
        assert not begins(alone.peak + added - 1, former, latter)
        assert begins(alone.peak + added, former, latter)
