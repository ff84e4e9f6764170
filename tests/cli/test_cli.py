"""mflux-gateway on the command line, against real gateways, as people type it."""

from __future__ import annotations

import contextlib
import io
import json
import os
import pty
import random
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from PIL import Image

from api_main import serve
from engine.catalog import CATALOG
from gateway import __version__
from gateway.cli import options
from gateway.cli.app import main
from gateway.cli.words import clipped, seconds
from tests.support.live import ROOT, Live, free_port, live
from tests.support.toy_hub import ToyHub, hub_with

SLOW = {"step_seconds": 0.3}
KEY = "0123456789abcdef0123456789abcdef"
PULLED, GATED = "flux2-klein-4b", "flux2-klein-base-4b"
REPOS = {spec.name: spec.repo or "" for spec in CATALOG}
BIG = "transformer/model.safetensors"
FILES = {
    BIG: random.Random(4).randbytes(2_000_000),
    "vae/model.safetensors": b"v",
    "text_encoder/model.safetensors": b"t",
    "tokenizer/tokenizer.json": b"{}",
}


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ToyHub]:
    with hub_with((PULLED, GATED), FILES, tmp_path_factory.mktemp("hub")) as hub:
        yield hub


@pytest.fixture(scope="module")
def running(hub: ToyHub, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Live]:
    folder = tmp_path_factory.mktemp("gateway")
    config = {"models": {"cache_dir": str(folder / "models")}}
    with live(folder, config=config, fake_script={"step_seconds": 0.005}) as gateway:
        yield gateway


@pytest.fixture(scope="module")
def slow(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Live]:
    """One that wants a key, and takes its time."""
    folder = tmp_path_factory.mktemp("slow")
    keys = folder / "keys"
    keys.write_text(f"me {KEY}\n")
    keys.chmod(0o600)
    with live(folder, ready=False, fake_script=SLOW, arguments=("--keys-file", str(keys))) as gateway:
        yield gateway


@pytest.fixture
def run(
    running: Live, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., tuple[int, str, str]]:
    """A command in an empty folder: its exit code, and what it printed to stdout and stderr."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MFLUX_GATEWAY_URL", running.url)
    monkeypatch.setattr(options.out, "width", 200)

    def typed(*words: str) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as left:
            main(words, {"serve": serve})
        return (int(left.value.code or 0), *capsys.readouterr())

    return typed


def typed_in_a_shell(*words: str, folder: Path, **more: str) -> subprocess.Popen[str]:
    env = {**os.environ, "PYTHONPATH": str(ROOT), **more}
    return subprocess.Popen(
        [sys.executable, "-m", "api_main", *words],
        cwd=folder,
        env=env,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def submit(gateway: Live, **body: Any) -> str:
    answer = httpx.post(f"{gateway.url}/api/v1/generate", json={"prompt": "a cat", **body})
    return str(answer.json()["job_id"])


def wait_for(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.05)


# ---- generate ------------------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "format_"), [("a.png", "PNG"), ("a.jpg", "JPEG"), ("a.webp", "WEBP")])
def test_cli_generate_saves_an_image_in_the_format_of_the_file_name(run: Any, name: str, format_: str) -> None:
    code, out, _ = run("generate", "a red apple", "-o", name, "--size", "128x64", "--seed", "7")
    assert code == 0
    assert "seed 7" in out
    with Image.open(name) as picture:
        assert (picture.format, picture.size) == (format_, (128, 64))


def test_cli_generate_of_several_images_numbers_files_and_seeds_consecutively(run: Any) -> None:
    code, out, _ = run("generate", "a red apple", "-n", "3", "--seed", "5", "-q")
    assert (code, out.split()) == (0, ["picture-1.png", "picture-2.png", "picture-3.png"])
    assert all(Path(name).is_file() for name in out.split())


def test_cli_generate_sends_input_images_and_masks(run: Any) -> None:
    Image.new("RGB", (64, 64), "red").save("in.png")
    Image.new("L", (64, 64), 255).save("mask.png")
    words = ("--init-image", "in.png", "--mask", "mask.png", "--image-strength", "0.5", "--json", "--size", "64x64")
    code, out, _ = run("generate", "a red apple", "-o", "out.png", *words)
    assert code == 0
    job = json.loads(out)
    assert (job["type"], job["files"]) == ("img2img", ["out.png"])


def test_cli_generate_reports_adjusted_parameters_beside_the_result(run: Any) -> None:
    code, out, err = run("generate", "a red apple", "--steps", "50")
    assert code == 0
    assert "8 instead of 50" in err
    assert "8 steps" in out


def test_cli_generate_overwrites_an_existing_file_only_with_force(run: Any) -> None:
    Path("picture.png").write_text("mine")
    code, _, err = run("generate", "a red apple")
    assert (code, Path("picture.png").read_text()) == (2, "mine")
    assert "--force" in err
    assert run("generate", "a red apple", "--force")[0] == 0


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (("generate", "x", "--size", "wide"), 2, "1024x768"),
        (("generate", "x", "-o", "x.gif"), 2, ".webp"),
        (("generate", "x", "-o", "nowhere/x.png"), 2, "does not exist"),
        (("generate", "x", "--lora", "night:much"), 2, "NAME:0.8"),
        (("generate", "x", "--init-image", "none.png"), 2, "cannot be read"),
        (("generate", "x", "--model", "dreams"), 1, "'dreams' not found"),
        (("generate", "x", "--steps", "0"), 1, "steps"),
        (("jobs", "none"), 1, "No such job"),
        (("jobs", "../../stats"), 2, "id of a job"),
        (("models", "info", "dreams"), 1, "'dreams' not found"),
    ],
)
def test_cli_error_is_one_sentence_and_an_exit_code(run: Any, words: tuple[str, ...], code: int, said: str) -> None:
    left, _, err = run(*words)
    assert (left, said in err) == (code, True), err
    assert "Traceback" not in err


def test_cli_image_goes_to_standard_output(running: Live, tmp_path: Path) -> None:
    words = [sys.executable, "-m", "api_main", "generate", "a red apple", "-o", "-", "--size", "64x64"]
    env = {**os.environ, "PYTHONPATH": str(ROOT), "MFLUX_GATEWAY_URL": running.url}
    made = subprocess.run(words, cwd=tmp_path, env=env, capture_output=True, timeout=60)
    assert made.returncode == 0, made.stderr
    with Image.open(io.BytesIO(made.stdout)) as picture:
        assert (picture.format, picture.size) == ("PNG", (64, 64))


def test_cli_output_of_several_images_cannot_be_standard_output(run: Any) -> None:
    code, _, err = run("generate", "a red apple", "-o", "-", "-n", "2")
    assert (code, "one image" in err) == (2, True)


def test_cli_lines_are_whole_in_a_pipe(running: Live, tmp_path: Path) -> None:
    listed = typed_in_a_shell("models", "list", "--all", folder=tmp_path, MFLUX_GATEWAY_URL=running.url)
    out, err = listed.communicate(timeout=60)
    assert listed.returncode == 0, err
    assert "…" not in out
    assert max(map(len, out.splitlines())) > 80


def test_cli_prompt_can_be_read_from_standard_input(run: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO("a red apple\n"))
    assert json.loads(run("generate", "-", "--json")[1])["prompt"] == "a red apple"


# ---- queue, jobs, cancel -------------------------------------------------------------------------


def test_cli_jobs_wait_in_a_paused_queue_and_can_be_moved_cancelled_and_resumed(run: Any) -> None:
    assert run("queue", "pause")[1] == "Paused.\n"
    ids = [run("generate", text, "--no-wait")[1].strip() for text in ("an egg", "a bee", "a cow")]
    assert run("queue", "move", ids[2], "front")[1] == "0 jobs before it.\n"
    shown = run("queue")[1]
    assert shown.index("a cow") < shown.index("an egg") < shown.index("a bee")
    assert "paused" in shown
    code, out, _ = run("cancel", ids[0], "nobody")
    assert (code, f"{ids[0]}: cancelled" in out, "No such job" in out) == (1, True, True)
    assert run("queue", "resume")[0] == 0
    wait_for(lambda: "completed" in run("jobs", ids[1])[1])
    assert "The queue is empty" in run("queue")[1]
    rows = json.loads(run("jobs", "--json", "--status", "cancelled")[1])["jobs"]
    assert ids[0] in [row["id"] for row in rows]
    assert ids[2] in run("jobs")[1]


def test_cli_workers_are_listed_drained_and_resumed(run: Any) -> None:
    assert re.search("gateway +(ready|starting)", run("workers")[1])
    assert [row["name"] for row in json.loads(run("workers", "--json")[1])] == ["gateway"]
    assert run("workers", "drain", "gateway")[1] == "gateway begins no more jobs; nothing runs there.\n"
    try:
        shown = run("workers")[1]
        assert "draining" in shown
        assert "gateway: This worker takes no more jobs" in shown
        code, _, err = run("workers", "drain", "no body")
        assert (code, "No worker of this name" in err) == (1, True)
    finally:
        assert run("workers", "resume", "gateway")[1] == "gateway runs jobs again.\n"
    assert "draining" not in run("workers")[1]


def test_cli_output_contains_no_terminal_control_codes_from_job_texts(run: Any, running: Live) -> None:
    job = submit(running, prompt="\x1b[2J[bold]red\x07\nFAKE")
    for words in (("jobs",), ("jobs", job), ("queue",)):
        _, out, err = run(*words)
        assert not re.search(r"[\x00-\x09\x0b-\x1f]", out + err)
        assert words == ("queue",) or "[bold]red" in out


def test_sampling_that_a_model_does_not_honour_is_printed(run: Any) -> None:
    words = ("--sampler", "DPM++ 2M", "--scheduler", "karras", "--clip-skip", "2", "--negative", "blue")
    code, _, told = run("generate", "a red circle", "--size", "64x64", "-o", "sampled.png", *words)
    assert code == 0
    for name in ("sampling.sampler", "sampling.schedule", "sampling.clip_skip", "negative_prompt"):
        assert name in told


def test_models_and_loras_are_listed(run: Any) -> None:
    assert "flux2-tiny (default)" in run("models", "list")[1]
    names = [model["title"] for model in json.loads(run("models", "list", "--all", "--json")[1])]
    assert {"flux2-tiny", "flux2-klein-4b"} <= set(names)
    assert "native_px" in run("models", "info", "flux2-tiny")[1]
    assert re.search("night +flux2-tiny", run("loras", "list")[1])


def test_cli_pull_shows_bytes_stops_at_ctrl_c_and_resumes_where_it_stopped(
    run: Any, running: Live, hub: ToyHub, tmp_path: Path
) -> None:
    hub.hold_at[BIG] = 1_500_000
    ours, theirs = pty.openpty()
    env = {**os.environ, "PYTHONPATH": str(ROOT), "TERM": "xterm", "COLUMNS": "120"}
    command = [sys.executable, "-m", "api_main", "models", "pull", PULLED]
    process = subprocess.Popen(command, cwd=tmp_path, env=env, stdin=theirs, stdout=theirs, stderr=theirs)
    os.close(theirs)
    seen = ""
    while not re.search(r"[01]\.[1-9]/2\.0 MB", seen):
        seen += os.read(ours, 65536).decode()
    assert "downloading" in run("models", "list")[1]
    process.send_signal(signal.SIGINT)
    with contextlib.suppress(OSError):  # Linux's end of file
        while more := os.read(ours, 65536).decode():
            seen += more
    os.close(ours)
    assert (process.wait(60), "pull again to continue" in seen) == (130, True)
    assert PULLED not in run("models", "list")[1]
    hub.hold_at.clear()
    assert run("models", "pull", PULLED)[:2] == (0, f"{PULLED} is on disk.\n")
    assert [one.headers.get("range", "")[:7] for one in hub.bodies() if one.host == "other"] == ["", "bytes=1"]
    assert json.loads(run("models", "info", PULLED, "--json")[1])["status"] == "ready"
    assert run("models", "remove", PULLED, "-y")[:2] == (0, f"{PULLED} is removed.\n")
    code, _, err = run("models", "remove", PULLED, "-y")
    assert (code, "not on this machine" in err) == (1, True)
    hub.refusals[REPOS[GATED]] = (403, "GatedRepo")
    code, _, err = run("models", "pull", GATED)
    assert (code, "accept its licence at" in err) == (1, True)


# ---- gateways that are not there, go away, or want a key -----------------------------------------


def test_cli_without_a_gateway_has_its_own_exit_code(run: Any) -> None:
    nowhere = f"http://127.0.0.1:{free_port()}"
    for words in (("queue",), ("generate", "x"), ("jobs",), ("cancel", "x")):
        code, _, err = run(*words, "--url", nowhere)
        assert (code, "mflux-gateway serve" in err) == (3, True)


def test_cli_generate_starts_a_gateway_for_the_call_and_stops_it_afterwards(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text(
        json.dumps({"server": {"port": free_port()}, "models": {"default": "flux2-tiny"}})
    )
    process = typed_in_a_shell("generate", "a red circle on a blue background", "-o", "a.png", folder=tmp_path)
    out, err = process.communicate(timeout=110)
    assert process.returncode == 0, err
    assert "flux2-tiny, 4 steps" in out
    with Image.open(tmp_path / "a.png") as picture:
        red, _, blue = picture.convert("RGB").getpixel((2, 2))  # type: ignore[misc]
        assert blue > 2 * red
    listed = typed_in_a_shell("jobs", "--json", folder=tmp_path)
    assert "a red circle" in listed.communicate(timeout=110)[0]


def test_cli_generate_reports_why_the_gateway_cannot_start(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text("server: {host: 0.0.0.0}")
    process = typed_in_a_shell("generate", "x", folder=tmp_path)
    _, err = process.communicate(timeout=110)
    assert process.returncode == 2
    assert "access.keys_file" in err


def generating(gateway: Live) -> list[str]:
    """The jobs that are drawn now."""
    answer = httpx.get(f"{gateway.url}/api/v1/jobs?status=generating", headers={"X-API-Key": KEY})
    return [job["id"] for job in answer.json()["jobs"]]


def generates(gateway: Live, folder: Path) -> tuple[subprocess.Popen[str], str]:
    """A shell whose picture is being drawn, and the job."""
    env = {"MFLUX_GATEWAY_URL": gateway.url, "MFLUX_GATEWAY_KEY": KEY}
    process = typed_in_a_shell("generate", "x", "--steps", "8", folder=folder, **env)
    drawn: list[str] = []
    wait_for(lambda: bool(drawn.extend(generating(gateway)) or drawn))
    return process, drawn[0]


def test_cli_ctrl_c_cancels_the_job_and_a_cancel_elsewhere_ends_the_wait(slow: Live, tmp_path: Path) -> None:
    codes = []
    for end in ("here", "elsewhere"):
        process, name = generates(slow, tmp_path)
        job = f"{slow.url}/api/v1/jobs/{name}"
        if end == "here":
            process.send_signal(signal.SIGINT)
        else:
            httpx.delete(job, headers={"X-API-Key": KEY})
        process.communicate(timeout=60)
        codes.append(process.returncode)
        assert httpx.get(job, headers={"X-API-Key": KEY}).json()["status"] == "cancelled"
    assert codes == [130, 4]
    assert not list(tmp_path.glob("picture*"))


def test_cli_api_key_is_read_from_the_environment(slow: Live, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    for key, code in (("", 1), (KEY, 0)):
        monkeypatch.setenv("MFLUX_GATEWAY_KEY", key)
        with pytest.raises(SystemExit) as left:
            main(["jobs", "--url", slow.url], {"serve": serve})
        assert left.value.code == code
        assert ("MFLUX_GATEWAY_KEY" in capsys.readouterr().err) == bool(code)


def test_gateway_killed_and_restarted_still_delivers_the_image(slow: Live, tmp_path: Path) -> None:
    process, _ = generates(slow, tmp_path)
    slow.stop(signal.SIGKILL)
    slow.start(ready=False)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 0, err
    assert (tmp_path / "picture.png").is_file()


# ---- doctor, completion, words -------------------------------------------------------------------


def test_doctor_reports_what_is_present_and_what_is_missing(tmp_path: Path) -> None:
    well = typed_in_a_shell("doctor", "--json", folder=tmp_path, MFLUX_API_PORT=str(free_port()))
    found = {row["what"]: row for row in json.loads(well.communicate(timeout=110)[0])}
    assert well.returncode == 0
    assert found["mflux"]["health"] == "ok"
    assert found["models"]["found"].startswith("on disk: flux2-tiny")
    assert found["running"]["remedy"] == "mflux-gateway serve"
    keys = tmp_path / "keys"
    keys.write_text("me 0123456789abcdef0123456789abcdef\n")
    keys.chmod(0o644)
    (tmp_path / "config.yaml").write_text(
        json.dumps({"access": {"keys_file": str(keys)}, "models": {"default": "flux2-klein-4b"}})
    )
    ill = typed_in_a_shell("doctor", folder=tmp_path, MFLUX_API_PORT=str(free_port()), COLUMNS="300")
    out = ill.communicate(timeout=110)[0]
    assert ill.returncode == 1
    assert "chmod 600" in out
    assert "mflux-gateway models pull flux2-klein-4b" in out


def test_cli_shell_completion_lists_the_commands(tmp_path: Path) -> None:
    asked = {"_MFLUX_GATEWAY_COMPLETE": "complete_bash", "COMP_WORDS": "mflux-gateway ge", "COMP_CWORD": "1"}
    assert typed_in_a_shell(folder=tmp_path, **asked).communicate(timeout=60)[0].split() == ["generate"]


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (("help",), 0, "Commands:"),
        (("generate", "-h"), 0, "Usage: mflux-gateway generate"),
        (("version",), 0, f"mflux-gateway {__version__}"),
        (("jbos",), 2, "No such command 'jbos'. Did you mean 'jobs'?"),
        (("generate", " "), 2, "must not be empty"),
    ],
)
def test_entry_point_helps_with_a_word_that_is_no_job(
    words: tuple[str, ...], code: int, said: str, tmp_path: Path
) -> None:
    process = typed_in_a_shell(*words, folder=tmp_path)
    out, err = process.communicate(timeout=60)
    assert (process.returncode, said in out + err) == (code, True), out + err


def test_cli_formats_durations_and_clipped_texts() -> None:
    assert [seconds(value) for value in (None, 0.04, 42.4, 187, 3723)] == ["", "0.0 s", "42 s", "3:07", "1:02:03"]
    assert clipped("a\x1b[2Jb\n" + "c" * 60, 10) == "a [2Jb cc…"
