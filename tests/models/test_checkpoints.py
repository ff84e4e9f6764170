"""Checkpoints, VAE files and textual inversions in the operator's folders: names, hashes, changes, what is refused."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from pathlib import Path

import pytest

from engine.catalog import EMBEDDED
from engine.protocol import Generate, Refiner, Sampling
from gateway.errors import ModelNotFound, ModelNotOnDisk, ModelNotServed
from gateway.model_findings import files_at_fault
from gateway.models import scan
from gateway.models.checkpoint_hashes import old_hash
from gateway.models.checkpoints import KINDS, CheckpointLibrary
from gateway.models.embedding_files import EmbeddingLibrary
from gateway.models.library import Library
from gateway.models.scan import walk
from gateway.models.vae_files import VaeLibrary
from tests.support.checkpoint_files import REFINER, SD1, SD2, SDXL, UNET, VAE, write_folder, write_header


def library_of(tmp_path: Path, *, hashes: bool = False) -> Library:
    """A library of the folders `checkpoints`, `vaes` and `embeddings` below `tmp_path`."""
    folder = tmp_path / "checkpoints"
    library = Library(
        tmp_path / "models",
        default=EMBEDDED,
        aliases={"mine": EMBEDDED},
        checkpoints=CheckpointLibrary([folder], notes=tmp_path, hashes_all=hashes),
        vaes=VaeLibrary([tmp_path / "vaes"], [folder]),
        embeddings=EmbeddingLibrary([tmp_path / "embeddings"]),
    )
    library.refresh()
    return library


def names_of(library: Library) -> list[str]:
    return [one.name for one in library.checkpoints.all()]


# ---- names -----------------------------------------------------------------------------------------


def test_each_file_and_diffusers_folder_is_a_model_named_by_its_stem(tmp_path: Path) -> None:
    write_header(tmp_path / "checkpoints" / "dreamshaper_8.safetensors", SD1)
    write_header(tmp_path / "checkpoints" / "xl" / "juggernautXL.v9.safetensors", SDXL)
    write_folder(tmp_path / "checkpoints" / "folders" / "my-xl", "StableDiffusionXLPipeline")
    library = library_of(tmp_path)
    assert names_of(library) == ["dreamshaper_8", "juggernautXL.v9", "my-xl"]
    spec = library.find("juggernautXL.v9")
    assert (spec.family, spec.default_px, spec.prediction, spec.repo) == ("sdxl", 1024, "epsilon", None)
    assert library.folder(spec) == tmp_path / "checkpoints" / "xl" / "juggernautXL.v9.safetensors"
    assert library.on_disk(spec)
    assert library.folder(library.find("my-xl")).is_dir()
    assert library.available[:3] == ["dreamshaper_8", "juggernautXL.v9", "my-xl"]


def test_equal_stems_are_told_apart_by_their_folders(tmp_path: Path) -> None:
    for name in ("a.safetensors", "one/a.safetensors", "two/a.safetensors"):
        write_header(tmp_path / "checkpoints" / name, SD1)
    write_folder(tmp_path / "checkpoints" / "two" / "b")
    write_header(tmp_path / "checkpoints" / "two" / "b.safetensors", SD1)
    assert names_of(library_of(tmp_path)) == ["a", "one/a", "two/a", "two/b", "two/b.safetensors"]


def test_snapshot_in_the_hubs_cache_has_the_name_of_its_repository(tmp_path: Path) -> None:
    cache = tmp_path / "checkpoints" / "models--someone--my-sd"
    folder = write_folder(cache / "snapshots" / "0123456789abcdef")
    weights = folder / "unet" / "diffusion_pytorch_model.fp16.safetensors"
    (cache / "blobs").mkdir()
    weights.rename(cache / "blobs" / "abc")
    weights.symlink_to("../../../blobs/abc")
    assert names_of(library_of(tmp_path)) == ["my-sd"]


def test_names_of_other_models_are_not_taken(tmp_path: Path) -> None:
    for name in ("sd-turbo", "mine"):
        write_header(tmp_path / "checkpoints" / f"{name}.safetensors", SD1)
    library = library_of(tmp_path)
    assert names_of(library) == ["mine.safetensors", "sd-turbo.safetensors"]
    assert library.find("sd-turbo").repo == "stabilityai/sd-turbo"
    assert library.find("sd-turbo.safetensors").family == "sd1"


def test_file_of_the_first_folder_counts_and_the_other_one_is_named(tmp_path: Path) -> None:
    for folder in ("one", "two"):
        write_header(tmp_path / folder / "a.safetensors", SD1)
    found = CheckpointLibrary([tmp_path / "one", tmp_path / "two"])
    found.refresh()
    assert [one.name for one in found.all()] == ["a", "a.safetensors"]
    third = CheckpointLibrary([tmp_path / "one", tmp_path / "two", tmp_path / "three"])
    write_header(tmp_path / "three" / "a.safetensors", SD1)
    third.refresh()
    assert [one.trouble for one in third.troubles()] == ["Another folder has a file of this name."]


@pytest.mark.parametrize("hashed", [False, True])
def test_checkpoint_is_found_by_all_that_a1111_calls_it(tmp_path: Path, hashed: bool) -> None:
    file = write_header(tmp_path / "checkpoints" / "sub" / "x.safetensors", SD1)
    with file.open("ab") as grown:
        grown.truncate(2**20 + 100)
        grown.seek(2**20)
    write_header(tmp_path / "checkpoints" / "y.safetensors", SD1, title="other")
    library = library_of(tmp_path, hashes=hashed)
    library.checkpoints.hashes.wait()
    digest = hashlib.sha256(file.read_bytes()).hexdigest()
    calls = ["x", "x.safetensors", "sub/x.safetensors", "sub/x.safetensors [0123456789]", "sub_x", old_hash(file)]
    hashes = [digest[:10], digest, f"renamed.safetensors [{digest[:10]}]"]
    for call in [*calls, *(hashes if hashed else ())]:
        assert library.find(call).name == "x", call
    one = library.checkpoints.get("x")
    assert one is not None
    assert library.checkpoints.sha256(one) == (digest if hashed else None)
    title = f"sub/x.safetensors [{digest[:10]}]" if hashed else "sub/x.safetensors"
    assert (library.checkpoints.title(one), one.model_name) == (title, "sub_x")
    for call in ("X", "sub", "x.ckpt", digest[:9], "../checkpoints/sub/x.safetensors", str(file), "x ["):
        with pytest.raises(ModelNotFound):
            library.find(call)


def test_old_hash_is_that_of_64_kib_at_one_mib(tmp_path: Path) -> None:
    file = tmp_path / "a"
    file.write_bytes(b"\0" * 2**20 + b"\1" * 2**16 + b"\2" * 100)
    assert old_hash(file) == hashlib.sha256(b"\1" * 2**16).hexdigest()[:8]


# ---- changes ---------------------------------------------------------------------------------------


def test_changes_are_seen_at_the_next_refresh(tmp_path: Path) -> None:
    library = library_of(tmp_path)
    assert names_of(library) == []
    file = write_header(tmp_path / "checkpoints" / "a.safetensors", SD1)
    library.refresh()
    assert library.find("a").family == "sd1"
    write_header(file, SDXL)
    library.refresh()
    assert library.find("a").family == "sdxl"
    file.unlink()
    library.refresh()
    assert names_of(library) == []
    assert "a" not in [spec.name for spec in library.specs]
    with pytest.raises(ModelNotOnDisk):
        library.folder(library.find("a"))
    write_header(file, SD2)
    library.refresh()
    assert library.folder(library.find("a")) == file


def test_what_was_learned_of_files_is_kept_and_not_read_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_header(tmp_path / "checkpoints" / "a.safetensors", SDXL)
    write_header(tmp_path / "checkpoints" / "b.safetensors", VAE)
    library = library_of(tmp_path, hashes=True)
    library.checkpoints.hashes.wait()
    first = library.checkpoints.all()

    def never(*_: object) -> None:
        raise AssertionError("read again")

    for name in ("recognise_file", "recognise_folder"):
        monkeypatch.setattr(f"gateway.models.checkpoints.{name}", never)
    again = library_of(tmp_path, hashes=True)
    assert again.checkpoints.all() == first
    assert again.checkpoints.sha256(first[0]) is not None
    assert [one.file_name for one in again.checkpoints.troubles()] == ["b.safetensors"]
    monkeypatch.undo()
    (tmp_path / KINDS).write_text(json.dumps({first[0].found.key: {"version": 1, "kind": {"unet": 3}}}))
    assert library_of(tmp_path).checkpoints.all() == first, "damaged notes are read anew"


def test_hash_of_a_file_that_changed_is_not_kept(tmp_path: Path) -> None:
    file = write_header(tmp_path / "checkpoints" / "a.safetensors", SD1)
    library = library_of(tmp_path)
    [one] = library.checkpoints.all()
    os.utime(file, ns=(1, 1))
    library.checkpoints.hashes.want([one.found])
    library.checkpoints.hashes.wait()
    assert library.checkpoints.sha256(one) is None


# ---- what is refused -------------------------------------------------------------------------------


def test_files_that_cannot_be_used_are_findings_with_their_reasons(tmp_path: Path) -> None:
    folder = tmp_path / "checkpoints"
    write_header(folder / "lora.safetensors", {"lora_unet_x.lora_down.weight": (1, 1)})
    write_header(folder / "edit.safetensors", {**SD1, f"{UNET}input_blocks.0.0.weight": (8, 8, 3, 3)})
    (folder / "old.ckpt").write_bytes(b"PK")
    outside = write_header(tmp_path / "elsewhere" / "c.safetensors", SD1)
    (folder / "linked.safetensors").symlink_to(outside)
    write_header(tmp_path / "vaes" / "a.safetensors", SD1 | {"x": (1,)})
    (tmp_path / "vaes" / "b.pt").write_bytes(b"PK")
    (tmp_path / "embeddings").mkdir()
    (tmp_path / "embeddings" / "e.pt").write_bytes(b"PK")
    library = library_of(tmp_path)
    assert names_of(library) == []
    found = {finding.what: finding.found for finding in files_at_fault(library)}
    assert "is a LoRA" in found["checkpoint lora.safetensors"]
    assert "pix2pix" in found["checkpoint edit.safetensors"]
    assert "convert it to safetensors" in found["checkpoint old.ckpt"]
    assert "link out of its folder" in found["checkpoint linked.safetensors"]
    assert "convert it to safetensors" in found["VAE b.pt"]
    assert "pickle" in found["textual inversion e"]
    assert not any(str(tmp_path) in text for text in found.values())
    for call in ("old", "old.ckpt", "old.ckpt [0123456789]"):
        with pytest.raises(ModelNotServed, match="convert it to safetensors"):
            library.find(call)


def test_folder_that_is_not_there_is_a_finding(tmp_path: Path) -> None:
    assert [finding.what for finding in files_at_fault(library_of(tmp_path))] == ["checkpoints"]
    (tmp_path / "checkpoints").mkdir()
    assert list(files_at_fault(library_of(tmp_path))) == []


def test_walk_is_bounded_and_leaves_out_hidden_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("a.safetensors", ".hidden/b.safetensors", "c/c.safetensors", "x.txt"):
        write_header(tmp_path / "root" / name, SD1)
    deep = tmp_path / "root" / "/".join("d" * (scan.DEPTH_MOST + 1))
    write_header(deep / "deep.safetensors", SD1)
    (tmp_path / "root" / "round").symlink_to(tmp_path / "root")
    os.mkfifo(tmp_path / "root" / "pipe.safetensors")

    def names() -> list[str]:
        return [found.name for found in walk(tmp_path / "root", (".safetensors",))]

    assert names() == ["a.safetensors", "c/c.safetensors"]
    monkeypatch.setattr(scan, "FOUND_MOST", 1)
    assert names() == ["a.safetensors"]
    monkeypatch.setattr(scan, "ENTRIES_MOST", 0)
    assert names() == []
    assert list(walk(tmp_path / "nowhere", (".safetensors",))) == []


# ---- rows ------------------------------------------------------------------------------------------


def test_row_has_the_abilities_and_sizes_of_its_file(tmp_path: Path) -> None:
    folder = tmp_path / "checkpoints"
    write_header(folder / "v.safetensors", {**SDXL, "v_pred": (0,), "ztsnr": (0,)})
    write_header(folder / "sd_xl_refiner.safetensors", REFINER)
    write_header(folder / "paint.safetensors", {**SD1, f"{UNET}input_blocks.0.0.weight": (8, 9, 3, 3)})
    write_header(folder / "noVae.safetensors", {name: SD1[name] for name in SD1 if name not in VAE})
    write_header(folder / "RealVisXL_Lightning.safetensors", SDXL)
    write_header(folder / "sd2_768.safetensors", SD2, **{"modelspec.prediction_type": "v"})
    library = library_of(tmp_path)
    v = library.find("v")
    assert (v.prediction, v.zero_terminal_snr, v.default_steps, v.default_guidance) == ("v_prediction", True, 20, 7.0)
    assert (v.weights_gb, v.size_gb) == pytest.approx(
        (((8 * 36 + 8 * 64 + 8 * 2816 + 20 * 2048) * 2 + 8 * 63 * 4) / 1e9, 0.0)
    )
    assert v.fixed_gb == pytest.approx(v.weights_gb - 2 * (8 * 64 + 8 * 2816) / 1e9)
    assert library.find("sd_xl_refiner").family == "sdxl_refiner"
    assert library.find("paint").inpaints
    assert library.find("noVae").needs_vae
    fast = library.find("RealVisXL_Lightning")
    assert (fast.default_steps, fast.default_guidance, fast.distilled) == (4, 1.0, False)
    assert library.find("sd2_768").default_px == 768
    assert len({library.weights(spec.name) for spec in library.specs if spec.family == "sdxl"}) == 4


# ---- VAE files and textual inversions --------------------------------------------------------------


def test_vae_files_are_found_in_their_folders_and_beside_checkpoints(tmp_path: Path) -> None:
    write_header(tmp_path / "vaes" / "sub" / "ft-mse.safetensors", VAE)
    write_header(tmp_path / "checkpoints" / "dream.vae.safetensors", VAE)
    checkpoint = write_header(tmp_path / "checkpoints" / "dream.safetensors", SD1)
    library = library_of(tmp_path)
    assert names_of(library) == ["dream"]
    assert [one.name for one in library.vaes.all()] == ["dream.vae.safetensors", "ft-mse.safetensors"]
    for call in ("ft-mse", "ft-mse.safetensors"):
        found = library.vaes.find(call)
        assert found is not None
        assert library.vaes.file(found.name) == tmp_path / "vaes" / "sub" / "ft-mse.safetensors"
    beside = library.vaes.beside(checkpoint)
    assert beside is not None
    assert beside.name == "dream.vae.safetensors"
    assert library.vaes.find("sub/ft-mse.safetensors") is None
    shutil.rmtree(tmp_path / "vaes")
    with pytest.raises(KeyError):
        library.vaes.file("ft-mse.safetensors")


def test_textual_inversions_fit_by_the_widths_of_text_encoders(tmp_path: Path) -> None:
    write_header(tmp_path / "embeddings" / "easy.safetensors", {"emb_params": (3, 768)})
    write_header(tmp_path / "embeddings" / "xl" / "pretty.safetensors", {"clip_l": (2, 768), "clip_g": (2, 1280)})
    library = library_of(tmp_path)
    assert [one.name for one in library.embeddings.all()] == ["easy", "pretty"]
    assert [one.name for one in library.embeddings.fitting((768,))] == ["easy"]
    assert [one.name for one in library.embeddings.fitting((768, 1280))] == ["pretty"]
    assert library.embeddings.file("pretty") == tmp_path / "embeddings" / "xl" / "pretty.safetensors"
    with pytest.raises(KeyError):
        library.embeddings.file("easy.safetensors")


# ---- as requests name them -------------------------------------------------------------------------


def test_files_are_named_as_requests_of_a1111_name_them(tmp_path: Path) -> None:
    write_header(tmp_path / "checkpoints" / "dream.safetensors", SD1)
    write_header(tmp_path / "checkpoints" / "dream.vae.safetensors", VAE)
    write_header(tmp_path / "checkpoints" / "xl.safetensors", SDXL)
    write_header(tmp_path / "checkpoints" / "fine.safetensors", REFINER)
    write_header(tmp_path / "vaes" / "mse.safetensors", VAE, title="other")
    (tmp_path / "vaes" / "b.pt").write_bytes(b"PK")
    write_header(tmp_path / "embeddings" / "easy.safetensors", {"emb_params": (3, 768)})
    write_header(tmp_path / "embeddings" / "pretty.safetensors", {"clip_l": (2, 768), "clip_g": (2, 1280)})
    library = Library(
        tmp_path / "models",
        default=EMBEDDED,
        checkpoints=CheckpointLibrary([tmp_path / "checkpoints"], hashes_all=True),
        vaes=VaeLibrary([tmp_path / "vaes"], [tmp_path / "checkpoints"], hashes_all=True),
        embeddings=EmbeddingLibrary([tmp_path / "embeddings"]),
    )
    library.refresh()
    library.checkpoints.hashes.wait()
    library.vaes.hashes.wait()
    files, dream = library.files, library.find("dream")
    digest = hashlib.sha256((tmp_path / "checkpoints" / "dream.safetensors").read_bytes()).hexdigest()
    for title in ("dream.safetensors [0000000000]", f"x [{digest[:10]}]", digest[:10], "dream"):
        assert files.checkpoint(title) == dream
    assert files.checkpoint(f"{EMBEDDED} [0123456789]") == library.find(EMBEDDED)
    assert files.checkpoint("nothing-like-it") is None
    assert files.sha256(dream) == digest
    assert files.sha256(library.find(EMBEDDED)) is None
    assert list(files.vaes()) == ["dream.vae.safetensors", "mse.safetensors"]
    assert (files.vae("mse"), files.vae("b.pt"), files.vae("x")) == ("mse.safetensors", None, None)
    assert (files.vae_beside(dream), files.vae_beside(library.find("xl"))) == ("dream.vae.safetensors", None)
    shown = files.embeddings(library.find("xl"))
    assert [(one.name, one.vectors, one.width) for one in shown.loaded] == [("pretty", 2, 2048)]
    assert [(one.name, one.vectors, one.width) for one in shown.skipped] == [("easy", 3, 768)]
    assert [one.name for one in files.embeddings(library.find("stable-diffusion-v1.5")).loaded] == ["easy"]
    sampling = Sampling(vae="mse.safetensors", embeddings=("easy",), refiner=Refiner(model="fine", switch_at=0.8))
    said = {"prompt": "x", "width_px": 64, "height_px": 64, "steps": 1, "guidance": 7.0, "seeds": (1,)}
    hashes = files.hashes(Generate.model_validate({"model": "dream", "sampling": sampling, **said}))
    assert hashes.model == digest[:10]
    assert hashes.vae == hashlib.sha256((tmp_path / "vaes" / "mse.safetensors").read_bytes()).hexdigest()[:10]
    assert hashes.refiner == files.sha256(library.find("fine"))[:10]  # type: ignore[index]
    easy = hashlib.sha256((tmp_path / "embeddings" / "easy.safetensors").read_bytes()).hexdigest()
    assert hashes.embeddings == {"easy": easy[:12]}
