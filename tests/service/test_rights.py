"""Who may do what others feel (S-24, S-36): the table of docs/security.md, walked over HTTP in every role."""

from __future__ import annotations

import ast
import base64
import inspect
import re
import shutil
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, get_args

import httpx
import pytest

from adapters import ADAPTERS
from engine.catalog import CATALOG
from gateway.access.rights import SENTENCES, Deed, Rights
from gateway.downloads.tracker import Downloads
from gateway.errors import Forbidden
from gateway.jobs.job import State
from gateway.jobs.origin import Origin
from gateway.service.events import JobEvents
from gateway.service.health import ServiceHealth
from gateway.service.inputs import InputControl
from gateway.service.models import ModelControl
from gateway.service.options import ServiceOptions
from gateway.service.per_owner import PerOwner
from gateway.service.queue_control import QueueControl
from gateway.service.service import JobService
from gateway.service.workers import WorkerControl
from tests.support.live import Live
from tests.support.native import ended, put_weights
from tests.support.sdapi import an_image
from tests.support.service import request, service_in
from tests.support.toy_hub import ToyHub, hub_with

ROOT = Path(__file__).parents[2]
ABSENT, DEFAULT, HELD, WAS_HERE, BIGGER = (
    "flux2-klein-4b",
    "flux2-klein-9b",
    "flux2-klein-base-4b",
    "flux2-klein-base-9b",
    "seedvr2-3b",
)
"""None is on this machine. The hub refuses all but `HELD`, which never comes to its end."""
MODELS = (ABSENT, DEFAULT, HELD, WAS_HERE, BIGGER)
BIG = "transformer/model.safetensors"
KEYS = {"user": "user-key-0123456789", "boss": "boss-key-0123456789"}
SMALL = {"prompt": "x", "width": 64, "height": 64, "steps": 1}
PNG = an_image()
PICTURE = base64.b64encode(PNG).decode()
FILES = {"image": ("a.png", PNG, "image/png")}
NAMED = {"override_settings": {"sd_model_checkpoint": ABSENT}}

Said = dict[str, Any]
TABLE: dict[tuple[str, str], dict[str, Said]] = {
    ("pull", "native"): {
        "POST /api/v1/models/{model_id}/pull": {"at": ABSENT},
        "POST /api/v1/models/{model_id}/load": {"at": ABSENT},
        "POST /api/v1/generate": {"json": {**SMALL, "model": ABSENT}},
        "POST /api/v1/upscale": {"json": {"image": PICTURE, "model": BIGGER}},
        "POST /api/v1/jobs/{job_id}/retry": {"at": "drawn"},
    },
    ("pull", "sdapi"): {
        "POST /sdapi/v1/txt2img": {"json": {**SMALL, **NAMED}},
        "POST /sdapi/v1/img2img": {"json": {**SMALL, **NAMED, "init_images": [PICTURE]}},
        "POST /sdapi/v1/options": {"json": {"sd_model_checkpoint": ABSENT}},
        "POST /sdapi/v1/reload-checkpoint": {},
        "POST /sdapi/v1/extra-single-image": {"json": {"image": PICTURE, "upscaler_1": "SeedVR2"}},
        "POST /sdapi/v1/extra-batch-images": {
            "json": {"imageList": [{"data": PICTURE, "name": "a"}], "upscaler_1": "SeedVR2"}
        },
    },
    ("pull", "openai"): {
        "POST /v1/images/generations": {"json": {"prompt": "x", "model": ABSENT, "size": "64x64"}},
        "POST /v1/images/edits": {"data": {"prompt": "x", "model": ABSENT}, "files": FILES},
        "POST /v1/images/variations": {"data": {"model": ABSENT}, "files": FILES},
    },
    ("pull", "xinference"): {
        "POST /v1/images/inpainting": {
            "data": {"prompt": "x", "model": ABSENT},
            "files": {**FILES, "mask_image": ("m.png", PNG, "image/png")},
        },
        "POST /v1/models": {"json": {"model_name": ABSENT}},
    },
    ("pull", "mflux-server"): {
        "POST /generate": {"json": SMALL},
        "POST /api/generate": {"json": SMALL},
        "POST /api/load": {"json": {"model": ABSENT}},
    },
    ("stop_pull", "native"): {"DELETE /api/v1/jobs/{job_id}": {"at": "download"}},
    ("remove", "native"): {"DELETE /api/v1/models/{model_id}": {"at": "flux2-tiny"}},
    ("unload", "native"): {"POST /api/v1/models/{model_id}/unload": {"at": "flux2-tiny"}},
    ("unload", "sdapi"): {"POST /sdapi/v1/unload-checkpoint": {}},
    ("unload", "xinference"): {"DELETE /v1/models/{uid}": {"at": "flux2-tiny"}},
    ("clear_quarantine", "native"): {"DELETE /api/v1/models/{model_id}/quarantine": {"at": "flux2-tiny"}},
    ("pause", "native"): {"POST /api/v1/queue/pause": {}, "POST /api/v1/queue/resume": {}},
    ("drain", "native"): {
        "POST /api/v1/workers/{name}/drain": {"at": "gateway"},
        "POST /api/v1/workers/{name}/resume": {"at": "gateway"},
    },
    ("raise_priority", "native"): {
        "POST /api/v1/generate": {"json": {**SMALL, "model": "flux2-tiny", "priority": "high"}},
        "POST /api/v1/upscale": {"json": {"image": PICTURE, "model": BIGGER, "priority": "high"}},
    },
    ("raise_priority", "mflux-server"): {
        "POST /generate": {"json": {**SMALL, "priority": True}},
        "POST /api/generate": {"json": {**SMALL, "priority": True}},
    },
}
"""Every route by which a deed can be done, and a request that does it."""
FREE: dict[tuple[str, str], dict[str, Said]] = {
    ("load", "native"): {"POST /api/v1/models/{model_id}/load": {"at": "flux2-tiny"}},
    ("load", "sdapi"): {
        "POST /sdapi/v1/options": {"json": {"sd_model_checkpoint": "flux2-tiny"}},
        "POST /sdapi/v1/reload-checkpoint": {},
    },
    ("load", "xinference"): {"POST /v1/models": {"json": {"model_name": "flux2-tiny"}}},
    ("load", "mflux-server"): {"POST /api/load": {"json": {"model": "flux2-tiny"}}},
    ("own options", "sdapi"): {"POST /sdapi/v1/options": {"json": {"samples_format": "jpg"}}},
}
"""What every key may do: a drawing loads its model, too, and options are each key's own."""
ROWS = [
    pytest.param(deed, route, said, id=f"{deed} {route}")
    for (deed, _), routes in TABLE.items()
    for route, said in routes.items()
]


@dataclass
class Stage:
    """One gateway with keys and one without, at one hub."""

    hub: ToyHub
    with_keys: Live
    open: Live
    clients: dict[str, httpx.Client]
    ids: dict[str, dict[str, str]]
    """Of the roles' jobs, by name."""

    def ask(self, role: str, route: str, said: Said) -> httpx.Response:
        method, _, path = route.partition(" ")
        at = said.get("at", "")
        path = re.sub(r"\{\w+\}", self.ids[role].get(at, at), path)
        return self.clients[role].request(method, path, **{key: v for key, v in said.items() if key != "at"})


def _gateway(folder: Path, config: dict[str, Any]) -> Live:
    models = folder / "models"
    put_weights(models / WAS_HERE / "transformer")
    base = {
        "models": {"cache_dir": str(models), "auto_download": True, "default": DEFAULT},
        "engine": {"memory_gb": 400},
        "loras": {"hub": {"ink": {"repo": "made/ink", "file": "ink.safetensors", "like": "flux2-tiny"}}},
    }
    return Live(folder, config={**base, **config}).start(ready=False)


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    folder = tmp_path_factory.mktemp("rights")
    keys = folder / "keys"
    keys.write_text("".join(f"{name} {key}\n" for name, key in KEYS.items()))
    keys.chmod(0o600)
    files = {BIG: b"w" * 100_000, "vae/model.safetensors": b"v", "text_encoder/model.safetensors": b"t"}
    with ExitStack() as stack:
        hub = stack.enter_context(hub_with(MODELS, files, folder))
        for spec in CATALOG:
            if spec.name in MODELS and spec.name != HELD and spec.repo is not None:
                hub.refusals[spec.repo] = (403, "GatedRepo")
        hub.hold_at[BIG] = 1000
        (folder / "keyed").mkdir()
        (folder / "open").mkdir()
        keyed = _gateway(folder / "keyed", {"access": {"keys_file": str(keys), "operators": ["boss"]}})
        stack.callback(keyed.stop)
        unlocked = _gateway(folder / "open", {})
        stack.callback(unlocked.stop)
        headers = {
            "nobody": {},
            "user": {"X-API-Key": KEYS["user"]},
            "boss": {"X-API-Key": KEYS["boss"]},
            "anybody": {"X-Client-Id": "somebody"},
        }
        clients = {
            role: stack.enter_context(
                httpx.Client(base_url=(unlocked if role == "anybody" else keyed).url, headers=sent, timeout=60)
            )
            for role, sent in headers.items()
        }
        ids = {role: {"drawn": _drawn(client)} for role, client in clients.items() if role != "nobody"}
        shutil.rmtree(keyed.folder / "models" / WAS_HERE)
        shutil.rmtree(unlocked.folder / "models" / WAS_HERE)
        for who, role in (("boss", "user"), ("boss", "boss"), ("anybody", "anybody")):
            pulled = clients[who].post(f"/api/v1/models/{HELD}/pull").json()["job_id"]
            ids[role]["download"] = pulled
        yield Stage(hub, keyed, unlocked, clients, {**ids, "nobody": ids["user"]})
        hub.go_on.set()


def _drawn(client: httpx.Client) -> str:
    """A job of this client's that has ended, of a model that is here still."""
    job_id = str(client.post("/api/v1/generate", json={**SMALL, "model": WAS_HERE}).json()["job_id"])
    client.base_url, at = httpx.URL(f"{client.base_url}/api/v1"), client.base_url
    assert ended(client, job_id)["status"] == "completed"
    client.base_url = at
    return job_id


def asked_of_the_hub(stage: Stage) -> list[str]:
    """The paths of all requests but those of the downloads that the stage began itself."""
    of_held = next(spec.repo for spec in CATALOG if spec.name == HELD) or ""
    return [one.path for one in list(stage.hub.seen) if of_held not in one.path]


@pytest.mark.parametrize(("deed", "route", "said"), ROWS)
def test_a_client_without_key_or_right_is_refused_in_one_sentence(
    stage: Stage, deed: Deed, route: str, said: Said
) -> None:
    before = asked_of_the_hub(stage)
    assert stage.ask("nobody", route, said).status_code == 401
    refused = stage.ask("user", route, said)
    assert refused.status_code == 403, refused.text
    sentence = "this key may not download" if deed == "pull" else SENTENCES[deed]
    assert sentence.lower() in refused.text.lower()
    assert len(refused.content) < 1000
    assert asked_of_the_hub(stage) == before, "nothing was asked of the hub"


@pytest.mark.parametrize("role", ["boss", "anybody"])
def test_operators_have_all_rights_and_without_keys_all_clients_have(stage: Stage, role: str) -> None:
    """All at once: those who wait for one download wait together."""
    asked = [
        (route, said)
        for routes in TABLE.values()
        for route, said in routes.items()
        if not {"pause", "drain", "resume"} & {*route.split("/")}
    ]
    with ThreadPoolExecutor(len(asked)) as pool:
        answers = list(pool.map(lambda row: stage.ask(role, *row), asked))
    for (route, _), answer in zip(asked, answers, strict=True):
        assert answer.status_code not in (401, 403, 405, 422), (route, answer.text)
    assert stage.ask(role, "POST /api/v1/queue/pause", {}).json() == {"paused": True}
    assert stage.ask(role, "POST /api/v1/queue/resume", {}).json() == {"paused": False}
    for word, is_draining in (("drain", True), ("resume", False)):
        answer = stage.ask(role, f"POST /api/v1/workers/{{name}}/{word}", {"at": "gateway"})
        assert answer.json()["draining"] is is_draining


@pytest.mark.parametrize("role", ["user", "boss", "anybody"])
def test_every_client_may_load_models_on_disk_and_set_its_own_options(stage: Stage, role: str) -> None:
    for routes in FREE.values():
        for route, said in routes.items():
            if "reload" in route:
                continue
            answer = stage.ask(role, route, said)
            assert answer.status_code == 200, (route, answer.text)
    assert stage.ask(role, "POST /sdapi/v1/reload-checkpoint", {}).status_code == 200


def test_each_key_has_its_own_options_and_model(stage: Stage) -> None:
    user, boss = stage.clients["user"], stage.clients["boss"]
    here = {"sd_model_checkpoint": "flux2-tiny"}
    assert user.post("/sdapi/v1/options", json={**here, "samples_format": "jpg"}).status_code == 200
    assert boss.post("/sdapi/v1/options", json={**here, "samples_format": "png"}).status_code == 200
    assert user.get("/sdapi/v1/options").json()["samples_format"] == "jpg"
    assert boss.get("/sdapi/v1/options").json()["samples_format"] == "png"
    first = {role: stage.clients[role].post("/sdapi/v1/txt2img", json=SMALL).json() for role in ("user", "boss")}
    kinds = {role: base64.b64decode(answer["images"][0])[:4] for role, answer in first.items()}
    assert kinds == {"user": b"\xff\xd8\xff\xe0", "boss": b"\x89PNG"}
    assert user.post("/api/load", json={"model": "flux2-tiny"}).status_code == 200
    assert user.get("/api/ps").json()["model"] == "flux2-tiny"
    boss.post("/api/load", json={"model": "flux2-tiny"})
    keeps = {**SMALL, "override_settings": {"samples_format": "webp"}, "override_settings_restore_afterwards": False}
    assert user.post("/sdapi/v1/txt2img", json=keeps).status_code == 200
    assert user.get("/sdapi/v1/options").json()["samples_format"] == "webp"
    assert boss.get("/sdapi/v1/options").json()["samples_format"] == "png"


def test_without_keys_all_clients_have_one_set_of_options(stage: Stage) -> None:
    stage.clients["anybody"].post("/sdapi/v1/options", json={"jpeg_quality": 55})
    other = httpx.get(f"{stage.open.url}/sdapi/v1/options", headers={"X-Client-Id": "another"})
    assert other.json()["jpeg_quality"] == 55


def test_values_per_owner_are_bounded() -> None:
    divided: PerOwner[list[str]] = PerOwner(list, divided=True, most=2)
    for owner in "abc":
        divided.of(owner).append(owner)
    assert [divided.of(owner) for owner in "cba"] == [["c"], ["b"], []]
    shared: PerOwner[list[str]] = PerOwner(list, divided=False)
    shared.of("a").append("x")
    assert shared.of("b") == ["x"]


def test_a_job_that_waits_for_a_running_download_starts_no_second_one(stage: Stage) -> None:
    user = stage.clients["user"]
    boss = stage.clients["boss"]
    assert user.post("/api/v1/generate", json={**SMALL, "model": HELD}).status_code == 403
    download = boss.post(f"/api/v1/models/{HELD}/pull").json()["job_id"]
    joined = user.post("/api/v1/generate", json={**SMALL, "model": HELD})
    assert joined.json()["status"] == "queued"
    assert user.delete(f"/api/v1/jobs/{joined.json()['job_id']}").status_code == 200
    assert boss.delete(f"/api/v1/jobs/{download}").status_code == 200


WITH_LORA = {
    "/sdapi/v1/txt2img": {
        **SMALL,
        "prompt": "x <lora:ink:1>",
        "override_settings": {"sd_model_checkpoint": "flux2-tiny"},
    },
    "/v1/images/generations": {"prompt": "x", "model": "flux2-tiny", "size": "64x64", "loras": [{"name": "ink"}]},
    "/api/v1/generate": {**SMALL, "model": "flux2-tiny", "loras": [{"name": "ink"}]},
}


def test_a_lora_of_the_hub_is_downloaded_for_operators_only(stage: Stage) -> None:
    before = asked_of_the_hub(stage)
    for path, said in WITH_LORA.items():
        refused = stage.clients["user"].post(path, json=said)
        assert refused.status_code == 403, refused.text
        assert "LoRA ink is not on this machine, and this key may not download it" in refused.text
    assert asked_of_the_hub(stage) == before
    path = "/api/v1/generate"
    waits = stage.clients["boss"].post(path, json=WITH_LORA[path]).json()
    assert waits["progress_detail"]["phase"] == "downloading"


async def test_a_job_whose_download_was_stopped_starts_no_new_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between the look at what is here and the job on disk an operator may stop what it would have joined."""
    options = ServiceOptions(auto_download=True, rights=Rights.of_keys(["boss"]))
    async with service_in(tmp_path, options=options) as service:

        async def comes(*_: object) -> bool:
            return True

        monkeypatch.setattr(service.downloads, "need", comes)
        user = Origin(owner="key:user", protocol="native", attached=False)
        job = await service.ended((await service.submit(request(model=ABSENT), user)).id)
        assert job.failure is not None
        assert job.failure.code == "model_missing"
        assert "this key may not download it" in job.failure.message
        with pytest.raises(Forbidden, match="this key may not download it"):
            await service.submit(request(model=ABSENT), replace(user, waits=False))
        assert (await service.stats()).by_state == {State.FAILED: 1}


# ---- nothing is forgotten --------------------------------------------------------------------------

METHODS = {
    "submit": {"pull"},
    "submit_upscale": {"pull"},
    "submit_load": {"pull", "load"},
    "submit_ocr": set(),
    "retry": {"pull"},
    "cancel": {"stop_pull"},
    "models.pull": {"pull"},
    "models.remove": {"remove"},
    "models.unload": {"unload"},
    "models.unload_reader": {"unload"},
    "models.clear_quarantine": {"clear_quarantine"},
    "queue.pause": {"pause"},
    "queue.resume": {"pause"},
    "workers.drain": {"drain"},
    "workers.resume": {"drain"},
    "downloads.need": {"pull"},
}
"""What adapters call to have a deed done, and which; `cancel` of a route that reaches own jobs only is none."""
HARMLESS = {
    JobService: "start stop begin_stop get see list_jobs hide stats running engine watch ended skip abandon "
    "retain_once is_stored is_stopping age_s drain shared_state steady",
    JobEvents: "listen watch_all watchers progress forecast forecast_record waits_for",
    InputControl: "keep size_bytes png renew",
    ServiceHealth: "faults blocked blocked_here engine_fault storage_fault check_store damaged damaged_records "
    "unstored_stops clock_jumps",
    QueueControl: "paused move waiting running depth position",
    ModelControl: "",
    WorkerControl: "nodes views",
}
"""What is neither a deed nor one of `METHODS`, or asks whose job it is."""


def test_every_method_that_needs_a_right_takes_the_owner() -> None:
    """A new method of these is a deed, or is said to be none."""
    rooms = {JobService: "", QueueControl: "queue.", ModelControl: "models."}
    rooms |= {JobEvents: "events.", InputControl: "inputs.", ServiceHealth: "health.", WorkerControl: "workers."}
    for room, prefix in rooms.items():
        public = {name for name, _ in inspect.getmembers(room) if not name.startswith("_")}
        deeds = {
            name.removeprefix(prefix) for name in METHODS if name.startswith(prefix) and "." not in name[len(prefix) :]
        }
        assert public == deeds | set(HARMLESS[room].split()), room
        for name in deeds:
            parameters = inspect.signature(getattr(room, name)).parameters
            assert {"owner", "origin"} & set(parameters), f"{room.__name__}.{name}"
            if name != "retry":  # whose job it is
                assert all(
                    parameters[who].default is inspect.Parameter.empty for who in {"owner", "origin"} & set(parameters)
                )
    for name in ("need", "need_loras", "bring", "refuse_until_here", "start_for"):
        assert inspect.signature(getattr(Downloads, name)).parameters["owner"].default is inspect.Parameter.empty


OPEN = {"GET /", "GET /internal/ping", "GET /v1/cluster/auth", "GET /v1/images/content/{name}", "POST /token"}
"""Routes that need no key: pages, whether the server answers or has keys, the login, which asks for one in its body,
and pictures by names nobody guesses."""


def test_every_route_requires_a_key_except_the_open_ones(stage: Stage) -> None:
    asked = {route for route, _ in _routes()}
    unlocked = set()
    for route in asked:
        method, _, path = route.partition(" ")
        status = stage.clients["nobody"].request(method, re.sub(r"\{\w+\}", "x", path)).status_code
        if status != 401:
            unlocked.add(route)
    assert {route for route in unlocked if "/studio" not in route} == OPEN


def test_every_right_has_its_sentence_and_is_an_operators() -> None:
    rights = Rights.of_keys(["boss"])
    assert set(SENTENCES) == set(get_args(Deed)) == {deed for deed, _ in TABLE}
    for deed in SENTENCES:
        for owner in ("key:user", "boss", "client:boss", "peer:boss", "key:", ""):
            with pytest.raises(Forbidden):
                rights.check(owner, deed)
        for operator in ("key:boss", "gateway"):
            rights.check(operator, deed)
        Rights().check("client:anybody", deed)


def test_the_table_has_every_route_that_needs_a_right() -> None:
    """Read from the code of the adapters: which endpoint calls, through whatever of ours, what does a deed."""
    reached = {(deed, route) for route, calls in _routes() for name in calls for deed in METHODS[name]}
    own_jobs_only = {("stop_pull", route) for route, calls in _routes() if "cancel" in calls} - {
        ("stop_pull", "DELETE /api/v1/jobs/{job_id}")
    }
    listed = {(deed, route) for (deed, _), routes in (*TABLE.items(), *FREE.items()) for route in routes}
    raised = {(deed, route) for deed, route in listed if deed in ("raise_priority", "own options")}
    assert reached - own_jobs_only == listed - raised
    assert {route for _, route in raised} <= {route for _, route in reached}


def test_the_page_has_the_table_of_rights() -> None:
    page = (ROOT / "docs" / "security.md").read_text(encoding="utf-8")
    rows = re.findall(
        r"^\| ([a-z ]+) \| ([\w-]+) \| (`[A-Z].*?`) \| 401 \| (yes|403) \| yes \| yes \|$", page, re.MULTILINE
    )
    found = {
        (deed.replace(" ", "_") if may == "403" else deed, protocol): (routes, may)
        for deed, protocol, routes, may in rows
    }
    wanted = {
        key: (", ".join(f"`{route}`" for route in routes), may)
        for table, may in ((TABLE, "403"), (FREE, "yes"))
        for key, routes in table.items()
    }
    assert found == wanted


def _routes() -> Iterator[tuple[str, set[str]]]:
    """Each route of the adapters, and the names of METHODS that it may come to call."""
    graph = _graph()
    for adapter in ADAPTERS:
        for route in adapter.routes:
            endpoint = inspect.unwrap(route.endpoint)
            calls = _reach(graph, (endpoint.__module__, endpoint.__qualname__))
            for method in sorted((route.methods or set()) - {"HEAD"}):
                yield f"{method} {re.sub(r':[a-z]+}', '}', route.path)}", calls


Function = tuple[str, str]


def _reach(graph: dict[Function, tuple[set[Function], set[str]]], start: Function) -> set[str]:
    seen, waiting, found = {start}, [start], set[str]()
    while waiting:
        calls, done = graph.get(waiting.pop(), (set(), set()))
        found |= done
        waiting += calls - seen
        seen |= calls
    return found


def _graph() -> dict[Function, tuple[set[Function], set[str]]]:
    """Each function of the adapters: which of the others it names, and which of METHODS it calls."""
    graph = {}
    service = re.compile(r"(?:^|\.)service(?:_of\(request\))?\.((?:models\.|queue\.|workers\.|downloads\.)?\w+)$")
    for file in sorted((ROOT / "adapters").rglob("*.py")):
        module = ".".join(file.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
        tree = ast.parse(file.read_text())
        names = {
            alias.asname or alias.name: (node.module or "", alias.name)
            for node in ast.walk(tree)
            if isinstance(node, ast.ImportFrom)
            for alias in node.names
        }
        functions = [node for node in tree.body if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)]
        names |= {node.name: (module, node.name) for node in functions}
        for function in functions:
            inner = list(ast.walk(function))
            used = {names[node.id] for node in inner if isinstance(node, ast.Name) and node.id in names}
            said = [service.search(ast.unparse(node)) for node in inner if isinstance(node, ast.Attribute)]
            graph[module, function.name] = used, {match[1] for match in said if match and match[1] in METHODS}
    return graph
