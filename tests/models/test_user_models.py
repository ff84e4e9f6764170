"""The operator's own models: folders that say what they are, and more hub repositories."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from engine.catalog import CATALOG
from gateway.errors import ModelNotFound, ModelNotServed
from gateway.models.detect import recognise
from gateway.models.library import Library
from gateway.models.user_models import HubModel, LocalModel


def folder_of(root: Path, name: str = "mine", **files: Any) -> Path:
    """A folder with JSON files; `__` in a name is a slash."""
    folder = root / name
    (folder / "transformer").mkdir(parents=True)
    (folder / "transformer" / "0.safetensors").write_bytes(b"x" * 100)
    for file, content in files.items():
        path = folder / (file.replace("__", "/") + ".json")
        path.parent.mkdir(exist_ok=True)
        path.write_text(json.dumps(content))
    return folder


@pytest.mark.parametrize(
    ("files", "told"),
    [
        ({"mflux_model": {"model_name": "z-image-turbo", "base_model": None}}, "z-image-turbo"),
        ({"mflux_model": {"model_name": "bob/finetune", "base_model": "flux2-klein-base-4b"}}, "flux2-klein-base-4b"),
        ({"mflux_model": {"upstream": {"repo_id": "Qwen/Qwen-Image-2512"}}}, "qwen-image"),
        ({"model_index": {"_name_or_path": "Tongyi-MAI/Z-Image"}}, "z-image"),
        (
            {
                "model_index": {"_class_name": "Flux2KleinPipeline", "is_distilled": True},
                "transformer__config": {"num_layers": 8},
            },
            "flux2-klein-9b",
        ),
        (
            {"model_index": {"_class_name": "Flux2KleinPipeline"}, "transformer__config": {"num_layers": 5}},
            "flux2-klein-base-4b",
        ),
        (
            {"model_index": {"_class_name": "FluxPipeline"}, "transformer__config": {"guidance_embeds": True}},
            "flux1-dev",
        ),
        (
            {"model_index": {"_class_name": "FluxPipeline"}, "transformer__config": {"guidance_embeds": False}},
            "flux1-schnell",
        ),
        ({"model_index": {"_class_name": "QwenImagePipeline"}}, "qwen-image"),
    ],
)
def test_model_folder_identifies_its_model(files: dict[str, Any], told: str, tmp_path: Path) -> None:
    found = recognise(folder_of(tmp_path, **files), CATALOG)
    assert found is not None
    assert found.name == told


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("my-flux2-klein-9b-finetune", "flux2-klein-9b"),
        ("FLUX.2-klein-base-4B-mflux-q4", "flux2-klein-base-4b"),
        ("Z-Image-Turbo-mflux-q8", "z-image-turbo"),
        ("z-image-q8", "z-image"),
        ("models--Tongyi-MAI--Z-Image", "z-image"),
        ("my-device", None),
        ("flux2-klein-9b-ish2", "flux2-klein-9b"),
        ("qwen-image2", None),
    ],
)
def test_model_folder_without_metadata_is_identified_by_name(name: str, told: str | None, tmp_path: Path) -> None:
    found = recognise(folder_of(tmp_path, name), CATALOG)
    assert (found and found.name) == told


def test_model_folder_with_invalid_metadata_is_not_recognised(tmp_path: Path) -> None:
    folder = folder_of(tmp_path, mflux_model=[1], model_index={"_class_name": {}, "_name_or_path": 3})
    (folder / "transformer" / "config.json").write_bytes(b"\xff{")
    assert recognise(folder, CATALOG) is None


def test_model_local_has_capabilities_of_its_base_and_saved_bits(tmp_path: Path) -> None:
    folder = folder_of(tmp_path, mflux_model={"model_name": "flux2-klein-base-4b"})
    tensor = {"dtype": "U8", "shape": [1], "data_offsets": [0, 1]}
    header = json.dumps({"__metadata__": {"quantization_level": "4"}, "w": tensor}).encode()
    (folder / "transformer" / "0.safetensors").write_bytes(len(header).to_bytes(8, "little") + header + b"x")
    library = Library(tmp_path, default="mine", local={"mine": LocalModel(folder)})
    spec = library.find("mine")
    assert (spec.geometry, spec.stored_bits, spec.default_guidance) == ("flux2-klein-base-4b", 4, 4.0)
    assert (spec.repo, spec.revision, spec.files) == (None, None, ())
    assert library.folder(spec) == folder


@pytest.mark.parametrize(
    ("like", "weights", "further"),
    [
        ("krea-2", "0.safetensors", ()),
        ("iris-3b", "turbo/model.safetensors", ("Qwen3-VL-4B-Instruct",)),
        ("iris-3b", "text_encoder/0.safetensors", ()),
        ("krea-2-controlnet-depth", "0.safetensors", ("Krea-2-depth-controlnet",)),
        ("krea-2-controlnet-depth", "controlnet/depth.safetensors", ()),
    ],
)
def test_model_local_requires_unsaved_parts_in_its_own_folder(
    like: str, weights: str, further: tuple[str, ...], tmp_path: Path
) -> None:
    file = tmp_path / "mine" / weights
    file.parent.mkdir(parents=True)
    file.write_bytes(b"x")
    library = Library(tmp_path, default="mine", local={"mine": LocalModel(tmp_path / "mine", like)})
    spec = library.find("mine")
    assert library.on_disk(spec) == (not further)
    for repo in further:
        (tmp_path / repo).mkdir()
        (tmp_path / repo / "model-0.safetensors").write_bytes(b"x")
    assert library.further_folders(spec) == tuple(tmp_path / repo for repo in further)


def test_model_folder_with_model_name_is_complete_only_with_its_transformer(tmp_path: Path) -> None:
    library = Library(tmp_path, default="flux2-tiny")
    for file in ("turbo.safetensors", "vae/0.safetensors", "text_encoder/0.safetensors"):
        assert not library.on_disk(library.find("krea-2"))
        (tmp_path / "krea-2" / file).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "krea-2" / file).write_bytes(b"x")
    assert library.folder(library.find("krea-2-4-bit")) == tmp_path / "krea-2"


def test_model_folder_without_identity_stops_startup(tmp_path: Path) -> None:
    with pytest.raises(ModelNotFound, match=r"models\.local\.mine: it does not say which model it is.*like:"):
        Library(tmp_path, default="mine", local={"mine": LocalModel(folder_of(tmp_path))})
    with pytest.raises(ModelNotFound, match=r"models\.local\.mine: there is no such folder"):
        Library(tmp_path, default="mine", local={"mine": LocalModel(tmp_path / "nowhere")})


def test_hub_repository_layout_equals_catalogue_model(tmp_path: Path) -> None:
    commit = "0" * 40
    hub = {"mine": HubModel("org/name", "z-image-turbo", commit)}
    spec = Library(tmp_path, default="flux2-tiny", hub=hub).find("mine")
    like = next(row for row in CATALOG if row.name == "z-image-turbo")
    assert (spec.repo, spec.revision, spec.files, spec.gated) == ("org/name", commit, like.files, False)
    assert spec.licence == "as its repository says"


def test_model_unavailable_is_listed_and_refused_without_substitute(tmp_path: Path) -> None:
    for name in ("flux2-dev", "FLUX.2-dev"):
        folder_of(tmp_path, name)
    library = Library(tmp_path, default="flux2-tiny")
    spec = library.find("flux2-dev")
    assert spec in library.specs
    assert not library.on_disk(spec)
    with pytest.raises(ModelNotServed, match="no loader") as caught:
        library.folder(spec)
    assert caught.value.param == "model"
    with pytest.raises(ModelNotFound) as unknown:
        library.find("schnell")
    message = "Model 'schnell' not found. Flux1 models removed. Use flux2-klein-4b or flux2-klein-9b"
    assert unknown.value.message == message
    assert unknown.value.details["suggestion"] == "Use flux1-schnell"
    assert "flux2-dev" not in unknown.value.details["available_models"]


def test_model_of_stored_repository_is_not_taken_from_folder_of_the_base_model(tmp_path: Path) -> None:
    folder_of(tmp_path, "flux2-klein-4b")
    library = Library(tmp_path, default="flux2-tiny")
    assert library.on_disk(library.find("flux2-klein-4b-4-bit"))
    assert not library.on_disk(library.find("flux2-klein-4b-mlx-4bit"))
    folder_of(tmp_path, "FLUX2-klein-4B-mlx-4bit")
    assert library.on_disk(library.find("flux2-klein-4b-mlx-4bit"))
