"""Files of the library that a plan of Stable Diffusion needs: sent to the engine and counted in memory."""

from __future__ import annotations

from pathlib import Path

import pytest

from engine.catalog import EMBEDDED
from engine.protocol import Generate, Refiner, Sampling
from gateway.lanes.engine import EngineLane
from gateway.models.checkpoints import CheckpointLibrary
from gateway.models.embedding_files import EmbeddingLibrary
from gateway.models.library import Library
from gateway.models.vae_files import VaeLibrary
from gateway.residency.admission import Admission
from gateway.residency.footprint import GB, Peaks
from gateway.residency.quantized_copies import Copies, fingerprint
from gateway.residency.quarantine import Quarantine
from tests.support.checkpoint_files import REFINER, SDXL, VAE, write_header

SAMPLING = Sampling(vae="v.safetensors", embeddings=("pretty",), refiner=Refiner(model="fine", switch_at=0.8))


@pytest.fixture
def library(tmp_path: Path) -> Library:
    write_header(tmp_path / "checkpoints" / "base.safetensors", SDXL)
    write_header(tmp_path / "checkpoints" / "fine.safetensors", REFINER)
    write_header(tmp_path / "vaes" / "v.safetensors", VAE)
    write_header(tmp_path / "embeddings" / "pretty.safetensors", {"clip_l": (2, 768), "clip_g": (2, 1280)})
    library = Library(
        tmp_path,
        default=EMBEDDED,
        checkpoints=CheckpointLibrary([tmp_path / "checkpoints"]),
        vaes=VaeLibrary([tmp_path / "vaes"]),
        embeddings=EmbeddingLibrary([tmp_path / "embeddings"]),
    )
    library.refresh()
    return library


def plan_of(sampling: Sampling | None, **more: object) -> Generate:
    said = {"model": "base", "prompt": "x", "width_px": 64, "height_px": 64, "steps": 4, "guidance": 7.0, "seeds": (1,)}
    return Generate.model_validate({**said, "sampling": sampling, **more})


def lane_of(library: Library) -> EngineLane:
    lane = object.__new__(EngineLane)
    lane._library = library
    return lane


def test_vae_embeddings_and_refiner_are_inputs_of_a_run(library: Library, tmp_path: Path) -> None:
    assert lane_of(library)._sampling_files(SAMPLING) == {
        "vae v.safetensors": str(tmp_path / "vaes" / "v.safetensors"),
        "embedding pretty": str(tmp_path / "embeddings" / "pretty.safetensors"),
        "model fine": str(tmp_path / "checkpoints" / "fine.safetensors"),
    }
    (tmp_path / "vaes" / "v.safetensors").unlink()
    with pytest.raises(KeyError):
        lane_of(library)._sampling_files(SAMPLING)


def test_refiner_and_vae_are_counted_in_memory(library: Library) -> None:
    admission = Admission(library, lambda: ("metal", 10**12), Peaks(), is_set=True)
    spec = library.find("base")
    plain, more = (admission.footprint(plan_of(one), spec) for one in (Sampling(), SAMPLING))
    vae = library.vaes.find("v")
    assert vae is not None
    assert vae.part is not None
    added = library.find("fine").loaded_gb(None) * GB + 4 * vae.part.parameters
    assert more.image - plain.image == pytest.approx(added, abs=2)
    assert (more.weights, more.load) == (plain.weights, plain.load)


def test_what_an_image_takes_is_learned_with_and_without_a_refiner(library: Library) -> None:
    peaks, spec = Peaks(), library.find("base")
    peaks.learn_image(plan_of(SAMPLING), spec, 0, 5 * GB)
    admission = Admission(library, lambda: ("metal", 10**12), peaks, is_set=True)
    assert admission.footprint(plan_of(SAMPLING), spec).image == 5 * GB
    assert admission.footprint(plan_of(Sampling()), spec).image < GB


def test_variants_of_other_checkpoints_are_not_suggested(library: Library) -> None:
    admission = Admission(library, lambda: ("metal", 1), Peaks(), is_set=True)
    shortage = admission.shortage(plan_of(Sampling()), library.find("base"))
    assert shortage is not None
    assert "stable-diffusion" not in shortage.suggestion


def test_quantised_copy_and_quarantine_of_a_file_end_when_it_changes(library: Library, tmp_path: Path) -> None:
    spec, copies, quarantine = library.find("base"), Copies(tmp_path / "models", keep=True), Quarantine()
    file = library.folder(spec)
    assert copies.wants(spec, file, 8, 1)
    unfinished = copies.begin(spec, file, 8)
    (unfinished / "transformer").mkdir()
    done = copies.finish(unfinished, file)
    assert copies.find(spec, file, 8) == done
    assert not quarantine.note(file)
    assert quarantine.note(file)
    before = fingerprint(file)
    write_header(file, {**SDXL, "more": (1,)})
    assert fingerprint(file) != before
    assert copies.find(spec, file, 8) is None
    assert not quarantine.holds(file)
