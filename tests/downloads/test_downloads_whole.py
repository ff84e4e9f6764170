"""What a repository must hold before and after it is fetched, what the cache lends, and commits that are gone."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
from huggingface_hub import file_download

from engine.catalog import CATALOG, HubFiles
from gateway.downloads import fetch
from gateway.downloads.fetch import Download
from gateway.downloads.reasons import CannotFetch
from gateway.downloads.wire import Fetch
from gateway.models import folders
from gateway.models.folders import folder_of, is_whole, record_of, staging_of
from gateway.models.library import Library
from gateway.models.needed import missing
from gateway.settings import Settings, load_settings
from tests.support.toy_hub import ToyHub, toy_hub

REPO = "toys/Whole-1.0"
PATTERNS = (
    "transformer/*.safetensors",
    "transformer/*.json",
    "vae/*.safetensors",
    "tokenizer/**",
    "chat_template.jinja",
)
SOURCE = HubFiles(repo=REPO, patterns=PATTERNS)
SHARDS = ("model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors")
INDEX = "transformer/model.safetensors.index.json"
FILES = {
    **{f"transformer/{name}": name.encode() * 800 for name in SHARDS},
    INDEX: json.dumps({"weight_map": {"a": SHARDS[0], "b": SHARDS[1]}}).encode(),
    "vae/0.safetensors": b"v" * 20_000,
    "tokenizer/tokenizer.json": b"{}",
}
WEIGHTS = [path for path in FILES if path.endswith(".safetensors")]


@pytest.fixture(autouse=True)
def _no_pauses(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(fetch, "PAUSES_S", (0.0, 0.0))
    monkeypatch.setattr(file_download, "time", SimpleNamespace(sleep=lambda _: None))
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def hub() -> Iterator[ToyHub]:
    with toy_hub({REPO: dict(FILES)}) as hub:
        yield hub


def download(hub: ToyHub, folder: Path, source: HubFiles = SOURCE, *, fall_back: tuple[str, ...] = ()) -> None:
    asked = Fetch(models_dir=str(folder), sources=(source,), fall_back=fall_back)
    Download(asked, endpoint=hub.url).run()


def weights_fetched(hub: ToyHub) -> list[str]:
    return [one.path for one in hub.bodies() if one.host == "other" and one.method == "GET"]


# ---- before the first byte -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("lacks", "named"),
    [
        (f"transformer/{SHARDS[1]}", SHARDS[1]),
        ("vae/0.safetensors", "vae/*.safetensors"),
        ("tokenizer/tokenizer.json", "tokenizer/**"),
    ],
)
def test_repository_lacking_a_part_is_refused_before_weights_download(
    lacks: str, named: str, hub: ToyHub, tmp_path: Path
) -> None:
    del hub.repos[REPO][lacks]
    with pytest.raises(CannotFetch, match="is not whole on the hub") as caught:
        download(hub, tmp_path)
    assert named in str(caught.value)
    assert weights_fetched(hub) == []
    assert not folder_of(tmp_path, REPO).exists()


def test_model_shard_named_only_in_index_is_found_missing_before_download_of_weights(
    hub: ToyHub, tmp_path: Path
) -> None:
    files = hub.repos[REPO]
    for number, name in enumerate(SHARDS):
        files[f"transformer/{number}.safetensors"] = files.pop(f"transformer/{name}")
    names = ["0.safetensors", "1.safetensors", "2.safetensors"]
    files[INDEX] = json.dumps({"weight_map": dict(zip("abc", names, strict=True))}).encode()
    with pytest.raises(CannotFetch, match=r"lacks transformer/2.safetensors, which .*index.json names"):
        download(hub, tmp_path)
    assert weights_fetched(hub) == []
    files["transformer/2.safetensors"] = b"2" * 20_000
    download(hub, tmp_path)
    assert is_whole(folder_of(tmp_path, REPO), PATTERNS)


@pytest.mark.parametrize("index", [b"{", b"[]", b'{"weight_map": {"a": 7}}', b'{"weight_map": {"a": "x.safetensors"}}'])
def test_model_index_with_other_or_no_files_does_not_stop_download(index: bytes, hub: ToyHub, tmp_path: Path) -> None:
    hub.repos[REPO][INDEX] = index
    download(hub, tmp_path)
    assert is_whole(folder_of(tmp_path, REPO), PATTERNS)


def test_model_files_required_by_catalogue_are_found_missing() -> None:
    for spec in CATALOG:
        for source in (HubFiles(repo="x/y", patterns=spec.files), *spec.also):
            kinds = [pattern for pattern in source.patterns if pattern.endswith(".safetensors")]
            there = [pattern.replace("**", "tokenizer.json").replace("*", "tokenizer") for pattern in source.patterns]
            assert missing(there, source.patterns) is None, spec.name
            for pattern in kinds:
                less = [name for name in there if not name.endswith(".safetensors") or name not in pattern]
                kept = [name for name in less if name != pattern.replace("*", "tokenizer")]
                assert missing(kept, source.patterns) is not None, (spec.name, pattern)


# ---- at the end, and afterwards --------------------------------------------------------------------


def test_download_detects_at_end_a_file_removed_meanwhile(
    hub: ToyHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = Download._file

    def and_lose(self: Download, record: folders.Record, entry: folders.Entry, whole: Path) -> None:
        real(self, record, entry, whole)
        if entry.path.startswith("vae/"):
            (staging_of(tmp_path, REPO) / "tokenizer/tokenizer.json").unlink()

    monkeypatch.setattr(Download, "_file", and_lose)
    with pytest.raises(CannotFetch, match=r"tokenizer\.json of toys/Whole-1\.0 was removed"):
        download(hub, tmp_path)
    assert not folder_of(tmp_path, REPO).exists()
    monkeypatch.setattr(Download, "_file", real)
    hub.seen.clear()
    download(hub, tmp_path)
    assert weights_fetched(hub) == [], "what came is kept"


def test_download_completes_model_with_missing_file_before_load(hub: ToyHub, tmp_path: Path) -> None:
    download(hub, tmp_path)
    place = folder_of(tmp_path, REPO)
    (place / "vae/0.safetensors").unlink()
    assert not is_whole(place, PATTERNS)
    hub.seen.clear()
    download(hub, tmp_path)
    assert is_whole(place, PATTERNS)
    assert len(weights_fetched(hub)) == 1


# ---- the Hugging Face cache ------------------------------------------------------------------------


def cached_snapshot(hub: ToyHub, folder: Path, paths: list[str], *, damaged: str | None = None) -> Path:
    """As huggingface_hub lays it out: blobs by digest, and links to them."""
    cache = folder / "cache" / f"models--{REPO.replace('/', '--')}"
    snapshot = cache / "snapshots" / hub.commit_of(REPO)
    for path in paths:
        data = FILES[path]
        git = hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()
        blob = cache / "blobs" / (hashlib.sha256(data).hexdigest() if len(data) >= 10_000 else git)
        blob.parent.mkdir(parents=True, exist_ok=True)
        blob.write_bytes(b"x" * len(data) if path == damaged else data)
        link = snapshot / path
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(os.path.relpath(blob, link.parent))
    return snapshot


@pytest.mark.parametrize("lacks", [*FILES])
def test_model_incomplete_cache_snapshot_is_ignored_and_completed_from_hub(
    lacks: str, hub: ToyHub, tmp_path: Path
) -> None:
    there = [path for path in FILES if path != lacks]
    snapshot = cached_snapshot(hub, tmp_path, there)
    is_needed = lacks != INDEX  # mflux reads no index
    assert is_whole(snapshot, PATTERNS) is not is_needed
    models = tmp_path / "models"
    models.mkdir()
    assert Library(models, default="flux2-tiny")._further(SOURCE) == (None if is_needed else snapshot.resolve())
    download(hub, models)
    place = folder_of(models, REPO)
    assert {path: (place / path).read_bytes() for path in FILES} == FILES
    assert [one.path.rpartition("/")[2] for one in hub.bodies() if one.method == "GET" and one.host == "hub"] in (
        [],
        [lacks.rpartition("/")[2]],
    )
    fetched = weights_fetched(hub)
    assert len(fetched) == (lacks in WEIGHTS), "only what the cache lacks"
    assert (snapshot / there[0]).read_bytes() == FILES[there[0]], "the cache stays as it is"


def test_download_of_cached_files_requires_no_room_on_same_disk(
    hub: ToyHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cached_snapshot(hub, tmp_path, [path for path in WEIGHTS if not path.startswith("vae/")])
    room = int(1.2 * len(FILES["vae/0.safetensors"]))
    monkeypatch.setattr(fetch.shutil, "disk_usage", lambda _: SimpleNamespace(free=room))
    download(hub, tmp_path)
    shard = WEIGHTS[0]
    assert (folder_of(tmp_path, REPO) / shard).stat().st_nlink == 2


def test_download_fetches_damaged_cache_file_again(hub: ToyHub, tmp_path: Path) -> None:
    cached_snapshot(hub, tmp_path, WEIGHTS, damaged=WEIGHTS[0])
    download(hub, tmp_path)
    assert (folder_of(tmp_path, REPO) / WEIGHTS[0]).read_bytes() == FILES[WEIGHTS[0]]
    assert len(weights_fetched(hub)) == 1


def test_download_does_not_write_through_link_into_cache(hub: ToyHub, tmp_path: Path) -> None:
    hub.ignores_ranges = True
    snapshot = cached_snapshot(hub, tmp_path, WEIGHTS)
    partial = staging_of(tmp_path, REPO) / f"{WEIGHTS[0]}.incomplete"
    partial.parent.mkdir(parents=True)
    partial.hardlink_to((snapshot / WEIGHTS[0]).resolve())  # an earlier process was killed just here
    download(hub, tmp_path)
    assert (snapshot / WEIGHTS[0]).read_bytes() == FILES[WEIGHTS[0]]
    assert is_whole(folder_of(tmp_path, REPO), PATTERNS)


def test_model_snapshot_parts_not_required_are_ignored(hub: ToyHub, tmp_path: Path) -> None:
    snapshot = cached_snapshot(hub, tmp_path, list(FILES))
    other = snapshot / "single" / "model-00001-of-00002.safetensors"
    other.parent.mkdir()
    other.touch()
    assert is_whole(snapshot, PATTERNS)
    assert not is_whole(snapshot, ())


def test_download_copies_files_from_cache_on_another_disk(
    hub: ToyHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cached_snapshot(hub, tmp_path, list(FILES))

    def no_link(*_: object) -> None:
        raise OSError(18, "another device")

    monkeypatch.setattr(fetch.os, "link", no_link)
    download(hub, tmp_path)
    assert hub.bodies() == []
    assert {path: (folder_of(tmp_path, REPO) / path).read_bytes() for path in FILES} == FILES


# ---- commits that are gone -------------------------------------------------------------------------

PINNED = SOURCE.model_copy(update={"revision": "e" * 40})


def test_download_of_missing_commit_is_refused_and_names_setting_for_main(hub: ToyHub, tmp_path: Path) -> None:
    with pytest.raises(CannotFetch) as caught:
        download(hub, tmp_path, PINNED)
    sentence = str(caught.value)
    assert f"no longer has the commit {'e' * 12} of {REPO}" in sentence
    assert f"models.fall_back_to_main: [{REPO}]" in sentence
    variable = f"MFLUX_GATEWAY__MODELS__FALL_BACK_TO_MAIN={REPO}"
    assert variable in sentence
    name, _, value = variable.partition("=")
    assert load_settings([], {name: value}).models.fall_back_to_main == (REPO,)
    assert Settings.model_validate({"models": {"fall_back_to_main": [REPO]}}).models.fall_back_to_main == (REPO,)
    with pytest.raises(CannotFetch, match="no longer has the commit"):
        download(hub, tmp_path, PINNED, fall_back=("toys/Another",))


def test_download_uses_main_when_operator_allows_and_keeps_that_commit(hub: ToyHub, tmp_path: Path) -> None:
    download(hub, tmp_path, PINNED, fall_back=(REPO,))
    record = record_of(folder_of(tmp_path, REPO))
    assert record is not None
    assert record.revision == hub.commit_of(REPO)


def test_download_files_of_missing_commit_are_not_mixed_with_main(hub: ToyHub, tmp_path: Path) -> None:
    hub.refusals.clear()
    hub.failing["tokenizer/tokenizer.json"] = [404] * 9
    with pytest.raises(CannotFetch):
        download(hub, tmp_path)
    hub.failing.clear()
    assert (staging_of(tmp_path, REPO) / INDEX).exists()
    hub.commits[REPO] = "d" * 40
    changed = {**FILES, INDEX: FILES[INDEX] + b" ", f"transformer/{SHARDS[0]}": b"new" * 8000}
    hub.repos[REPO] = dict(changed)
    with pytest.raises(CannotFetch, match="no longer has the commit"):
        download(hub, tmp_path)
    download(hub, tmp_path, fall_back=(REPO,))
    assert {path: (folder_of(tmp_path, REPO) / path).read_bytes() for path in changed} == changed


def test_model_already_downloaded_is_not_mixed_with_main(hub: ToyHub, tmp_path: Path) -> None:
    download(hub, tmp_path, HubFiles(repo=REPO, patterns=("transformer/*",)))
    hub.commits[REPO] = "d" * 40
    with pytest.raises(CannotFetch, match="remove what came of the model"):
        download(hub, tmp_path, fall_back=(REPO,))


# ---- fonts -----------------------------------------------------------------------------------------


def test_model_fonts_are_downloaded_with_the_model(tmp_path: Path) -> None:
    spec = next(spec for spec in CATALOG if spec.name == "fibo2")
    fonts = {"fonts/Noto.otf": b"OTTO" * 10, "fonts/Noto.ttf": b"\0\1\0\0" * 10, "fonts/LICENSE-OFL.txt": b"OFL"}
    parts = {f"{part}/0.safetensors": part.encode() * 9 for part in ("vae", "transformer", "text_encoder")}
    files = {**fonts, **parts, "processor/tokenizer.json": b"{}"}
    with toy_hub({REPO: files}) as hub:
        download(hub, tmp_path, HubFiles(repo=REPO, patterns=spec.files))
    place = folder_of(tmp_path, REPO)
    assert {path: (place / path).read_bytes() for path in fonts} == fonts
