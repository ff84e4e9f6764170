"""A small hub that speaks the hub's HTTP: revisions, trees, LFS redirects to another host, ranges, and faults."""

from __future__ import annotations

import hashlib
import json
import socket
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import pytest

from engine.catalog import CATALOG

LFS_FROM = 10_000
"""Bytes: larger files lie on the other host, named by their SHA-256."""


@dataclass
class Seen:
    """One request as it came in."""

    host: str
    method: str
    path: str
    headers: dict[str, str]


@dataclass
class ToyHub:
    """Repositories by name, and what goes wrong with them."""

    repos: dict[str, dict[str, bytes]]
    commits: dict[str, str] = field(default_factory=dict)
    refusals: dict[str, tuple[int, str]] = field(default_factory=dict)
    """Status and X-Error-Code, by repository."""
    served: dict[str, list[bytes]] = field(default_factory=dict)
    """What is sent in place of a file, by its path, one for each request; then the file itself."""
    cuts: dict[str, list[int]] = field(default_factory=dict)
    """After how many bytes of a body the connection is cut, by path, one for each request."""
    failing: dict[str, list[int]] = field(default_factory=dict)
    """Statuses that are answered first, by path."""
    ignores_ranges: bool = False
    hold_at: dict[str, int] = field(default_factory=dict)
    """After how many bytes of the file it waits for `go_on`, by path."""
    held: threading.Event = field(default_factory=threading.Event)
    go_on: threading.Event = field(default_factory=threading.Event)
    seen: list[Seen] = field(default_factory=list)
    url: str = ""
    other_url: str = ""

    def commit_of(self, repo: str) -> str:
        return self.commits.get(repo) or hashlib.sha1(repo.encode()).hexdigest()

    def bodies(self) -> list[Seen]:
        """The requests for the bytes of files."""
        return [
            one for one in self.seen if one.method == "GET" and ("/resolve/" in one.path or one.path[:5] == "/lfs/")
        ]


@contextmanager
def toy_hub(repos: dict[str, dict[str, bytes]], **faults: Any) -> Iterator[ToyHub]:
    hub = ToyHub(repos, **faults)
    servers = [_Server(("127.0.0.1", 0), _handler(hub, name)) for name in ("hub", "other")]
    threads = [threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True) for server in servers]
    hub.url, hub.other_url = (f"http://127.0.0.1:{server.server_address[1]}" for server in servers)
    for thread in threads:
        thread.start()
    try:
        yield hub
    finally:
        hub.go_on.set()
        for server in servers:
            server.shutdown()
            server.server_close()


@contextmanager
def hub_with(models: Iterable[str], files: dict[str, bytes], folder: Path) -> Iterator[ToyHub]:
    """A hub that has these models of the catalogue, and the environment of a gateway that goes there."""
    specs = [spec for spec in CATALOG if spec.name in set(models)]
    commits = {spec.repo or "": spec.revision or "a" * 40 for spec in specs}
    with (
        toy_hub({repo: dict(files) for repo in commits}, commits=commits) as hub,
        pytest.MonkeyPatch.context() as patch,
    ):
        patch.setenv("HF_ENDPOINT", hub.url)
        patch.setenv("HF_HOME", str(folder / "hf"))
        yield hub


def toy_model(big: str, size: int = 1_000_000) -> dict[str, bytes]:
    """Files that make a FLUX.2 repository whole, the one at `big` of that size."""
    names = ("transformer/model.safetensors", "vae/model.safetensors", "text_encoder/model.safetensors")
    return {**dict.fromkeys(names, b"x" * 1000), "tokenizer/tokenizer.json": b"{}", big: b"x" * size}


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that is killed is no error here."""


def _handler(hub: ToyHub, host: str) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *_: Any) -> None:
            pass

        def do_HEAD(self) -> None:
            self.do_GET()

        def do_GET(self) -> None:
            headers = {name.lower(): value for name, value in self.headers.items()}
            hub.seen.append(Seen(host, self.command, self.path, headers))
            parts = [unquote(part) for part in urlsplit(self.path).path.split("/")[1:]]
            if host == "other":
                repo, path = "/".join(parts[1:3]), "/".join(parts[3:])
                return self.body(path, hub.repos[repo][path])
            repo = "/".join(parts[2:4] if parts[0] == "api" else parts[:2])
            if (refusal := hub.refusals.get(repo)) is not None:
                return self.refuse(*refusal)
            if repo not in hub.repos:
                return self.refuse(404, "RepoNotFound")
            files, commit = hub.repos[repo], hub.commit_of(repo)
            if parts[0] == "api":
                revision = parts[5] if len(parts) > 5 else "main"
                if revision not in ("main", commit):
                    return self.refuse(404, "RevisionNotFound")
                return self.json(
                    _tree(files) if parts[4:5] == ["tree"] else {"id": repo, "sha": commit, "siblings": []}
                )
            path = "/".join(parts[4:])
            if path not in files:
                return self.refuse(404, "EntryNotFound")
            if len(files[path]) < LFS_FROM:
                return self.body(path, files[path], commit)
            digest = hashlib.sha256(files[path]).hexdigest()
            self.head(302, commit, {"x-linked-etag": f'"{digest}"', "x-linked-size": str(len(files[path]))}, 0)
            self.send_header("Location", f"{hub.other_url}/lfs/{repo}/{path}?signed=yes")
            self.end_headers()

        def body(self, path: str, data: bytes, commit: str = "") -> None:
            if statuses := hub.failing.get(path):
                return self.refuse(statuses.pop(0), "")
            if wrong := hub.served.get(path):
                data = wrong.pop(0)
            first = 0
            asked = self.headers.get("Range", "")
            if asked.startswith("bytes=") and not hub.ignores_ranges:
                first = int(asked[6:].partition("-")[0])
                if first >= len(data):
                    return self.refuse(416, "")
            headers = {"Content-Range": f"bytes {first}-{len(data) - 1}/{len(data)}"} if first else {}
            self.head(206 if first else 200, commit, headers, len(data) - first)
            self.end_headers()
            if self.command == "HEAD":
                return
            cuts = hub.cuts.get(path)
            end = first + cuts.pop(0) if cuts else len(data)
            hold = hub.hold_at.get(path)
            if hold is not None and first <= hold < end:
                self.wfile.write(data[first:hold])
                hub.held.set()
                hub.go_on.wait(60)
                first = hold
            self.wfile.write(data[first:end])
            if end < len(data):
                self.close_connection = True
                self.connection.shutdown(socket.SHUT_RDWR)

        def head(self, status: int, commit: str, headers: dict[str, str], length: int) -> None:
            self.send_response(status)
            for name, value in {"x-repo-commit": commit, "ETag": '"etag"', **headers}.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(length))

        def json(self, value: object) -> None:
            data = json.dumps(value).encode()
            self.head(200, "", {"Content-Type": "application/json"}, len(data))
            self.end_headers()
            self.wfile.write(data)

        def refuse(self, status: int, code: str) -> None:
            self.head(status, "", {"X-Error-Code": code} if code else {}, 0)
            self.end_headers()

    return Handler


def _tree(files: dict[str, bytes]) -> list[dict[str, Any]]:
    listed = []
    for path, data in files.items():
        oid = hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()
        entry: dict[str, Any] = {"type": "file", "path": path, "size": len(data), "oid": oid}
        if len(data) >= LFS_FROM:
            entry["lfs"] = {"oid": hashlib.sha256(data).hexdigest(), "size": len(data), "pointerSize": 134}
        listed.append(entry)
    return listed
