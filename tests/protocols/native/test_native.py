"""/api/v1 over a real socket, against the fake engine."""

from __future__ import annotations

import base64
import io
import json
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from PIL import Image

from tests.support.live import Live, live
from tests.support.lora import TINY, save_lora
from tests.support.native import SMALL, ended, events, submit


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Live]:
    with live(tmp_path_factory.mktemp("native"), fake_script={"step_seconds": 0.03}) as gateway:
        yield gateway


@pytest.fixture
def client(gateway: Live) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=f"{gateway.url}/api/v1", timeout=30) as client:
        yield client


def test_submit_poll_and_decode_as_the_documentation_shows(client: httpx.Client) -> None:
    job = submit(client, num_images=2, seed=42)
    assert (job["status"], job["id"]) == ("queued", job["job_id"]) or job["status"] == "generating"
    assert isinstance(job["position"], int)
    done = ended(client, job["job_id"])
    assert (done["status"], done["progress"]) == ("completed", 1.0)
    assert done["result"]["seeds"] == [42, 43]
    assert done["completed_at"].endswith("Z")
    for text in done["result"]["images"]:
        assert Image.open(io.BytesIO(base64.b64decode(text))).size == (64, 64)


def test_a_picture_can_be_fetched_alone(client: httpx.Client) -> None:
    done = ended(client, submit(client)["job_id"])
    answer = client.get(f"/jobs/{done['id']}/images/0")
    assert answer.headers["content-type"] == "image/png"
    assert answer.content == base64.b64decode(done["result"]["images"][0])
    assert client.get(f"/jobs/{done['id']}/images/1").status_code == 404


def test_the_stream_tells_progress_and_ends_with_complete(client: httpx.Client) -> None:
    job = submit(client, num_images=2)
    seen = events(client, job["job_id"])
    names = [event["event"] for event in seen]
    assert names[0] == "queued"
    assert names[-1] == "complete"
    assert names.count("image") == 2
    progress = [event["data"]["progress"] for event in seen if event["event"] == "progress"]
    assert progress == sorted(progress)
    assert all(0 <= p <= 1 for p in progress)
    assert len(seen[-1]["data"]["result"]["images"]) == 2
    assert all("id" not in event for event in seen if event["event"] in ("progress", "preview"))


def test_a_stream_resumed_after_any_event_has_no_gap_and_no_duplicate(client: httpx.Client) -> None:
    """R-08, on the wire."""
    job_id = submit(client, num_images=3)["job_id"]
    ids: list[str] = []
    while True:
        seen = [e for e in events(client, job_id, ids[-1] if ids else None, stop_after=1) if e["event"] != "progress"]
        ids += [event["id"] for event in seen if "id" in event]
        if seen and seen[-1]["event"] == "complete":
            break
    assert ids == [f"{job_id}:{seq}" for seq in range(1, len(ids) + 1)]


def test_event_source_reconnecting_after_the_end_gets_204_to_stop(client: httpx.Client) -> None:
    job_id = submit(client)["job_id"]
    last = events(client, job_id)[-1]["id"]
    answer = client.get(f"/jobs/{job_id}/stream", headers={"Last-Event-ID": last})
    assert (answer.status_code, answer.content) == (204, b"")
    assert events(client, job_id)[-1]["event"] == "complete"


def test_stream_closed_by_the_client_does_not_change_the_job(client: httpx.Client) -> None:
    job_id = submit(client)["job_id"]
    events(client, job_id, stop_after=1)
    assert ended(client, job_id)["status"] == "completed"


def test_preview_is_served_at_the_url_in_its_event(client: httpx.Client) -> None:
    job_id = submit(client, preview=True, num_images=10)["job_id"]
    url = preview_url(client, job_id)
    assert url.startswith(f"/api/v1/jobs/{job_id}/preview?at=0-")
    first = client.get(str(client.base_url.copy_with(raw_path=url.encode())))
    assert first.headers["content-type"] == "image/jpeg"
    assert Image.open(io.BytesIO(first.content)).format == "JPEG"
    client.delete(f"/jobs/{job_id}")
    assert client.get(f"/jobs/{job_id}/preview").status_code == 204


def preview_url(client: httpx.Client, job_id: str) -> str:
    with client.stream("GET", f"/jobs/{job_id}/stream") as answer:
        lines = answer.iter_lines()
        next(line for line in lines if line == "event: preview")
        return str(json.loads(next(lines).removeprefix("data: "))["url"])


def test_delete_cancels_a_running_job_and_reports_it(client: httpx.Client) -> None:
    job_id = submit(client, num_images=10)["job_id"]
    events(client, job_id, stop_after=3)
    assert client.delete(f"/jobs/{job_id}").json() == {"status": "cancelled", "job_id": job_id}
    job = ended(client, job_id)
    assert job["status"] == "cancelled"
    assert len(job.get("image_urls", [])) < 10
    assert client.delete(f"/jobs/{job_id}").json()["status"] == "cancelled"


def test_delete_of_a_completed_job_answers_with_its_completed_status(client: httpx.Client) -> None:
    done = ended(client, submit(client)["job_id"])
    assert client.delete(f"/jobs/{done['id']}").json()["status"] == "completed"


def test_the_queue_shows_what_runs_and_what_waits(client: httpx.Client) -> None:
    running = submit(client, num_images=10)["job_id"]
    waiting = [submit(client)["job_id"] for _ in range(2)]
    events(client, running, stop_after=3)
    queue = client.get("/queue").json()
    assert queue["active"]["job_id"] == running
    assert queue["active"]["eta_seconds"] >= 0
    assert [(job["job_id"], job["position"]) for job in queue["queued"]] == list(zip(waiting, (1, 2), strict=True))
    for job_id in (*waiting, running):
        client.delete(f"/jobs/{job_id}")
    assert client.get("/queue").json()["active"] is None


def test_queue_priority_overtakes_and_the_job_list_is_newest_first(client: httpx.Client) -> None:
    blocker = submit(client, num_images=10)["job_id"]
    events(client, blocker, stop_after=2)
    normal, high = submit(client), submit(client, priority="high")
    assert client.get(f"/jobs/{high['id']}").json()["position"] == 1
    assert client.get(f"/jobs/{normal['id']}").json()["position"] == 2
    page = client.get("/jobs", params={"limit": 2}).json()["jobs"]
    assert [job["id"] for job in page] == [high["id"], normal["id"]]
    for job_id in (normal["id"], high["id"], blocker):
        client.delete(f"/jobs/{job_id}")


def test_job_list_is_filtered_by_status_before_the_limit(client: httpx.Client) -> None:
    cancelled = submit(client, num_images=10)["job_id"]
    client.delete(f"/jobs/{cancelled}")
    for _ in range(2):
        ended(client, submit(client, steps=1)["job_id"])
    page = client.get("/jobs", params={"status": "cancelled", "limit": 1}).json()["jobs"]
    assert [job["id"] for job in page] == [cancelled]
    assert client.get("/jobs", params={"status": "lost"}).json()["details"] == {"param": "status"}


def test_an_idempotency_key_makes_one_job(client: httpx.Client) -> None:
    key = {"Idempotency-Key": "one"}
    first, again = (client.post("/generate", json=SMALL, headers=key).json() for _ in range(2))
    assert first["job_id"] == again["job_id"]
    other = client.post("/generate", json={**SMALL, "prompt": "else"}, headers=key)
    assert (other.status_code, other.json()["code"]) == (409, "IDEMPOTENCY_CONFLICT")


def test_adjustments_report_what_was_changed_from_the_request(client: httpx.Client) -> None:
    job = submit(client, width=72, guidance=3.5, negative_prompt="blur", cfg_rescale=1)
    assert {a["param"] for a in job["adjustments"]} == {"width", "guidance", "negative_prompt"}
    assert job["ignored"] == ["cfg_rescale"]


def test_input_picture_is_used_for_image_to_image(client: httpx.Client) -> None:
    buffer = io.BytesIO()
    Image.new("RGB", (64, 64), (255, 0, 0)).save(buffer, "PNG")
    init = base64.b64encode(buffer.getvalue()).decode()
    kept, redrawn = (
        ended(client, submit(client, init_images=[init], image_strength=s, seed=1)["job_id"]) for s in (0.0, 1.0)
    )
    colour = Image.open(io.BytesIO(base64.b64decode(kept["result"]["images"][0]))).convert("RGB").getpixel((32, 32))
    assert colour == (255, 0, 0)
    assert kept["result"]["images"] != redrawn["result"]["images"]
    assert kept["type"] == "img2img"


def test_another_client_does_not_see_the_job(client: httpx.Client) -> None:
    """S-23: 404, not 403."""
    job_id = submit(client)["job_id"]
    other = {"X-Client-Id": "somebody-else"}
    for method, path in (("GET", ""), ("DELETE", ""), ("GET", "/stream"), ("GET", "/images/0")):
        answer = client.request(method, f"/jobs/{job_id}{path}", headers=other)
        assert (answer.status_code, answer.json()["code"]) == (404, "JOB_NOT_FOUND")


def test_job_stays_after_its_pictures_are_removed(gateway: Live, client: httpx.Client) -> None:
    done = ended(client, submit(client)["job_id"])
    for file in (gateway.folder / "output").glob(f"{done['id']}.*"):
        file.unlink()
    assert client.get(f"/jobs/{done['id']}").json()["result"]["images"] == [None]
    assert events(client, done["id"])[-1]["data"]["result"]["seeds"] == done["result"]["seeds"]
    assert client.get(f"/jobs/{done['id']}/images/0").json()["code"] == "PICTURE_GONE"


def test_health_reports_the_state_of_the_engine(client: httpx.Client) -> None:
    health = client.get("/health").json()
    assert (health["status"], health["default_model"]) == ("healthy", "flux2-tiny")
    assert health["engine"]["state"] in ("ready", "busy")


BAD = [
    (b"", 400, "INVALID_JSON"),
    (b"[" * 200_000, 400, "INVALID_JSON"),
    (b'{"prompt": ' + b"9" * 5000 + b"}", 400, "INVALID_JSON"),
    (b"\xff\xfe", 400, "INVALID_JSON"),
    (b'{"prompt": "x", "seed": NaN}', 400, "INVALID_JSON"),
    (b'{"prompt": "x", "guidance": 1e999}', 400, "INVALID_JSON"),
    (b'{"prompt": "\\ud800"}', 400, "INVALID_JSON"),
    (b'{"prompt": "\\u0000"}', 400, "INVALID_JSON"),
    (b'{"prompt": "x", "prompt": "y"}', 400, "INVALID_JSON"),
    (b"[]", 400, "INVALID_PARAM"),
    (b"{}", 400, "INVALID_PARAM"),
    (b'{"prompt": 5}', 400, "INVALID_PARAM"),
    (b'{"prompt": "x", "width": 10000}', 400, "INVALID_PARAM"),
    (b'{"prompt": "x", "steps": 0}', 400, "INVALID_PARAM"),
    (b'{"prompt": "x", "num_images": 11}', 400, "INVALID_PARAM"),
    (b'{"prompt": "x", "seed": -9223372036854775809}', 400, "INVALID_PARAM"),
    (b'{"prompt": "x", "lora_files": ["/etc/passwd"]}', 400, "INVALID_PARAM"),
    (b'{"prompt": "x", "init_images": ["http://127.0.0.1/x.png"]}', 400, "REMOTE_IMAGES_DISABLED"),
    (b'{"prompt": "x", "init_images": ["file:///etc/passwd"]}', 400, "REMOTE_IMAGES_DISABLED"),
    (b'{"prompt": "x", "init_images": ["aGVsbG8="]}', 400, "INVALID_PARAM"),
    (b'{"prompt": "x", "model": "../../etc"}', 404, "MODEL_NOT_FOUND"),
    (b'{"prompt": "x", "model": "schnell"}', 404, "MODEL_NOT_FOUND"),
    (b'{"prompt": "x", "model": "flux2-klein-9b"}', 404, "MODEL_NOT_ON_DISK"),
]


@pytest.mark.parametrize(("body", "status", "code"), BAD)
def test_bad_input_is_refused_in_this_protocols_error_form(
    client: httpx.Client, body: bytes, status: int, code: str
) -> None:
    """Tables A2 and A3; S-13: short, and without what was sent."""
    answer = client.post("/generate", content=body, headers={"Content-Type": "application/json"})
    error = answer.json()
    assert (answer.status_code, error["code"]) == (status, code)
    assert isinstance(error["error"], str)
    assert len(answer.content) < 4096
    assert b"Traceback" not in answer.content
    assert b"passwd" not in answer.content or b"lora" in body


def test_unknown_paths_and_methods_get_this_protocols_error(client: httpx.Client) -> None:
    for method, path, status in (("GET", "/nothing", 404), ("PUT", "/jobs", 405), ("GET", "/jobs/../../x", 404)):
        answer = client.request(method, path)
        assert answer.status_code == status
    assert client.get("/jobs", params={"limit": "0"}).json()["details"]["param"] == "limit"


def test_sixteen_clients_at_once_all_get_their_pictures(gateway: Live) -> None:
    done: list[str] = []

    def one(i: int) -> None:
        with httpx.Client(base_url=f"{gateway.url}/api/v1", timeout=60, headers={"X-Client-Id": f"c{i}"}) as client:
            done.append(ended(client, submit(client, steps=1)["job_id"])["status"])

    threads = [threading.Thread(target=one, args=(i,)) for i in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert done == ["completed"] * 16


def test_gateway_without_an_engine_reports_why_and_still_accepts_jobs(tmp_path: Path) -> None:
    """R-21 and DECISIONS on an engine that cannot start."""
    gateway = Live(tmp_path, fake_script={"start_fails": True}).start(ready=False)
    try:
        ready = httpx.get(f"{gateway.url}/health/ready")
        assert ready.status_code == 503
        assert ready.json()["reason"]
        answer = httpx.post(f"{gateway.url}/api/v1/generate", json=SMALL)
        assert (answer.status_code, answer.json()["status"]) == (200, "queued")
    finally:
        gateway.stop()


def test_loras_of_the_models_folder_are_used_by_name_at_their_scale(tmp_path: Path) -> None:
    file = save_lora(tmp_path / "models" / "loras", "night", TINY)

    def drawn(client: httpx.Client, **said: Any) -> bytes:
        job = ended(client, submit(client, seed=1, **said)["job_id"])
        assert job["status"] == "completed"
        return client.get(f"/jobs/{job['id']}/images/0").content

    config = {"models": {"cache_dir": str(tmp_path / "models")}}
    with (
        live(tmp_path, config=config) as gateway,
        httpx.Client(base_url=f"{gateway.url}/api/v1", timeout=30) as client,
    ):
        bare = drawn(client)
        night = drawn(client, lora_files=["night"])
        assert night == drawn(client, lora_files=[str(file)], lora_scales=[1.0])
        assert night == drawn(client, loras=[{"name": "night.safetensors"}])
        elsewhere = client.post("/generate", json={**SMALL, "lora_files": ["/any/folder/night.safetensors"]})
        assert (elsewhere.status_code, elsewhere.json()["details"]["param"]) == (400, "loras")
        assert len({bare, night, drawn(client, lora_files=["night"], lora_scales=[0.4])}) == 3
        refused = client.post("/generate", json={**SMALL, "lora_files": ["night"], "lora_scales": [1, 2]})
        assert refused.status_code == 400
        assert "lora_scales" in refused.text
