"""mflux-server's API, both generations, over a real socket, against the fake engine."""

from __future__ import annotations

import base64
import io
import json
import secrets
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from PIL import Image

from tests.support.live import Live, free_port, live

SEED = json.loads((Path(__file__).parents[2] / "seeds" / "mflux_server.json").read_text())
IMPORTS = "import time\nfrom io import BytesIO\n\nimport requests\nfrom PIL import Image\n\n"
SMALL = {"prompt": "a red circle", "width": 64, "height": 64, "steps": 1}
LONG = {**SMALL, "steps": 100}
SECOND_PORT = free_port()


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Live]:
    """Listening twice, as beside an old mflux-server's 4030; a long task takes ten seconds if nobody stops it."""
    arguments = ("--also-port", str(SECOND_PORT))
    folder = tmp_path_factory.mktemp("mflux")
    config = {"models": {"steps_as_sent": True}, "engine": {"cache_limit_gb": 0.5}}
    with live(folder, fake_script={"step_seconds": 0.1}, config=config, arguments=arguments) as gateway:
        yield gateway


@pytest.fixture(params=["", "/api"], ids=["first", "second"])
def both(request: pytest.FixtureRequest, gateway: Live) -> Iterator[httpx.Client]:
    """A client of each generation, with tasks of its own."""
    with client_of(f"{gateway.url}{request.param}") as client:
        yield client


@pytest.fixture
def client(gateway: Live) -> Iterator[httpx.Client]:
    with client_of(f"{gateway.url}/api") as client:
        yield client


def client_of(url: str) -> httpx.Client:
    return httpx.Client(base_url=url, timeout=60, headers={"X-Client-Id": secrets.token_hex(8)})


def submit(client: httpx.Client, **said: Any) -> str:
    answer = client.post("/generate", json={**SMALL, **said})
    assert answer.status_code == 200, answer.text
    return str(answer.json()["task_id"])


def done(client: httpx.Client, task_id: str) -> dict[str, Any]:
    """The last status; pytest's timeout bounds the wait."""
    while True:
        answer = client.get("/status", params={"task_id": task_id})
        assert answer.status_code == 200
        if answer.json()["status"] == "done":
            return dict(answer.json())
        time.sleep(0.05)


def running(client: httpx.Client) -> str:
    """A long task that has begun."""
    task_id = submit(client, **LONG)
    while not any(task["task_id"] == task_id and "compute_time" in task for task in client.get("/tasks").json()):
        time.sleep(0.05)
    return task_id


def picture_of(data: bytes) -> Image.Image:
    return Image.open(io.BytesIO(data))


def base64_png(colour: tuple[int, int, int]) -> str:
    buffer = io.BytesIO()
    Image.new("RGB", (64, 64), colour).save(buffer, "PNG")
    return base64.b64encode(buffer.getvalue()).decode()


# ---- the documentation, as written ---------------------------------------------------------------


@pytest.mark.parametrize("generation", SEED["generations"], ids=lambda generation: generation["name"])
def test_every_curl_of_the_documentation_runs(gateway: Live, generation: dict[str, Any]) -> None:
    def curl(name: str, task_id: str = "") -> bytes:
        text = "\n".join(generation["curl"][name]).replace("4030", str(SECOND_PORT)).replace("1fc9cc4f", task_id)
        return subprocess.run(["sh", "-c", text], capture_output=True, check=True).stdout

    with client_of(gateway.url) as somebody:
        running(somebody)
        answer = json.loads(curl("generate"))
        assert set(answer) >= {"task_id", "task_length", "expected_time_seconds"}
        assert answer["task_length"] == 1
        status = json.loads(curl("status", answer["task_id"]))
        assert status == {"pos": 1, "status": "waiting", "wait_remaining": status["wait_remaining"]}
        somebody.get("/clear")
    while json.loads(curl("status", answer["task_id"]))["status"] != "done":
        time.sleep(0.1)
    picture = picture_of(curl("image", answer["task_id"]))
    assert (picture.format, picture.size) == ("JPEG", (1024, 1024))
    assert curl("status", answer["task_id"]) == b""


@pytest.mark.parametrize("generation", SEED["generations"], ids=lambda generation: generation["name"])
def test_the_python_client_of_the_documentation_runs(gateway: Live, generation: dict[str, Any]) -> None:
    url = f"http://localhost:{SECOND_PORT}"
    code = IMPORTS + "\n".join(generation["python"]).replace("4030", str(SECOND_PORT))
    code += f"\npicture = generate_image({url!r}, 'A beautiful landscape')\nprint(picture.format, picture.size)\n"
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout.splitlines()[-1] == "JPEG (1280, 720)"


# ---- generate ------------------------------------------------------------------------------------


def test_a_task_is_submitted_polled_and_fetched_once(gateway: Live, both: httpx.Client) -> None:
    answer = both.post("/generate", json=SMALL)
    said = answer.json()
    assert (answer.status_code, answer.headers["cache-control"]) == (200, "no-store")
    assert isinstance(said["expected_time_seconds"], float)
    assert said["expected_time_seconds"] >= 0
    assert isinstance(said["task_length"], int)
    assert len(said["task_id"]) == 32
    ask = {"task_id": said["task_id"]}
    ended = done(both, said["task_id"])
    assert set(ended) == {"status", "adjustments"}
    assert [told["param"] for told in ended["adjustments"]] == ["size"]
    first, again = both.get("/image", params=ask), both.get("/image", params=ask)
    assert (first.status_code, first.headers["content-type"]) == (200, "image/jpeg")
    assert picture_of(first.content).size == (64, 64)
    assert (again.status_code, again.content) == (404, b"")
    assert again.headers["content-type"] == "text/html; charset=utf-8"
    assert both.get("/status", params=ask).content == b""
    history = both.get(f"{gateway.url}/api/v1/jobs/{said['task_id']}").json()
    assert (history["status"], len(history["result"]["images"])) == ("completed", 1)


def test_seeds_are_strings_or_numbers_and_draw_the_same(client: httpx.Client) -> None:
    tasks = [submit(client, seed=seed, format="PNG") for seed in ("1725311496", 1725311496)]
    pixels = []
    for task_id in tasks:
        done(client, task_id)
        pixels.append(picture_of(client.get("/image", params={"task_id": task_id}).content).tobytes())
    assert pixels[0] == pixels[1]


def test_generate_fields_left_out_have_the_documented_defaults(client: httpx.Client) -> None:
    task_id = client.post("/generate", json={"prompt": "", "steps": 0, "guidance": 0, "unheard": [1]}).json()["task_id"]
    task = next(task for task in client.get("/tasks").json() if task["task_id"] == task_id)
    shown = {name: task[name] for name in ("prompt", "height", "width", "steps", "format", "quality", "priority")}
    assert shown == {
        "prompt": "",
        "height": 1024,
        "width": 1024,
        "steps": 4,
        "format": "JPEG",
        "quality": 85,
        "priority": False,
    }
    assert task["seed"].isdigit()
    assert isinstance(task["start_time"], float)
    assert client.get("/cancel", params={"task_id": task_id}).status_code == 200


def test_adjustments_report_what_was_changed_from_the_request(client: httpx.Client) -> None:
    answer = client.post("/generate", json={**SMALL, "width": 72, "guidance": 3.5}).json()
    assert {a["param"] for a in answer["adjustments"]} == {"width", "guidance"}
    client.get("/cancel", params={"task_id": answer["task_id"]})


def test_input_picture_at_strength_0_4_is_drawn_and_listed_without_error(client: httpx.Client) -> None:
    kept = submit(client, prompt="x", seed=1, init_image=base64_png((255, 0, 0)), format="PNG")
    plain = submit(client, prompt="x", seed=1, format="PNG")
    listed = client.get("/tasks")
    assert listed.status_code == 200
    assert {task["task_id"]: task["init_image"] for task in listed.json()} == {kept: None, plain: None}
    colours = []
    for task_id in (kept, plain):
        done(client, task_id)
        colour = picture_of(client.get("/image", params={"task_id": task_id}).content).convert("RGB").getpixel((9, 9))
        assert isinstance(colour, tuple)
        colours.append(colour)
    mixed, drawn = colours
    expected = [0.4 * red + 0.6 * new for red, new in zip((255, 0, 0), drawn, strict=True)]
    assert all(abs(is_ - should) <= 2 for is_, should in zip(mixed, expected, strict=True))


# ---- status, queue -------------------------------------------------------------------------------


def test_queue_positions_count_from_the_running_job_and_priority_overtakes(client: httpx.Client) -> None:
    drawn, second = running(client), submit(client)
    first = submit(client, priority=True)
    asked = [client.get("/status", params={"task_id": task_id}).json() for task_id in (drawn, first, second)]
    assert [status["status"] for status in asked] == ["waiting"] * 3
    assert [status["pos"] for status in asked] == [0, 1, 2]
    assert all(isinstance(status["wait_remaining"], int) and status["wait_remaining"] >= 1 for status in asked)
    assert [(task["task_id"], task["priority"]) for task in client.get("/tasks").json()] == [
        (drawn, False),
        (second, False),
        (first, True),
    ]
    assert client.get("/image", params={"task_id": second}).status_code == 404
    assert client.get("/clear").status_code == 200


def test_cancel_ends_a_running_a_waiting_and_a_finished_task(both: httpx.Client) -> None:
    finished = submit(both)
    done(both, finished)
    drawn, waiting = running(both), submit(both)
    for task_id in (waiting, drawn, finished):
        ask = {"task_id": task_id}
        answer = both.get("/cancel", params=ask)
        assert (answer.status_code, answer.content) == (200, b"")
        assert [both.get(path, params=ask).status_code for path in ("/status", "/image", "/cancel")] == [404] * 3
    assert both.get("/tasks").json() == []


def test_clear_cancels_all_tasks_of_this_client_and_no_others(client: httpx.Client) -> None:
    other = {"X-Client-Id": "somebody-else"}
    theirs = client.post("/generate", json=SMALL, headers=other).json()["task_id"]
    finished = submit(client)
    done(client, finished)
    running(client)
    submit(client)
    answer = client.get("/clear")
    assert (answer.status_code, answer.content) == (200, b"")
    assert client.get("/tasks").json() == []
    assert [task["task_id"] for task in client.get("/tasks", headers=other).json()] == [theirs]
    assert client.get("/clear", headers=other).status_code == 200


def test_tasks_of_another_client_or_protocol_are_not_visible(gateway: Live, client: httpx.Client) -> None:
    task_id = submit(client)
    job_id = client.post(f"{gateway.url}/api/v1/generate", json=SMALL).json()["job_id"]
    done(client, task_id)
    for ask, headers in (({"task_id": task_id}, {"X-Client-Id": "x"}), ({"task_id": job_id}, {}), ({}, {})):
        for path in ("/status", "/image", "/cancel"):
            answer = client.get(path, params=ask, headers=headers)
            assert (answer.status_code, answer.content) == (404, b"")
    assert client.get("/image", params={"task_id": task_id}).status_code == 200


# ---- image ---------------------------------------------------------------------------------------


def test_a_picture_comes_in_its_format_as_bytes_or_base64_and_stays_when_not_deleted(client: httpx.Client) -> None:
    png, webp = submit(client, format="png"), submit(client, format="webp", quality=1)
    for task_id, kind, mime in ((png, "PNG", "image/png"), (webp, "JPEG", "image/jpeg")):
        done(client, task_id)
        plain = client.get("/image", params={"task_id": task_id, "delete": "false"})
        coded = client.get("/image", params={"task_id": task_id, "delete": "0", "base64": "YES"})
        assert plain.headers["content-type"] == mime
        assert picture_of(plain.content).format == kind
        assert coded.headers["content-type"] == "text/plain; charset=utf-8"
        assert base64.b64decode(coded.text) == plain.content
        assert client.get("/image", params={"task_id": task_id}).status_code == 200
        assert client.get("/image", params={"task_id": task_id}).status_code == 404


def test_get_routes_that_change_state_refuse_head_and_foreign_origins(client: httpx.Client) -> None:
    """S-06, DECISIONS on HTTP."""
    task_id = submit(client)
    done(client, task_id)
    for path in ("/image", "/cancel", "/clear"):
        ask = {"task_id": task_id}
        assert client.head(path, params=ask).status_code == 204
        for headers in ({"Sec-Fetch-Site": "cross-site"}, {"Origin": "https://evil.example"}, {"Host": "evil.example"}):
            refused = client.get(path, params=ask, headers=headers)
            assert refused.status_code in (400, 403)
            assert set(refused.json()) == {"message"}
    assert client.get("/image", params={"task_id": task_id}).status_code == 200


# ---- models --------------------------------------------------------------------------------------


def test_models_are_listed_shown_and_loaded(client: httpx.Client) -> None:
    assert client.get("/ls").json()["flux2-tiny"] == {"loader": "flux2_tiny", "steps": 4}
    shown = client.get("/ps").json()
    assert {name: shown[name] for name in ("model", "quantize", "cache_limit", "default_steps")} == {
        "model": "flux2-tiny",
        "quantize": None,
        "cache_limit": 500_000_000,
        "default_steps": 4,
    }
    loaded = client.post("/load", json={"model": "flux2-tiny"})
    assert (loaded.status_code, loaded.json()) == (
        200,
        {"model": "flux2-tiny", "quantize": None, "default_steps": 4},
    )
    assert client.get("/ps").json()["loaded"] == "flux2-tiny"
    assert "available_models" in client.post("/load", json={"model": "schnell"}).json()
    refused = {
        "model": [({}, 400), ({"model": 5}, 400), ({"model": "../../etc"}, 404), ({"model": "flux2-klein-9b"}, 404)],
        "quantize": [({"model": "flux2-tiny", "quantize": 8}, 400), ({"model": "flux2-tiny", "quantize": "8"}, 400)],
    }
    for field, cases in refused.items():
        for body, status in cases:
            answer = client.post("/load", json=body)
            assert answer.status_code == status
            assert status == 404 or set(answer.json()["errors"]) == {field}


# ---- bad input -----------------------------------------------------------------------------------

VALIDATION = "Input payload validation failed"
BAD: list[tuple[bytes, dict[str, str] | None]] = [
    (b"", None),
    (b"[" * 100_000, None),
    (b'{"prompt": ' + b"9" * 5000 + b"}", None),
    (b"\xff\xfe", None),
    (b'{"prompt": "x", "seed": NaN}', None),
    (b'{"prompt": "x", "guidance": 1e999}', None),
    (b'{"prompt": "\\ud800"}', None),
    (b'{"prompt": "\\u0000"}', None),
    (b'{"prompt": "x", "prompt": "y"}', None),
    (b"[]", {"": "is not of type 'object'"}),
    (b"{}", {"prompt": "'prompt' is a required property"}),
    (b'{"prompt": 5}', {"prompt": "is not of type 'string'"}),
    (b'{"prompt": null}', {"prompt": "is not of type 'string'"}),
    (b'{"prompt": "x", "height": "64"}', {"height": "is not of type 'integer'"}),
    (b'{"prompt": "x", "steps": 4.5}', {"steps": "is not of type 'integer'"}),
    (b'{"prompt": "x", "guidance": "abc"}', {"guidance": "is not of type 'number'"}),
    (b'{"prompt": "x", "priority": "yes"}', {"priority": "is not of type 'boolean'"}),
    (b'{"prompt": "x", "seed": null}', {"seed": "is not of type 'string' or 'number'"}),
    (b'{"prompt": "x", "seed": "passwd"}', {"seed": "seed must be a whole number, as a number or as a string."}),
    (
        b'{"prompt": "x", "seed": "99999999999999999999"}',
        {"seed": "seed must be between -9223372036854775808 and 18446744073709551615."},
    ),
    (b'{"prompt": "x", "width": 10000}', {"width": "width must be between 64 and 8192; 10000 was asked."}),
    (b'{"prompt": "x", "steps": 101}', {"steps": "steps must be between 1 and 100."}),
    (b'{"prompt": "x", "quality": 0}', {"quality": "quality must be between 1 and 100."}),
    (b'{"prompt": "x", "init_image": 5}', {"init_image": "is not of type 'string'"}),
    (b'{"prompt": "x", "init_image": "!!"}', {"init_image": "The picture is not valid base64."}),
    (
        b'{"prompt": "x", "init_image": "file:///etc/passwd"}',
        {"init_image": "Pictures are not fetched from URLs. Send base64 or a data URL."},
    ),
]


def test_bad_input_is_refused_in_this_protocols_error_form(both: httpx.Client) -> None:
    """Tables A2 and A3; S-13: short, and without what was sent."""
    for body, errors in BAD:
        answer = both.post("/generate", content=body, headers={"Content-Type": "application/json"})
        assert (answer.status_code, answer.headers["content-type"]) == (400, "application/json"), body[:60]
        said = answer.json()
        assert said["message"]
        if errors is None:
            assert set(said) == {"message"}
        else:
            assert said == {"errors": errors, "message": VALIDATION}, body[:60]
        assert len(answer.content) < 4096
        assert b"passwd" not in answer.content
    assert both.get("/tasks").json() == []


def test_other_errors_have_this_protocols_form_too(both: httpx.Client) -> None:
    text = both.post("/generate", content=b"{}", headers={"Content-Type": "text/plain"})
    assert (text.status_code, set(text.json())) == (415, {"message"})
    for method, path in (("DELETE", "/cancel"), ("POST", "/clear"), ("GET", "/generate")):
        answer = both.request(method, path, params={"task_id": "x"})
        assert (answer.status_code, set(answer.json())) == (405, {"message"})
    assert set(both.get("/tasks/nothing").json()) == {"message"}


# ---- what outlives what --------------------------------------------------------------------------


def test_tasks_with_format_and_fetched_state_survive_a_restart(tmp_path: Path) -> None:
    """Queued, running, done and fetched tasks: all as before."""
    gateway = Live(tmp_path, fake_script={"step_seconds": 0.1}).start()
    with client_of(f"{gateway.url}/api") as client:
        fetched, kept = submit(client), submit(client, format="PNG")
        done(client, fetched)
        done(client, kept)
        assert client.get("/image", params={"task_id": fetched}).status_code == 200
        begun, waiting = submit(client, steps=8, quality=50), submit(client)
        before = client.get("/tasks").json()
        gateway.stop()
        gateway.start()
        after = client.get("/tasks").json()
        assert [task["task_id"] for task in after] == [kept, begun, waiting]
        names = ("task_id", "prompt", "seed", "format", "quality", "priority", "start_time")
        assert [[task[n] for n in names] for task in after] == [[task[n] for n in names] for task in before]
        assert client.get("/status", params={"task_id": fetched}).status_code == 404
        for task_id, kind in ((kept, "PNG"), (begun, "JPEG"), (waiting, "JPEG")):
            done(client, task_id)
            assert picture_of(client.get("/image", params={"task_id": task_id}).content).format == kind
        assert client.get("/tasks").json() == []
    gateway.stop()


def test_failed_task_is_finished_and_reports_the_reason(tmp_path: Path) -> None:
    """Clients poll until they read `done`; the picture's status then ends them. The next task runs."""
    script = {"raise_in": "step", "crash_times": 1, "counter_path": str(tmp_path / "counter")}
    with live(tmp_path, fake_script=script) as gateway:
        client = client_of(f"{gateway.url}/api")
        failed, after = submit(client), submit(client)
        status = done(client, failed)
        assert set(status) == {"status", "error"}
        assert "secret" not in status["error"]
        picture = client.get("/image", params={"task_id": failed})
        assert (picture.status_code, picture.json()) == (500, {"message": status["error"]})
        assert client.get("/tasks").json()[0]["error"] == status["error"]
        assert "error" not in done(client, after)
        client.close()
