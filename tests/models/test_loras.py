"""The LoRA library: names and aliases, what fits which model, what is written about a LoRA, hashes, the hub's."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest

from engine.catalog import CATALOG, EMBEDDED, EMBEDDED_PATH
from engine.lora_layouts import sheets
from engine.lora_layouts.tables import FILE
from engine.protocol import Lora
from engine.safetensors import inspect
from gateway.models.lora_layers import fit_of, names_of
from gateway.models.lora_repositories import HubLora
from gateway.models.loras import LoraLibrary, preview_of
from tests.support.lora import FLUX1, KLEIN_4B, TINY, UNKNOWN, Z_IMAGE, save_lora

SPECS = {spec.name: spec for spec in CATALOG}


def found(library: LoraLibrary, asked: str) -> str | None:
    lora = library.find(asked)
    return None if lora is None else lora.name


def test_lora_name_comes_from_path_file_trainer_or_settings(tmp_path: Path) -> None:
    save_lora(tmp_path, "style/ink", ss_output_name="inky")
    library = LoraLibrary([tmp_path], aliases={"pen": "style/ink", "lost": "nothing"})
    calls = ("style/ink", "ink", "inky", "pen", "style/ink.safetensors", str(tmp_path / "style" / "ink.safetensors"))
    assert {found(library, call) for call in calls} == {"style/ink"}
    assert sorted(library.calls()["style/ink"]) == ["ink", "inky", "pen"]
    assert found(library, "lost") is None


def test_lora_name_claimed_twice_is_unassigned_and_name_precedes_alias(tmp_path: Path) -> None:
    for name in ("a/ink", "b/ink", "c"):
        save_lora(tmp_path, name, ss_output_name="fur" if name != "c" else "a/ink")
    library = LoraLibrary([tmp_path])
    assert [found(library, call) for call in ("ink", "fur", "a/ink")] == [None, None, "a/ink"]


def test_lora_first_folder_takes_precedence_and_shipped_folder_is_last(tmp_path: Path) -> None:
    first, second = save_lora(tmp_path / "1", "x"), save_lora(tmp_path / "2", "x")
    save_lora(tmp_path / "2", "night")
    library = LoraLibrary([tmp_path / "1", tmp_path / "2"])
    assert library.file("x") == first != second
    assert library.file("night").parent == tmp_path / "2"
    assert LoraLibrary([]).file("night").parent.name == "loras"


@pytest.mark.parametrize(
    "asked", ["/etc/passwd", "../x", "a/../x", "x/", "", "./x", "{folder}/../outside", "{folder}", "*", "x\0"]
)
def test_lora_resolves_only_listed_names_and_opens_no_named_path(
    tmp_path: Path, asked: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """S-21: no directory oracle."""
    save_lora(tmp_path, "outside")
    save_lora(tmp_path / "loras", "x")
    library = LoraLibrary([tmp_path / "loras"])
    library.all()
    touched: list[str] = []
    monkeypatch.setattr(Path, "exists", lambda self: touched.append(str(self)))
    assert library.find(asked.format(folder=tmp_path / "loras")) is None
    assert touched == []


@pytest.mark.parametrize("content", [b"", b"\xff" * 9, b"\x02" + bytes(7) + b"[]", b"\x05" + bytes(7) + b"nope!"])
def test_lora_damaged_file_is_listed_with_error_and_not_used(tmp_path: Path, content: bytes) -> None:
    """S-35."""
    (tmp_path / "x.safetensors").write_bytes(content)
    library = LoraLibrary([tmp_path])
    lora = library.find("x")
    assert lora is not None
    assert lora.trouble is not None
    assert str(tmp_path) not in lora.trouble
    assert library.known([Lora(name="x")], SPECS[EMBEDDED])["x"].trouble == lora.trouble
    with pytest.raises(KeyError):
        library.file("x")


def test_lora_scan_finds_only_safetensors_with_names_valid_in_tags(tmp_path: Path) -> None:
    for name in ("a.ckpt", "b.pt", "c.safetensors.part"):
        (tmp_path / name).write_bytes(b"x")
    save_lora(tmp_path, "d:e")
    save_lora(tmp_path, "f g (v1.2)")
    assert [lora.name for lora in LoraLibrary([tmp_path]).all()] == ["f g (v1.2)", "night"]


@pytest.mark.parametrize(
    ("shapes", "fits", "not_fits"),
    [
        (TINY, {EMBEDDED}, {"flux2-klein-4b", "z-image-turbo"}),
        (KLEIN_4B, {"flux2-klein-4b", "flux2-klein-base-4b"}, {"flux2-klein-9b", "flux1-dev", EMBEDDED}),
        (FLUX1, {"flux1-dev", "flux1-schnell"}, {"flux2-klein-4b", "qwen-image"}),
        (Z_IMAGE, {"z-image", "z-image-turbo"}, {"flux1-dev", "flux2-klein-9b"}),
    ],
)
def test_lora_fitting_model_is_detected_from_its_layers(
    shapes: dict[str, tuple[int, ...]], fits: set[str], not_fits: set[str]
) -> None:
    fit = fit_of(shapes)
    assert {name for name in fits if fit.of(SPECS[name])} == fits
    assert {name for name in not_fits if fit.of(SPECS[name]) is False} == not_fits
    assert fits <= set(names_of(fit.models))


def test_lora_layer_spellings_map_to_one_layer() -> None:
    ends = {".lora_A.weight": (4, 3072), ".lora_B.weight": (12288, 4)}
    paths = ("single_transformer_blocks.0.proj_mlp", "transformer.single_transformer_blocks.31.proj_mlp")
    for path in (*paths, "base_model.model.transformer.single_transformer_blocks.2.proj_mlp"):
        assert "flux1-dev" in names_of(fit_of({path + end: shape for end, shape in ends.items()}).models), path
    layer = "lycoris_double_blocks_0_img_attn_qkv"
    lokr = {f"{layer}.lokr_w1": (4, 4), f"{layer}.lokr_w2": (2304, 768), "x.alpha": ()}
    assert fit_of(lokr).of(SPECS["flux2-klein-4b"])


def test_lora_of_unknown_format_is_refused_with_its_family_if_known() -> None:
    assert fit_of(UNKNOWN).of(SPECS[EMBEDDED]) is False
    sd = fit_of({"lora_unet_down_blocks_0_attentions_0_proj_in.lora_down.weight": (8, 320)})
    assert sd.of(SPECS["flux1-dev"]) is False
    assert sd.stable_diffusion == "Stable Diffusion (1.5, 2 or XL)"


def test_lora_shipped_fits_the_embedded_model() -> None:
    header = inspect(EMBEDDED_PATH.parent / "loras" / "night.safetensors")
    fit = fit_of({key: tensor.shape for key, tensor in header.tensors.items()})
    assert (fit.of(SPECS[EMBEDDED]), fit.of(SPECS["flux2-klein-4b"]), fit.rank) == (True, False, 4)


def test_lora_layouts_equal_those_of_mflux() -> None:
    """`python -m tools.lora_layouts` writes them anew."""
    from tools.lora_layouts import packed

    assert FILE.read_text() == packed()
    assert {"flux2-klein-9b", "dev", "schnell", "qwen-image", "z-image-turbo", EMBEDDED} <= set(sheets())


def test_lora_wrong_model_is_reported_with_the_right_models(tmp_path: Path) -> None:
    save_lora(tmp_path, "ink", KLEIN_4B)
    trouble = LoraLibrary([tmp_path]).known([Lora(name="ink")], SPECS["z-image-turbo"])["ink"].trouble
    assert trouble == "LoRA 'ink' does not fit z-image-turbo: it is for flux2-klein-4b and flux2-klein-base-4b."


def test_lora_metadata_is_read_from_header_and_sidecar_files(tmp_path: Path) -> None:
    file = save_lora(tmp_path, "ink", ss_output_name="inky", ss_sd_model_name="/home/me/x", ss_network_dim="8")
    said = {"activation text": "ink, pen", "preferred weight": 0.7, "description": "Lines."}
    file.with_suffix(".json").write_text(json.dumps(said))
    civitai = {"baseModel": "Flux.2 Klein", "trainedWords": ["pen", "brush"], "model": {"name": "Ink & Pen"}}
    file.with_suffix(".civitai.info").write_text(json.dumps(civitai))
    file.with_suffix(".preview.png").write_bytes(b"x")
    lora = LoraLibrary([tmp_path]).find("ink")
    assert lora is not None
    notes = lora.notes
    assert notes.metadata == {"ss_output_name": "inky", "ss_network_dim": "8"}
    assert (notes.trigger_words, notes.activation_text) == (("ink", "pen", "brush"), "ink, pen")
    assert (notes.base_model, notes.title, notes.description) == ("Flux.2 Klein", "Ink & Pen", "Lines.")
    assert notes.preferred_scale == 0.7
    assert preview_of(lora) == file.with_suffix(".preview.png")


@pytest.mark.parametrize("text", ["", "[]", "{", '{"activation text": 5, "trainedWords": 7}', "[" * 5000])
def test_lora_malformed_sidecar_notes_are_ignored(tmp_path: Path, text: str) -> None:
    file = save_lora(tmp_path, "ink")
    for suffix in (".json", ".civitai.info"):
        file.with_suffix(suffix).write_text(text)
    lora = LoraLibrary([tmp_path]).find("ink")
    assert lora is not None
    assert (lora.notes.trigger_words, lora.notes.base_model) == ((), "")


def test_lora_short_hash_covers_weights_and_ignores_header(tmp_path: Path) -> None:
    files = [save_lora(tmp_path, name, note=name) for name in ("a", "b")]
    noted, odd = (save_lora(tmp_path, name, sshs_model_hash=text) for name, text in (("c", "0" * 64), ("d", "../x")))
    library = LoraLibrary([tmp_path])
    hashes = {lora.name: library.hashes(lora) for lora in library.all() if lora.file in (*files, noted, odd)}
    weights = hashlib.sha256(bytes(range(128))).hexdigest()[:12]
    assert {name: known.short for name, known in hashes.items() if known} == {
        **dict.fromkeys("abd", weights),
        "c": "0" * 12,
    }
    assert hashes["a"]
    assert hashes["a"].sha256 == hashlib.sha256(files[0].read_bytes()).hexdigest()


def test_lora_file_is_hashed_once_across_restarts_until_it_changes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file, kept = save_lora(tmp_path / "loras", "a"), tmp_path / "hashes.json"

    def hashes(read: bool) -> str | None:
        library = LoraLibrary([tmp_path / "loras"], hashes=kept)
        lora = library.find("a")
        assert lora is not None
        known = library.hashes(lora, read=read)
        return known.sha256 if known else None

    assert hashes(read=False) is None
    first = hashes(read=True)
    assert hashes(read=False) == first is not None
    file.write_bytes(file.read_bytes() + b"x")
    assert hashes(read=False) is None
    kept.write_text("[]")
    assert hashes(read=True) not in (None, first)


def test_loras_of_hub_are_listed_before_download(tmp_path: Path) -> None:
    hub = {
        "ink": HubLora("me/ink", "ink.safetensors", "flux2-klein-4b"),
        "own": HubLora("me/own", "o.safetensors", "x"),
    }
    save_lora(tmp_path, "own", TINY)
    library = LoraLibrary([tmp_path], hub=hub)
    ink, own = library.find("ink"), library.find("own")
    assert ink is not None
    assert own is not None
    assert (ink.file, ink.trouble) == (None, "LoRA 'ink' is not on this machine yet.")
    assert (own.trouble, own.hub) == (None, hub["own"])
    assert library.hashes(ink) is None
