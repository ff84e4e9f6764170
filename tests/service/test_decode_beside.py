"""A job whose images are decoded beside the next one, as a client sees it: through a whole gateway."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import Any

from tests.support.live import live
from tests.support.native import client_of, ended, events, read, submit

SCRIPT = {"step_seconds": 0.08, "decode_seconds": 0.2}
IMAGES = 3
BESIDE = {"engine": {"decode_beside": True}}


def of_kind(found: list[dict[str, Any]], kind: str) -> list[tuple[int, dict[str, Any]]]:
    """Place and data of each event of this kind."""
    return [(at, event["data"]) for at, event in enumerate(found) if event["event"] == kind]


def test_images_come_in_order_and_progress_never_falls(tmp_path: Path) -> None:
    with live(tmp_path, fake_script=SCRIPT, config=BESIDE) as gateway, client_of(gateway.url) as client:
        job = submit(client, num_images=IMAGES)
        found = events(client, job["job_id"])
        drawn, progress = of_kind(found, "image"), of_kind(found, "progress")
        assert [data["image"] for _, data in drawn] == list(range(IMAGES))
        assert all(one["progress"] <= other["progress"] for (_, one), (_, other) in pairwise(progress))
        assert any(data["image"] == 1 and at < drawn[0][0] for at, data in progress), "nothing was drawn beside"
        assert found[-1]["event"] == "complete"
        assert len(ended(client, job["job_id"])["result"]["images"]) == IMAGES


def test_job_cancelled_beside_a_decoding_keeps_the_images_before(tmp_path: Path) -> None:
    with live(tmp_path, fake_script=SCRIPT, config=BESIDE) as gateway, client_of(gateway.url) as client:
        job = submit(client, num_images=IMAGES)
        for event in read(client, f"/jobs/{job['job_id']}/stream"):
            if event.get("event") == "image":
                client.delete(f"/jobs/{job['job_id']}").raise_for_status()
                break
        assert ended(client, job["job_id"])["status"] == "cancelled"
        found = events(client, job["job_id"], last="0")
        drawn = [data["image"] for _, data in of_kind(found, "image")]
        assert drawn == list(range(len(drawn)))
        assert 1 <= len(drawn) < IMAGES
        assert ended(client, submit(client)["job_id"])["status"] == "completed"
