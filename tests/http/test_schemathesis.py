"""Schemathesis against the description at /openapi.json: cases at the edges of every schema, the same in every run.

Pictures are drawn by the fake engine, small and at once. Streams are read to their first event and left.
"""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
import requests
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings

from tests.support.live import ROOT, Live, live
from tests.support.native import SMALL

CHECKS = (
    "not_a_server_error",
    "status_code_conformance",
    "content_type_conformance",
    "response_schema_conformance",
    "unsupported_method",
)
STREAMS = ("/api/v1/events", "/api/v1/jobs/{job_id}/stream")
APART = ("/api/v1/queue/pause", *STREAMS)
"""Have tests of their own below: the one would stop the queue for all others, the others have no end."""
PROMISED = {
    "/sdapi/v1/(create|train)/.*|/sdapi/v1/interrogate": 501,
    "/sdapi/v1/(options|extra-single-image|extra-batch-images)": 500,
}
"""As AUTOMATIC1111 answers a few bodies (docs/decisions.md), by pattern of the path."""
LOG = "audit.log"
CASES = 2
"""Of the random ones, an operation; those at the edges come besides."""


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Live]:
    bounds = {"max_px": 128, "max_steps": 8, "max_batch_size": 2}
    config = {"generation": bounds, "queue": {"waiting": 100_000}}
    folder = tmp_path_factory.mktemp("schemathesis")
    program = ("tests/support/audited_gateway.py", str(folder / LOG), str(folder))
    with live(folder, config=config, program=program) as gateway:
        yield gateway


def config_of_checks() -> str:
    """Which 5xx are promised, as schemathesis.toml has it."""
    return "\n".join(
        f'[[operations]]\ninclude-path-regex = "^({path})$"\n'
        f'checks.not_a_server_error.expected-statuses = ["2XX", "3XX", "4XX", "{status}"]\n'
        for path, status in PROMISED.items()
    )


@pytest.mark.timeout(600)
def test_response_schema_of_openapi_matches_every_answer(gateway: Live, tmp_path: Path) -> None:
    (tmp_path / "schemathesis.toml").write_text(config_of_checks())
    command = [sys.executable, "-m", "schemathesis.cli", "run", f"{gateway.url}/openapi.json"]
    command += ["--phases", "coverage,fuzzing", "--max-examples", str(CASES), "--generation-deterministic"]
    command += ["--no-shrink", "--continue-on-failure", "--warnings", "off", "--request-timeout", "60"]
    command += ["--checks", ",".join(CHECKS)]
    for path in APART:
        command += ["--exclude-path", path]
    ran = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=580)
    report = ran.stdout[ran.stdout.find("= FAILURES") :] + ran.stderr
    assert ran.returncode == 0, report[:6000].replace(str(ROOT), "")
    selected, of_all = map(int, re.findall(r"Selected: (\d+)/(\d+)", ran.stdout)[0])
    assert of_all - selected == len(APART)
    assert f"Tested: {selected}\n" in ran.stdout, ran.stdout


FEW = settings(
    max_examples=10,
    deadline=None,
    database=None,
    derandomize=True,
    phases=[Phase.generate],
    suppress_health_check=list(HealthCheck),
)


def strained(gateway: Live, path: str, method: str, *, job_id: str | None = None) -> int:
    """Try an operation's cases one after the other, and read no more than a stream's first event; returns how many."""
    operation = schemathesis.openapi.from_url(f"{gateway.url}/openapi.json")[path][method]
    statuses = []

    @settings(FEW)
    @given(case=operation.as_strategy())
    def strain(case: schemathesis.Case) -> None:
        if job_id is not None:
            case.path_parameters["job_id"] = job_id
        said = case.as_transport_kwargs(base_url=gateway.url)
        with requests.request(**said, stream=True, timeout=60) as answer:
            if answer.headers.get("content-type", "").startswith("text/event-stream"):
                answer._content = next(answer.iter_lines(chunk_size=1, delimiter=b"\n\n"))
            case.validate_response(answer)
            statuses.append(answer.status_code)

    strain()
    assert statuses.count(200) > 0
    return len(statuses)


@pytest.mark.parametrize("path", STREAMS)
def test_stream_answers_as_described_and_may_be_closed_at_its_first_event(gateway: Live, path: str) -> None:
    job_id = httpx.post(f"{gateway.url}/api/v1/generate", json=SMALL).json()["job_id"]
    assert strained(gateway, path, "GET", job_id=job_id if "{" in path else None) >= 2


def test_queue_pause_and_resume_work_as_documented(gateway: Live) -> None:
    strained(gateway, "/api/v1/queue/pause", "POST")
    strained(gateway, "/api/v1/queue/resume", "POST")


def test_schemathesis_requests_opened_no_outside_file_and_no_connection(gateway: Live) -> None:
    """S-21, S-30, S-36: nothing a client says becomes a path, an address or a program."""
    assert httpx.get(f"{gateway.url}/health/live").status_code == 200
    assert (gateway.folder / LOG).read_text() == ""
