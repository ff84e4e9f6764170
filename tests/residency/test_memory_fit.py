"""The default that fits the machine, what a refusal says would fit, and jobs that are tried all the same."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from engine.catalog import CATALOG, EMBEDDED, ModelSpec
from engine.protocol import Control, Generate, Upscale
from gateway import app
from gateway.app import build_core
from gateway.cli import doctor
from gateway.errors import InsufficientMemory
from gateway.findings import _of_default
from gateway.jobs.job import Job, State
from gateway.jobs.resolve import Adjustment
from gateway.models.library import Library
from gateway.residency import device
from gateway.residency.admission import LADDER, Admission
from gateway.residency.default import best_that_fits, usual
from gateway.residency.device import Device, metal_bytes
from gateway.residency.footprint import GB, Peaks
from gateway.settings import Settings
from tests.residency.test_residency import plan_of
from tests.residency.test_residency_service import drawn, service_in, submit, until
from tests.support.chromium import chromium
from tests.support.hostile import PICTURE
from tests.support.live import ROOT, Live, live
from tests.support.native import ended
from tests.support.studio import studio

SPECS = {spec.name: spec for spec in CATALOG}
GIB = 2**30
WHOLE, EIGHT, FOUR, TINY = LADDER
MACS = {
    4: TINY,
    8: FOUR,
    16: EIGHT,
    18: EIGHT,
    24: EIGHT,
    32: WHOLE,
    36: WHOLE,
    48: WHOLE,
    64: WHOLE,
    96: WHOLE,
    128: WHOLE,
}
MACS[192] = WHOLE


def a_mac(monkeypatch: pytest.MonkeyPatch, gib: int, wired_mib: int = 0) -> None:
    """This machine looks like a Mac of so much memory."""
    monkeypatch.setattr(device, "total_bytes", lambda: gib * GIB)
    monkeypatch.setattr(device, "has_metal", lambda: True)

    def sysctl(command: list[str], **_: Any) -> subprocess.CompletedProcess[str]:
        return subprocess.CompletedProcess(command, 0, f"{wired_mib}\n")

    monkeypatch.setattr(device.subprocess, "run", sysctl)


def admission(folder: Path, limit_gb: float) -> Admission:
    library = Library(folder, default=WHOLE)
    return Admission(library, lambda: ("metal", int(limit_gb * GB)), Peaks(), is_set=True)


# ---- the device and its default --------------------------------------------------------------------


def test_memory_limit_on_mac_is_reported_by_metal() -> None:
    known_mib = {16: 10922.67, 32: 21845.34, 36: 27648, 64: 49152}
    for gib, mib in known_mib.items():
        assert metal_bytes(gib * GIB) / 2**20 == pytest.approx(mib, abs=1)
    assert metal_bytes(16 * GIB, 14336) == 14336 * 2**20, "as iogpu.wired_limit_mb says"
    assert metal_bytes(16 * GIB, 10**6) == 16 * GIB


@pytest.mark.parametrize(("gib", "name"), MACS.items())
def test_model_default_on_mac_is_the_best_that_fits_memory(
    gib: int, name: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    a_mac(monkeypatch, gib)
    core = build_core(Settings.model_validate({"models": {"cache_dir": tmp_path}, "store": {"data_dir": tmp_path}}))
    assert core.library.default == name
    spec, admission = SPECS[name], core.service.residency.admission
    plan = usual(spec)
    assert isinstance(plan, Generate)
    admission.check(admission.spared(plan, spec), spec)  # a request that says nothing else is taken
    assert core.default_model.fits
    assert core.default_model.low_ram == (gib == 8) == ("drawn with low_ram" in core.default_model.sentence)
    assert core.default_model.sentence.startswith("The best that fits: a picture of ")
    assert core.default_model.sentence in core.greeting()
    assert name in core.greeting()
    assert core.default_model.limit_bytes == metal_bytes(gib * GIB)
    assert core.default_model.any_prompt == (None if name == EMBEDDED else name)


def test_memory_limit_uses_gpu_memory_set_by_operator(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    a_mac(monkeypatch, 24, wired_mib=20 * 1024)
    assert best_that_fits(device.expected()) == WHOLE
    settings = {"models": {"cache_dir": tmp_path}, "engine": {"memory_gb": 8}}
    core = build_core(Settings.model_validate(settings))
    assert (core.library.default, core.default_model.source) == (FOUR, "setting")


@pytest.mark.parametrize("total", [1 * GIB, 4 * GIB, 16 * GIB, 512 * GIB])
def test_cache_of_a_cpu_fits_beside_what_admission_gives_to_models(monkeypatch: pytest.MonkeyPatch, total: int) -> None:
    monkeypatch.setattr(device, "total_bytes", lambda: total)
    monkeypatch.setattr(device, "has_metal", lambda: False)
    monkeypatch.setattr(device, "has_cuda", lambda: False)
    cpu = device.expected()
    cache = device.default_cache_bytes(cpu)
    assert cpu.kind == "cpu"
    assert cache is not None
    assert cpu.limit_bytes + cache <= 0.96 * total
    assert cache == 10**9 or cache >= 0.049 * total
    smaller = device.default_cache_bytes(Device("cpu", 2 * GB))
    assert smaller is not None
    assert smaller < 0.12 * GB, "the operator gave 2 GB"
    assert [device.default_cache_bytes(Device(kind, total)) for kind in ("metal", "cuda")] == [None, None]


def test_engine_gets_the_cache_of_the_setting_or_of_the_device(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(app, "expected", lambda: Device("cpu", 4 * GB))

    def engine_cache(**engine: object) -> int | None:
        core = build_core(Settings.model_validate({"engine": engine}))
        return core.service._engine._options.cache_limit_bytes

    assert engine_cache() == 4 * GB // device.CPU_CACHE_SHARE
    assert (engine_cache(cache_limit_gb=0), engine_cache(cache_limit_gb=2)) == (0, 2 * GB)
    monkeypatch.setattr(app, "expected", lambda: Device("metal", 4 * GB))
    assert engine_cache() is None


def a_package(folder: Path, name: str) -> None:
    """The package as its wheel installs it: with metadata, and with no module of its own."""
    info = folder / f"{name.replace('-', '_')}-0.32.2.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.4\nName: {name}\nVersion: 0.32.2\n")


@pytest.mark.parametrize(
    ("package", "told_mib", "name"), [("mlx-cuda-13", 24576, WHOLE), ("mlx-cuda-12", 16384, EIGHT)]
)
def test_model_default_with_cuda_is_the_best_that_fits_what_mlx_uses_of_it(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, package: str, told_mib: int, name: str
) -> None:
    sign = tmp_path / "driver"
    monkeypatch.setattr(device, "DRIVER", (tmp_path / "none", sign))
    monkeypatch.setattr(device, "_number", lambda command: told_mib)
    monkeypatch.syspath_prepend(tmp_path)
    assert device.expected().kind == "cpu"
    sign.touch()
    assert device.expected().kind == "cpu", "a driver alone computes nothing"
    a_package(tmp_path, package)
    monkeypatch.syspath_prepend(tmp_path)  # its list of packages is read again
    assert device.expected() == Device("cuda", int(0.95 * told_mib * 2**20))
    assert best_that_fits(device.expected()) == name


def test_model_default_depends_on_bits_and_low_ram_settings() -> None:
    sixteen = Device("metal", metal_bytes(16 * GIB))
    assert best_that_fits(sixteen, quantize=4) == WHOLE, "at four bits it fits"
    assert best_that_fits(Device("metal", 17 * GB), low_ram=True) == WHOLE
    assert best_that_fits(Device("metal", 17 * GB)) == EIGHT
    assert best_that_fits(Device("cpu", 500 * GB)) == EMBEDDED
    assert best_that_fits(Device("cuda", 24 * GB)) == WHOLE


def test_memory_default_ladder_rows_are_available_and_stored_at_their_loaded_size() -> None:
    for name in LADDER:
        assert SPECS[name].quantize is None
        assert SPECS[name].unavailable is None


def test_default_model_set_by_operator_is_kept_and_fitting_model_reported(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    a_mac(monkeypatch, 8)
    core = build_core(Settings.model_validate({"models": {"cache_dir": tmp_path, "default": WHOLE}}))
    assert core.library.default == WHOLE
    assert not core.default_model.fits
    greeting = core.greeting()
    assert "takes about 17.6 GB" in greeting
    instead = core.default_model.instead
    assert instead is not None
    assert core.service.residency.admission.fits(usual(SPECS[instead]), SPECS[instead])
    assert f"Use {instead}" in greeting
    [told] = _of_default(core.default_model)
    assert instead in told.found
    assert instead in told.remedy


def test_default_model_that_fits_only_with_low_ram_is_reported(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    a_mac(monkeypatch, 16)
    core = build_core(Settings.model_validate({"models": {"cache_dir": tmp_path, "default": WHOLE}}))
    default = core.default_model
    assert (default.fits, default.low_ram, default.any_prompt) == (True, True, EIGHT)
    assert "takes about 9.6 GB" in default.sentence
    assert default.sentence in core.greeting()
    assert list(_of_default(default)) == []


def test_memory_measured_by_engine_replaces_estimate_and_default_model_stays(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    a_mac(monkeypatch, 16)
    core = build_core(Settings.model_validate({"models": {"cache_dir": tmp_path}}))
    assert (core.library.default, core.default_model.source) == (EIGHT, "estimate")
    monkeypatch.setattr(core.service._engine, "_limit_bytes", 5 * GB)
    default = core.default_model
    assert (default.name, default.source, default.fits) == (EIGHT, "device", False)
    assert f"Use {default.instead}" in default.sentence
    assert core.library.default == EIGHT


def test_doctor_prints_memory_limit_and_reason_for_default_model(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    assert " GB" in doctor._device().found
    a_mac(monkeypatch, 16)
    chosen = {finding.what: finding for finding in doctor._models(Settings.model_validate({}))}
    assert "The best that fits" in chosen["default model"].found
    assert "11.5 GB" in chosen["default model"].found
    a_mac(monkeypatch, 8)
    named = Settings.model_validate({"models": {"default": WHOLE, "cache_dir": tmp_path}})
    told = {finding.what: finding for finding in doctor._models(named)}["default model"]
    assert (told.health, told.remedy) == ("note", "mflux-gateway --model flux2-klein-4b-3-bit")


# ---- what a refusal says ---------------------------------------------------------------------------


def refusal(found: Admission, plan: Generate | Upscale, spec: ModelSpec) -> InsufficientMemory:
    with pytest.raises(InsufficientMemory) as caught:
        found.check(plan, spec)
    return caught.value


def test_memory_refusal_names_the_model_and_size_that_fit(tmp_path: Path) -> None:
    found, spec = admission(tmp_path, 6.5), SPECS[EIGHT]
    wide = plan_of(spec, width_px=2048, height_px=1024, low_ram=True)
    error = refusal(found, wide, spec)
    model = error.details["model"]
    assert found.fits(wide.model_copy(update={"model": model, "quantize": SPECS[model].quantize}), SPECS[model])
    width, height = map(int, error.details["size"].split("x"))
    assert (width % 16, height % 16) == (0, 0)
    assert width / height == pytest.approx(2, abs=0.05)
    assert found.fits(plan_of(spec, width_px=width, height_px=height, low_ram=True), spec)
    assert not found.fits(plan_of(spec, width_px=width + 64, height_px=height + 32, low_ram=True), spec)
    for told in (error.message, model, error.details["size"], "6.5 GB", 'memory: "try"'):
        assert told in error.sentence


@pytest.mark.parametrize("name", ["qwen-image", "flux1-dev", "flux2-klein-9b"])
def test_memory_advice_names_equivalent_model_when_no_variant_fits(name: str, tmp_path: Path) -> None:
    error = refusal(admission(tmp_path, 4.5), plan_of(SPECS[name]), SPECS[name])
    assert error.details["model"] == FOUR
    assert FOUR in error.details["suggestion"]


def test_memory_advice_names_only_models_with_requested_capability(tmp_path: Path) -> None:
    spec = SPECS["flux1-dev-controlnet-canny"]
    plan = plan_of(spec, control=Control(kind="canny", image="x"))
    error = refusal(admission(tmp_path, 7.0), plan, spec)
    assert "model" not in error.details
    seven = SPECS["seedvr2-7b"]
    upscale = Upscale(model=seven.name, image="x", width_px=1024, height_px=1024, short_px=1024, seed=0)
    assert refusal(admission(tmp_path, 12.0), upscale, seven).details["model"].startswith("seedvr2")
    assert EMBEDDED not in refusal(admission(tmp_path, 0.4), upscale, seven).details["suggestion"]


# ---- tried all the same ----------------------------------------------------------------------------


def memory_of(job: Job) -> list[Adjustment]:
    return [told for told in job.adjustments if told.param == "memory"]


HUNGRY = {"active_bytes": 3 * GB, "peak_bytes": 6 * GB}
"""What was learned from a try must not make the next request fit."""
SCARCE = {"memory_limit_bytes": GB}
LARGE = {"width_px": 1024, "height_px": 1024}


async def test_job_with_try_anyway_is_drawn_with_memory_warning(tmp_path: Path) -> None:
    async with service_in(tmp_path, script={**SCARCE, **HUNGRY}, memory_is_set=True) as service:
        await until(lambda: service.engine.memory_limit_bytes == GB)
        with pytest.raises(InsufficientMemory):
            await submit(service, **LARGE)
        job = await drawn(service, **LARGE, memory="try")
        assert job.state is State.SUCCEEDED
        told = memory_of(job)
        assert len(told) == 1
        assert "1.0 GB" in told[0].reason
        again = await service.retry(job.id, "me")
        assert len(memory_of(again)) == 1


async def test_memory_try_anyway_job_that_fits_reports_nothing(tmp_path: Path) -> None:
    async with service_in(tmp_path) as service:
        assert memory_of(await drawn(service, memory="try")) == []


@pytest.mark.parametrize(
    ("script", "code"),
    [
        ({"oom_at_step": 2, "crash_times": 9}, "engine_oom"),
        ({"crash_at_step": 2, "crash_times": 9}, "engine_crash"),
        ({"crash_in": "load", "crash_times": 9}, "engine_crash"),
    ],
)
async def test_job_tried_anyway_that_fails_reports_warning_without_model_quarantine(
    script: dict[str, Any], code: str, tmp_path: Path
) -> None:
    async with service_in(tmp_path, script={**SCARCE, **script}) as service:
        await until(lambda: service.engine.memory_limit_bytes == GB)
        for _ in range(2):
            job = await drawn(service, **LARGE, memory="try")
            assert job.failure is not None
            assert (job.failure.code, job.attempt) == (code, 1), "it is not tried twice"
            assert "tried although it takes about" in job.failure.message
            assert "1.0 GB" in job.failure.message
        folder = await asyncio.to_thread(service.library.folder, service.library.find("toy"))
        assert not service.residency.is_set_aside(folder)


# ---- over HTTP -------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Live]:
    folder = tmp_path_factory.mktemp("fit")
    (folder / "big" / "transformer").mkdir(parents=True)
    (folder / "big" / "transformer" / "0.safetensors").touch()
    models = {"default": "big", "local": {"big": {"path": str(folder / "big"), "like": "flux2-klein-4b"}}}
    with live(folder, config={"models": models, "engine": {"memory_gb": 1}}, fake_script=HUNGRY) as gateway:
        yield gateway


BODIES: dict[str, dict[str, Any]] = {
    "/api/v1/generate": {"prompt": "x", "width": 1024, "height": 1024},
    "/sdapi/v1/txt2img": {"prompt": "x", "width": 1024, "height": 1024},
    "/v1/images/generations": {"prompt": "x", "size": "1024x1024"},
    "/v1/images/edits": {"prompt": "x", "size": "1024x1024", "image": None},
    "/api/generate": {"prompt": "x", "width": 1024, "height": 1024},
}


def body_of(path: str) -> dict[str, Any]:
    return {key: PICTURE if value is None else value for key, value in BODIES[path].items()}


@pytest.mark.parametrize("path", BODIES)
def test_memory_refusal_text_has_fitting_options_in_every_protocol(gateway: Live, path: str) -> None:
    answer = httpx.post(gateway.url + path, json=body_of(path), timeout=60)
    assert 400 <= answer.status_code < 500, answer.text
    body = answer.json()
    match path.split("/")[1]:
        case "sdapi":
            text = body["detail"][0]["msg"]
        case "v1":
            text = body["error"]["message"]
            assert body["detail"] == text
        case _ if path == "/api/generate":
            text = body["errors"]["model"]
        case _:
            text = body["details"]["explanation"]
            assert body["details"]["available_gb"] == 1.0
    assert "there are 1.0 GB" in text
    assert "Use " in text or "Set low_ram=true" in text


@pytest.mark.parametrize("path", BODIES)
def test_memory_try_anyway_is_available_and_reported_in_every_protocol(gateway: Live, path: str) -> None:
    answer = httpx.post(gateway.url + path, json={**body_of(path), "memory": "try"}, timeout=60)
    assert answer.status_code == 200, answer.text
    assert "so that it may fail" in answer.text
    wrong = httpx.post(gateway.url + path, json={**body_of(path), "memory": "whatever"}, timeout=60)
    assert wrong.status_code >= 400
    assert "memory" in wrong.text


def test_a1111_client_sets_option_in_override_settings(gateway: Live) -> None:
    said = {**BODIES["/sdapi/v1/txt2img"], "override_settings": {"memory": "try"}}
    answer = httpx.post(f"{gateway.url}/sdapi/v1/txt2img", json=said, timeout=60)
    assert answer.status_code == 200, answer.text
    told = json.loads(answer.json()["info"])["adjustments"]
    assert [one["param"] for one in told if "memory" in one["param"]] == ["memory"]


def test_model_load_that_may_not_fit_memory_can_be_tried(tmp_path: Path) -> None:
    (tmp_path / "big" / "transformer").mkdir(parents=True)
    with (tmp_path / "big" / "transformer" / "0.safetensors").open("wb") as file:
        file.truncate(16 * GB)
    models = {"local": {"big": {"path": str(tmp_path / "big"), "like": "flux2-klein-4b"}}}
    config = {"models": models, "engine": {"memory_gb": 1}}
    with (
        live(tmp_path, config=config, fake_script=HUNGRY) as gateway,
        httpx.Client(base_url=gateway.url, timeout=60) as client,
        httpx.Client(base_url=f"{gateway.url}/api/v1", timeout=60) as ours,
    ):
        native = "/api/v1/models/big/load"
        assert client.post(native).json()["code"] == "OOM_ERROR"
        job = client.post(native, params={"memory": "try"}).json()
        assert ended(ours, job["job_id"])["status"] == "completed"
        client.post("/api/v1/models/big/unload")
        assert client.post("/v1/models", json={"model_name": "big"}).status_code == 400
        assert client.post("/v1/models", json={"model_name": "big", "memory": "try"}).status_code == 200
        client.post("/api/v1/models/big/unload")
        assert client.post("/api/load", json={"model": "big"}).status_code == 400
        assert client.post("/api/load", json={"model": "big", "memory": "try"}).status_code == 200
        client.post("/api/v1/models/big/unload")
        options = {"sd_model_checkpoint": "big"}
        assert client.post("/sdapi/v1/options", json=options).status_code == 422
        assert client.post("/sdapi/v1/options", json={**options, "memory": "try"}).status_code == 200


def test_model_default_and_its_reason_are_in_system_info(gateway: Live) -> None:
    shown = httpx.get(f"{gateway.url}/api/v1/system", timeout=30).json()["default_model"]
    assert (shown["name"], shown["chosen_by"], shown["limit_gb"], shown["fits"]) == ("big", "operator", 1.0, False)
    assert (shown["limit_from"], shown["suggestion"] is not None) == ("setting", True)
    assert "such requests are refused" in shown["sentence"]
    assert "such requests are refused" in gateway.logged()
    found = httpx.get(f"{gateway.url}/api/v1/findings", timeout=30).json()["findings"]
    assert "default model" in [row["what"] for row in found]


def test_memory_advice_is_in_studio_with_a_try_anyway_button(gateway: Live) -> None:
    with chromium() as browser, studio(browser, gateway) as tab:
        page = tab.page
        page.click("#open-models")
        page.wait_for_selector("#default-model:has-text('Default: big. A picture of 1024x1024 takes about')")
        page.keyboard.press("Escape")
        assert page.is_hidden("#try")
        tab.draw("a picture to try", width=1024, height=1024)
        page.wait_for_selector("#refusal:has-text('and there are 1.0 GB')")
        tab.complaints = [text for text in tab.complaints if "status of 400" not in text]
        page.click("#try")
        page.wait_for_selector(".toast:has-text('so that it may fail')")
        tab.see("a picture to try")
        assert page.is_hidden("#try")


def test_memory_advice_is_in_command_line_with_a_try_anyway_flag(gateway: Live, tmp_path: Path) -> None:
    def typed(*more: str) -> subprocess.CompletedProcess[str]:
        words = ["generate", "x", "-o", str(tmp_path / "x.png"), "--size", "1024x1024", "--url", gateway.url, *more]
        command = [sys.executable, "-m", "api_main", *words]
        return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=100, check=False)

    refused = typed()
    assert refused.returncode == 1
    assert "and there are 1.0 GB" in " ".join(refused.stderr.split())
    assert "--memory try" in " ".join(refused.stderr.split())
    tried = typed("--memory", "try")
    assert tried.returncode == 0, tried.stderr
    assert "memory: it takes about" in " ".join(tried.stderr.split())
