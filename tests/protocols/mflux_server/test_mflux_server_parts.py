"""mflux-server's protocol without a connection: notes, tasks, errors."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from starlette.requests import Request

from adapters.mflux_server.errors import render_error
from adapters.mflux_server.requests import to_model, to_origin
from adapters.mflux_server.responses import to_task
from adapters.mflux_server.schemas import GenerateBody, LoadBody
from adapters.mflux_server.state import Encoding
from gateway.access.rights import Rights
from gateway.errors import Forbidden, InvalidRequest, ModelNotFound
from gateway.jobs.facts import Queued
from gateway.jobs.job import Job, Priority
from gateway.models.library import Library
from tests.support import a_job, a_plan


def waiting(number: int, **changes: object) -> Job:
    return Job.of(a_job(**changes), number).apply(Queued(), 0.0)


def test_picture_encoding_is_restored_from_its_job_note() -> None:
    assert Encoding.of_note(Encoding("PNG", 7).to_note()) == Encoding("PNG", 7)
    assert Encoding.of_note("") == Encoding("JPEG", 85)
    assert [Encoding(name).media_type for name in ("PNG", "JPEG", "WEBP")] == ["image/png", "image/jpeg", "image/jpeg"]


def test_task_status_shows_its_times_as_they_are_known() -> None:
    job = waiting(1, priority=Priority.HIGH, note=Encoding("PNG", 7).to_note())
    plan = a_plan()
    row = {
        "task_id": job.id,
        "prompt": "a red circle",
        "seed": "1",
        "height": 64,
        "width": 64,
        "steps": 4,
        "guidance": 1.0,
        "format": "PNG",
        "quality": 7,
        "priority": True,
        "init_image": None,
        "start_time": 0.0,
    }
    assert to_task(job, plan) == row
    ended = replace(job, started_at=1.0, finished_at=2.0)
    assert to_task(ended, plan) == {**row, "compute_time": 1.0, "end_time": 2.0}


def test_priority_may_be_raised_by_anyone_only_without_keys() -> None:
    asked = Request({"type": "http", "headers": [], "state": {"owner": "key:a"}})
    urgent = GenerateBody(prompt="x", priority=True, format="png", quality=7)
    origin = to_origin(urgent, asked)
    assert (origin.priority, origin.attached, origin.note) == (Priority.HIGH, False, Encoding("PNG", 7).to_note())
    assert to_origin(GenerateBody(prompt="x"), asked).priority is Priority.NORMAL
    Rights().check(origin.owner, "raise_priority")
    with pytest.raises(Forbidden):
        Rights.of_keys(()).check(origin.owner, "raise_priority")


def test_quantize_selects_the_model_with_that_number_of_bits(tmp_path: Path) -> None:
    weights = tmp_path / "flux2-klein-4b" / "transformer"
    weights.mkdir(parents=True)
    (weights / "model.safetensors").touch()
    settings = SimpleNamespace(models=SimpleNamespace(quantize=4))
    core: Any = SimpleNamespace(library=Library(tmp_path, default="flux2-tiny"), settings=settings)
    asked = {None: "flux2-klein-4b", 4: "flux2-klein-4b", 8: "flux2-klein-4b-8-bit"}
    for bits, name in asked.items():
        assert to_model(LoadBody(model="flux2-klein-4b", quantize=bits), core).name == name
    for model, bits in (("flux2-klein-4b", 5), ("flux2-klein-4b-8-bit", 6), ("flux2-tiny", 8)):
        with pytest.raises(InvalidRequest, match="bits"):
            to_model(LoadBody(model=model, quantize=bits), core)
    assert to_model(LoadBody(model="flux2-klein-9b", quantize=8), core).name == "flux2-klein-9b-8-bit"


def test_errors_name_the_fields_that_are_wrong() -> None:
    def said(error: InvalidRequest | ModelNotFound) -> object:
        return json.loads(bytes(render_error(error).body))

    assert said(InvalidRequest("Too wide.", param="width")) == {
        "errors": {"width": "Too wide."},
        "message": "Input payload validation failed",
    }
    assert said(InvalidRequest("Bad host.")) == {"message": "Bad host."}
    assert said(ModelNotFound("None.", details={"available_models": ["a"]})) == {
        "message": "None.",
        "available_models": ["a"],
    }
