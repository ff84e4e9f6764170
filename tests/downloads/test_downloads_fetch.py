"""Fetching repositories with the hub's own client from a small hub: whole, cut, damaged, refused, without room."""

from __future__ import annotations

import errno
import random
import shutil
from collections import namedtuple
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from huggingface_hub import constants, file_download

from engine.catalog import EMBEDDED_PATH, HubFiles
from gateway.downloads import fetch
from gateway.downloads.fetch import Download, is_taken
from gateway.downloads.reasons import CannotFetch
from gateway.downloads.wire import Fetch
from gateway.models.folders import folder_of, holds_weights, is_whole, record_of, remove, staging_of
from tests.support.toy_hub import ToyHub, toy_hub

REPO = "toys/Toy-1.0"
WEIGHTS = "transformer/model.safetensors"
SIZE = 1_000_000
FILES = {
    WEIGHTS: random.Random(1).randbytes(SIZE),
    "transformer/config.json": b'{"a": 1}',
    "tokenizer/merges.txt": b"a b\n",
    "tokenizer/tokenizer.py": b"raise SystemExit",
    "transformer/model.bin": b"pickle",
    "README.md": b"# Toy",
}
PATTERNS = ("transformer/*", "tokenizer/**")
SOURCE = HubFiles(repo=REPO, patterns=PATTERNS)


@pytest.fixture(autouse=True)
def _no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fetch, "PAUSES_S", (0.0, 0.0))
    monkeypatch.setattr(fetch, "CHUNK_BYTES", 10_000)
    monkeypatch.setattr(file_download, "time", SimpleNamespace(sleep=lambda _: None))


@pytest.fixture
def hub() -> Iterator[ToyHub]:
    with toy_hub({REPO: dict(FILES)}) as hub:
        yield hub


def download(hub: ToyHub, folder: Path, *sources: HubFiles, token: str | None = None) -> Download:
    asked = Fetch(models_dir=str(folder), sources=sources or (SOURCE,))
    return Download(asked, endpoint=hub.url, token=token)


def refusal(hub: ToyHub, folder: Path, *sources: HubFiles) -> CannotFetch:
    with pytest.raises(CannotFetch) as caught:
        download(hub, folder, *sources).run()
    assert not folder_of(folder, REPO).exists()
    return caught.value


def test_repository_download_is_complete_with_only_weights_and_tokenizers(hub: ToyHub, tmp_path: Path) -> None:
    work = download(hub, tmp_path)
    assert work.counted() is None
    work.run()
    place = folder_of(tmp_path, REPO)
    taken = {path for path in FILES if path.endswith((".safetensors", ".json", ".txt"))}
    assert {p.relative_to(place).as_posix() for p in place.rglob("*") if p.is_file()} == {*taken, ".mflux-gateway.json"}
    assert all((place / path).read_bytes() == FILES[path] for path in taken)
    total = sum(len(FILES[path]) for path in taken)
    assert work.counted() == (total, total)
    record = record_of(place)
    assert record is not None
    assert (record.repo, record.revision, record.patterns) == (REPO, hub.commit_of(REPO), PATTERNS)
    assert is_whole(place, PATTERNS)
    assert not staging_of(tmp_path, REPO).exists()


def test_download_resumes_after_connection_is_cut(hub: ToyHub, tmp_path: Path) -> None:
    hub.cuts[WEIGHTS] = [300_000, 300_000]
    download(hub, tmp_path).run()
    assert (folder_of(tmp_path, REPO) / WEIGHTS).read_bytes() == FILES[WEIGHTS]
    ranges = [one.headers.get("range") for one in hub.bodies() if one.host == "other"]
    assert len(ranges) == 3
    assert ranges[0] is None
    assert int((ranges[2] or "").removeprefix("bytes=").rstrip("-")) > 300_000


def test_download_skips_files_of_an_earlier_process(hub: ToyHub, tmp_path: Path) -> None:
    partial = staging_of(tmp_path, REPO) / f"{WEIGHTS}.incomplete"
    partial.parent.mkdir(parents=True)
    partial.write_bytes(FILES[WEIGHTS][:990_000])
    download(hub, tmp_path).run()
    (got,) = (one for one in hub.bodies() if one.host == "other")
    assert got.headers["range"] == "bytes=990000-"
    assert is_whole(folder_of(tmp_path, REPO), PATTERNS)


def test_hub_without_range_support_restarts_download(hub: ToyHub, tmp_path: Path) -> None:
    hub.ignores_ranges = True
    partial = staging_of(tmp_path, REPO) / f"{WEIGHTS}.incomplete"
    partial.parent.mkdir(parents=True)
    partial.write_bytes(b"x" * 500_000)
    download(hub, tmp_path).run()
    assert (folder_of(tmp_path, REPO) / WEIGHTS).read_bytes() == FILES[WEIGHTS]


@pytest.mark.parametrize("wrong", [b"x" * SIZE, b"x" * (SIZE - 1), b"x" * (SIZE + 1)], ids=["sum", "short", "long"])
def test_download_of_damaged_file_is_retried_once_then_refused(hub: ToyHub, tmp_path: Path, wrong: bytes) -> None:
    hub.served[WEIGHTS] = [wrong]
    download(hub, tmp_path).run()
    assert (folder_of(tmp_path, REPO) / WEIGHTS).read_bytes() == FILES[WEIGHTS]
    remove(tmp_path, REPO)
    hub.served[WEIGHTS] = [wrong, wrong]
    assert "came damaged twice" in str(refusal(hub, tmp_path))


def test_download_small_file_is_verified_by_git_hash(hub: ToyHub, tmp_path: Path) -> None:
    hub.served["transformer/config.json"] = [b'{"a": 2}', b'{"a": 2}']
    assert "transformer/config.json of toys/Toy-1.0 came damaged" in str(refusal(hub, tmp_path))


def test_download_discards_partial_file_of_other_content(hub: ToyHub, tmp_path: Path) -> None:
    partial = staging_of(tmp_path, REPO) / f"{WEIGHTS}.incomplete"
    partial.parent.mkdir(parents=True)
    for left in (b"x" * 1000, b"x" * (SIZE + 5)):
        partial.parent.mkdir(parents=True, exist_ok=True)
        partial.write_bytes(left)
        download(hub, tmp_path).run()
        assert (folder_of(tmp_path, REPO) / WEIGHTS).read_bytes() == FILES[WEIGHTS]
        remove(tmp_path, REPO)


@pytest.mark.parametrize(
    ("status", "code", "said"),
    [
        (403, "GatedRepo", "accept its licence at"),
        (401, "GatedRepo", "accept its licence at"),
        (401, "", "or it is private"),
        (404, "RepoNotFound", "has no repository"),
        (403, "", "refuses toys/Toy-1.0 to the gateway's token"),
        (418, "", "answered 418"),
    ],
)
def test_hub_refusal_gives_one_sentence_with_next_step(
    hub: ToyHub, tmp_path: Path, status: int, code: str, said: str
) -> None:
    hub.refusals[REPO] = (status, code)
    found = refusal(hub, tmp_path)
    assert said in str(found)
    assert found.answer.code == "model_missing"
    assert "\n" not in str(found)
    assert len(hub.seen) == 1


def test_hub_temporary_error_is_retried(hub: ToyHub, tmp_path: Path) -> None:
    hub.failing = {WEIGHTS: [503, 500], "transformer/config.json": [429]}
    download(hub, tmp_path).run()
    assert is_whole(folder_of(tmp_path, REPO), PATTERNS)
    remove(tmp_path, REPO)
    hub.failing = {WEIGHTS: [503] * 3}
    assert "answered 503" in str(refusal(hub, tmp_path))


def test_hub_unreachable_error_names_the_hub(hub: ToyHub, tmp_path: Path) -> None:
    hub.url = "http://127.0.0.1:9"
    assert "The hub at 127.0.0.1 cannot be reached" in str(refusal(hub, tmp_path))


def test_download_makes_no_requests_when_offline(hub: ToyHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert "HF_HUB_OFFLINE is set" in str(refusal(hub, tmp_path))
    assert hub.seen == []


def test_download_checks_disk_space_before_first_byte(
    hub: ToyHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Usage = namedtuple("Usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: Usage(10**9, 0, int(SIZE * 1.05)))
    found = refusal(hub, tmp_path)
    assert found.answer.code == "disk_full"
    assert "Make room" in str(found)
    assert hub.bodies() == []


def test_download_stops_on_full_disk_and_keeps_partial_file(
    hub: ToyHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: Any, **__: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as broken:
        broken.setattr(fetch, "http_get", full)
        found = refusal(hub, tmp_path)
    assert (found.answer.code, "disk" in str(found)) == ("disk_full", True)
    download(hub, tmp_path).run()
    assert is_whole(folder_of(tmp_path, REPO), PATTERNS)


def test_hub_token_is_sent_only_to_configured_host(hub: ToyHub, tmp_path: Path) -> None:
    download(hub, tmp_path, token="hf_secret").run()
    sent = {(one.host, one.headers.get("authorization")) for one in hub.seen}
    assert sent == {("hub", "Bearer hf_secret"), ("other", None)}
    assert not any(b"hf_secret" in file.read_bytes() for file in tmp_path.rglob("*") if file.is_file())


def test_download_keeps_commit_of_the_first_download(hub: ToyHub, tmp_path: Path) -> None:
    hub.cuts[WEIGHTS] = [300_000] * 30
    hub.failing[WEIGHTS] = []
    first = hub.commit_of(REPO)
    refused = toy_fault(hub, tmp_path)
    assert "cannot be reached" in refused
    hub.commits[REPO] = "f" * 40
    assert "no longer has the commit" in str(refusal(hub, tmp_path))
    hub.commits[REPO] = first
    hub.cuts.clear()
    download(hub, tmp_path).run()
    record = record_of(folder_of(tmp_path, REPO))
    assert record is not None
    assert record.revision == first


def toy_fault(hub: ToyHub, folder: Path) -> str:
    hub.failing[WEIGHTS] = []
    hub.other_url, kept = "http://127.0.0.1:9", hub.other_url
    try:
        return str(refusal(hub, folder))
    finally:
        hub.other_url = kept


def test_download_requests_pinned_commit_by_name(hub: ToyHub, tmp_path: Path) -> None:
    pinned = SOURCE.model_copy(update={"revision": "e" * 40})
    assert "no longer has the commit" in str(refusal(hub, tmp_path, pinned))


def test_repository_further_files_are_added_to_existing_ones(hub: ToyHub, tmp_path: Path) -> None:
    download(hub, tmp_path, HubFiles(repo=REPO, patterns=("transformer/*",))).run()
    place = folder_of(tmp_path, REPO)
    assert not is_whole(place, PATTERNS)
    hub.seen.clear()
    download(hub, tmp_path).run()
    assert is_whole(place, PATTERNS)
    assert [one.path.rpartition("/")[2] for one in hub.bodies()] == ["merges.txt"]


def test_download_of_several_repositories_is_counted_as_one(tmp_path: Path) -> None:
    with toy_hub({REPO: dict(FILES), "toys/Control": {"model.safetensors": b"y" * 50_000}}) as hub:
        work = download(hub, tmp_path, SOURCE, HubFiles(repo="toys/Control", patterns=("*.safetensors",)))
        work.run()
    assert (work.counted() or (0, 0))[1] == SIZE + 50_000 + len(b'{"a": 1}') + len(b"a b\n")
    assert is_whole(folder_of(tmp_path, "toys/Control"), ("*.safetensors",))


def test_model_files_are_downloaded_unchanged(tmp_path: Path) -> None:
    folder = EMBEDDED_PATH
    files = {file.relative_to(folder).as_posix(): file.read_bytes() for file in folder.rglob("*") if file.is_file()}
    with toy_hub({REPO: files}) as hub:
        download(hub, tmp_path, HubFiles(repo=REPO, patterns=())).run()
    place = folder_of(tmp_path, REPO)
    assert all((place / path).read_bytes() == data for path, data in files.items())
    assert holds_weights(place)


def test_a_repository_without_safetensors_is_refused(tmp_path: Path) -> None:
    with toy_hub({REPO: {"transformer/model.bin": b"pickle", "transformer/config.json": b"{}"}}) as hub:
        assert "no safetensors weights" in str(refusal(hub, tmp_path))


def test_download_leaves_foreign_folder_unchanged(hub: ToyHub, tmp_path: Path) -> None:
    own = folder_of(tmp_path, REPO) / "notes.txt"
    own.parent.mkdir(parents=True)
    own.write_text("mine")
    with pytest.raises(CannotFetch, match="rename it"):
        download(hub, tmp_path).run()
    assert remove(tmp_path, REPO) is False
    assert own.read_text() == "mine"


@pytest.mark.parametrize(
    "path",
    [
        "../x.json",
        "/etc/x.json",
        "a/../../x.json",
        ".git/x.json",
        "a\\..\\x.json",
        "x.bin",
        "x.pt",
        "a//x.json",
        "x\n.json",
    ],
)
def test_lora_name_outside_folder_or_not_weights_is_rejected(path: str) -> None:
    assert not is_taken(path)
    assert is_taken("tokenizer/tokenizer.model")


def test_repository_with_missing_shards_is_incomplete(tmp_path: Path) -> None:
    (tmp_path / "transformer").mkdir()
    (tmp_path / "vae").mkdir()
    names = [
        "transformer/m-00001-of-00002.safetensors",
        "transformer/m-00002-of-00002.safetensors",
        "vae/m.safetensors",
    ]
    for name in names:
        assert not is_whole(tmp_path, ("transformer/*.safetensors", "vae/*.safetensors"))
        (tmp_path / name).touch()
    assert is_whole(tmp_path, ("transformer/*.safetensors", "vae/*.safetensors"))
