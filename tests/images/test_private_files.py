"""What jobs leave on disk is for this user alone, whatever the umask is and whatever was there before."""

from __future__ import annotations

import base64
import os
import shutil
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from engine.drawing.base import FinishedImage
from engine.spool import write_ppm
from gateway.images.output import OutputFolder
from gateway.private_files import private_file, private_files, private_folder, write_private
from gateway.store.sqlite import SqliteStore
from tests.support.live import Live
from tests.support.lora import save_lora
from tests.support.native import SMALL, client_of
from tests.support.sdapi import an_image


@contextmanager
def umask(mask: int) -> Iterator[None]:
    before = os.umask(mask)
    try:
        yield
    finally:
        os.umask(before)


def mode_of(path: Path) -> int:
    return stat.S_IMODE(path.lstat().st_mode)


def loose(*folders: Path) -> list[str]:
    """What others may do something with, or we may not, of all that lies there."""
    found = [path for folder in folders for path in (folder, *folder.rglob("*"))]
    wanted = {path: 0o700 if path.is_dir() else 0o600 for path in found}
    return [f"{path} {mode_of(path):o}" for path, mode in wanted.items() if path.exists() and mode_of(path) != mode]


@pytest.mark.parametrize("mask", [0, 0o077], ids=["umask 0", "umask 077"])
def test_files_written_by_gateway_are_private_under_any_umask(tmp_path: Path, mask: int) -> None:
    save_lora(tmp_path / "models" / "loras", "style")
    config = {"models": {"cache_dir": str(tmp_path / "models")}}
    gateway = Live(tmp_path, config=config, fake_script={"step_seconds": 0.1})
    data, output = tmp_path / "data", tmp_path / "output"
    with umask(mask):
        gateway.start()
    try:
        with client_of(gateway.url) as client:
            picture = base64.b64encode(an_image()).decode()
            assert client.get("/loras/style").json()["sha256"]
            job = client.post("/generate", json={**SMALL, "init_images": [picture]}).json()["job_id"]
            spooled = set()
            while client.get(f"/jobs/{job}?images=false").json()["status"] not in ("completed", "failed"):
                spooled |= {path.suffix for path in (data / "spool").iterdir()}
                assert loose(data, output) == []
        assert ".png" in spooled
        there = {path.name for path in data.iterdir()}
        assert there >= {"jobs.sqlite3", "jobs.sqlite3-wal", "jobs.sqlite3-shm", "lock", "blobs", "spool"}
        assert "lora_hashes.json" in there
        assert len(list((data / "blobs").iterdir())) == len(list(output.iterdir())) == 1
        assert loose(data, output) == []
    finally:
        gateway.stop()
    assert loose(data, output) == []


def test_files_with_open_modes_are_made_private_at_startup_and_after_restore(tmp_path: Path) -> None:
    """As an operator leaves it who copies with his own umask: nothing is lost, all is private again."""
    gateway = Live(tmp_path)
    data, output = tmp_path / "data", tmp_path / "output"
    gateway.start()
    with client_of(gateway.url, "me") as client:
        picture = base64.b64encode(an_image()).decode()
        job = client.post("/generate", json={**SMALL, "init_images": [picture]}).json()["job_id"]
        while client.get(f"/jobs/{job}").json()["status"] != "completed":
            pass
    gateway.stop()
    (data / "backups").mkdir(exist_ok=True)
    shutil.copy(data / "jobs.sqlite3", data / "backups" / "jobs-20260101T000000.000000Z.sqlite3")
    (data / "jobs.sqlite3-wal").touch()
    for path in (data, output, *data.rglob("*"), *output.rglob("*")):
        path.chmod(0o777 if path.is_dir() else 0o666)
    (output / "notes.txt").write_text("not ours")
    (output / "notes.txt").chmod(0o644)
    gateway.start()
    try:
        assert loose(data, output) == [f"{output / 'notes.txt'} 644"]
        with client_of(gateway.url, "me") as client:
            assert client.get(f"/jobs/{job}").json()["result"]["images"]
    finally:
        gateway.stop()
    assert f"store.data_dir {data} was open to others, with mode 777; it is private now" in gateway.logged()


async def test_database_copy_is_private_under_any_umask(tmp_path: Path) -> None:
    store = SqliteStore(tmp_path / "deep" / "data")
    with umask(0):
        await store.open()
        assert await store.back_up(0.0)
    await store.close()
    assert len(list((tmp_path / "deep" / "data" / "backups").iterdir())) == 1
    assert loose(tmp_path / "deep" / "data") == []
    assert not mode_of(tmp_path / "deep") & 0o022, "a folder above it is nobody else's to write"


def test_image_in_spool_is_private_under_any_umask(tmp_path: Path) -> None:
    with umask(0):
        write_ppm(tmp_path / "a.ppm", FinishedImage(1, 1, b"rgb", (1, 1)))
        write_private(tmp_path / "b.json", b"{}")
        private_file(tmp_path / "c")
    assert {mode_of(path) for path in tmp_path.iterdir()} == {0o600}


@pytest.mark.parametrize("setting", ["data", "output"])
def test_folder_shared_by_all_users_stops_startup_in_one_sentence(tmp_path: Path, setting: str) -> None:
    shared = tmp_path / setting
    shared.mkdir()
    shared.chmod(0o1777)
    gateway = Live(tmp_path)
    try:
        with pytest.raises(AssertionError, match="is open to others and not the gateway's alone"):
            gateway.start()
    finally:
        gateway.stop()
    assert "Traceback" not in gateway.logged()
    assert mode_of(shared) == 0o1777


def test_folder_or_link_of_another_user_is_refused_and_unchanged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, link, file = tmp_path / "data", tmp_path / "link", tmp_path / "file"
    folder.mkdir()
    folder.chmod(0o755)
    link.symlink_to(folder)
    file.symlink_to(tmp_path / "elsewhere")
    stranger = os.getuid() + 4321
    if os.getuid() == 0:
        os.lchown(link, stranger, stranger)
        os.lchown(file, stranger, stranger)
    else:
        monkeypatch.setattr(os, "geteuid", lambda: stranger)
    for refused in (lambda: private_folder(link, "store.data_dir"), lambda: private_file(file)):
        with pytest.raises(PermissionError, match="a link of another user's"):
            refused()
    monkeypatch.setattr(os, "geteuid", lambda: stranger)
    with pytest.raises(PermissionError, match="belongs to another user"):
        private_folder(folder, "store.data_dir")
    assert mode_of(folder) == 0o755
    assert not (tmp_path / "elsewhere").exists()


def test_database_owned_by_another_user_is_reported_in_one_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As root leaves it who puts a copy back."""
    (tmp_path / "jobs.sqlite3").touch()

    def refuse(*_: object) -> int:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(os, "open", refuse)
    with pytest.raises(PermissionError, match=r"jobs\.sqlite3 is not this user's own; give it to"):
        private_file(tmp_path / "jobs.sqlite3")


def test_files_linked_elsewhere_keep_their_mode(tmp_path: Path) -> None:
    data, outside = tmp_path / "data", tmp_path / "outside"
    data.mkdir()
    outside.touch()
    outside.chmod(0o644)
    (data / "link").symlink_to(outside)
    private_files(data)
    assert mode_of(outside) == 0o644
    if os.getuid() == 0:
        os.link(outside, data / "second")
        private_files(data)
        assert mode_of(outside) == 0o644


def test_image_files_are_group_readable_when_configured(tmp_path: Path) -> None:
    folder = tmp_path / "output"
    folder.mkdir()
    folder.chmod(0o750)
    config = {"generation": {"share_pictures": True}}
    gateway = Live(tmp_path, config=config)
    with umask(0o077):
        gateway.start()
    try:
        answer = httpx.post(f"{gateway.url}/sdapi/v1/txt2img", json=SMALL, timeout=60)
        assert answer.status_code == 200
    finally:
        gateway.stop()
    assert mode_of(folder) == 0o750
    assert [mode_of(file) for file in folder.iterdir()] == [0o640]
    assert loose(tmp_path / "data") == []
    with umask(0):
        OutputFolder(tmp_path / "new", shares=True).prepare()
    assert mode_of(tmp_path / "new") == 0o755
