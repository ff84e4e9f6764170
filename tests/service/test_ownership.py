"""S-23: what one key made, another key neither sees nor touches, on any route of any protocol."""

from __future__ import annotations

import re
import secrets
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.support.live import Live
from tests.support.native import SMALL, ended

CANARY = "CANARY" + secrets.token_hex(8)
IDS = re.compile(r"(^|_)(id|ids|before)$")
DRAWS = "/sdapi/v1/(txt2img|img2img)|/v1/images/.*"
"""Ids there name the caller's own new job."""


@dataclass(frozen=True, slots=True)
class Stage:
    """Two keys on one gateway, and what the first one made: a job that has ended, and two that wait."""

    mine: httpx.Client
    other: httpx.Client
    done: dict[str, Any]
    waiting: tuple[str, str]


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    folder: Path = tmp_path_factory.mktemp("ownership")
    keys = folder / "keys"
    keys.write_text("me 0123456789abcdef\nother fedcba9876543210\n")
    keys.chmod(0o600)
    access = {"keys_file": str(keys), "operators": ["me"]}
    gateway = Live(folder, config={"access": access, "http": {"heartbeat_s": 0.2}}).start(ready=False)
    said = {**SMALL, "prompt": CANARY}
    mine, other = (
        httpx.Client(base_url=gateway.url, timeout=60, headers={"X-API-Key": key})
        for key in ("0123456789abcdef", "fedcba9876543210")
    )
    with mine, other:
        job_id = mine.post("/api/v1/generate", json=said).json()["job_id"]
        mine.base_url = httpx.URL(f"{gateway.url}/api/v1")
        done = ended(mine, job_id)
        mine.post("/queue/pause")
        native = mine.post("/generate", json=said).json()["job_id"]
        task = mine.post(f"{gateway.url}/api/generate", json={"prompt": CANARY}).json()["task_id"]
        yield Stage(mine, other, done, (native, task))
    gateway.stop()


def operations(client: httpx.Client) -> Iterator[tuple[str, str, list[str], list[str]]]:
    """Method, path, and the ids they take in the query and in the body."""
    spec = client.get("/openapi.json").json()
    for path, methods in spec["paths"].items():
        for method, operation in methods.items():
            query = [p["name"] for p in operation.get("parameters", ()) if p["in"] == "query"]
            body: list[str] = []
            for content in operation.get("requestBody", {}).get("content", {}).values():
                name = content["schema"]["$ref"].rpartition("/")[2]
                body += spec["components"]["schemas"][name]["properties"]
            in_query, in_body = [n for n in query if IDS.search(n)], [n for n in body if IDS.search(n)]
            if (method == "get" or "{" in path or in_query or in_body) and not re.fullmatch(DRAWS, path):
                yield method, path, in_query, in_body


def first_of(client: httpx.Client, method: str, url: str, **said: Any) -> tuple[int, str]:
    """Status and text; of a stream what it tells at its beginning, from its very first event on."""
    with client.stream(method, url, headers={"Last-Event-ID": "0"}, **said) as answer:
        if not answer.headers.get("content-type", "").startswith("text/event-stream"):
            return answer.status_code, answer.read().decode("latin-1")
        text = ""
        for chunk in answer.iter_text():
            text += chunk
            if text.count("\n\n") > 1:
                break
        return answer.status_code, text


def test_no_route_of_any_protocol_shows_or_changes_another_keys_job(stage: Stage) -> None:
    tried, wrong = 0, []
    for job_id in (stage.done["id"], *stage.waiting):
        for method, path, in_query, in_body in operations(stage.other):
            if method != "get" and "{job_id}" not in path and not (in_query or in_body):
                continue
            value = f"{job_id}-0" if "{image_id}" in path else "0" if "{index}" in path else job_id
            url = re.sub(r"\{index\}", "0", path)
            url = re.sub(r"\{\w+\}", value if "{job_id}" not in path else job_id, url)
            said: dict[str, Any] = {"params": dict.fromkeys(in_query, job_id)}
            if method != "get" and in_body:
                said["json"] = dict.fromkeys(in_body, job_id)
            status, text = first_of(stage.other, method.upper(), url, **said)
            tried += 1
            if CANARY in text or ("{job_id}" in path and status not in (400, 404)):
                wrong.append((method, path, status, text[:200]))
    assert wrong == []
    assert tried > 150
    states = [stage.mine.get(f"/jobs/{job_id}").json()["status"] for job_id in stage.waiting]
    assert states == ["queued", "queued"]
    again = stage.mine.get(f"/jobs/{stage.done['id']}").json()
    assert {**again, "result": None} == {**stage.done, "result": None}
    assert again["result"]["images"][0]


def test_the_owner_of_a_job_sees_it_on_the_same_routes(stage: Stage) -> None:
    """That the test above looks where there is something to see."""
    seen = {
        path
        for _, path, in_query, _ in operations(stage.other)
        if "image" not in path and ("job" in path or "task" in path or path.endswith(("/queue", "/events")))
        for job_id in stage.waiting
        if CANARY
        in first_of(
            stage.mine,
            "GET",
            str(stage.other.base_url) + path.replace("{job_id}", job_id),
            params=dict.fromkeys(in_query, job_id),
        )[1]
    }
    assert {"/api/v1/jobs", "/api/v1/jobs/{job_id}", "/api/v1/queue", "/api/tasks"} <= seen
