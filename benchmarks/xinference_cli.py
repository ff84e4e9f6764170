"""Xinference's command line against a gateway with the fake engine: python -m benchmarks.xinference_cli [PATH]

PATH is its `xinference` program, by default the one that the shell finds. It needs torch, so no test installs it (`uv
tool install xinference==4.1.0`). Each command is run as a user types it, without a key, with --api-key, and after
`xinference login`; a command that fails, or shows a traceback, ends this with an error.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from tests.support.v1 import MODEL, gateway

KEY = "operators-key-of-some-length"
IMAGE = ("--model-type", "image")
SESSION: tuple[tuple[tuple[str, ...], str], ...] = (
    (("launch", "--model-name", "flux2-tiny", *IMAGE), "Model uid: flux2-tiny"),
    (("launch", "--model-name", MODEL, *IMAGE, "--model-uid", "mine", "--n-gpu", "none"), "Model uid: mine"),
    (("list",), "mine"),
    (("registrations", *IMAGE), "flux2-klein-4b"),
    (("cached",), "flux2-tiny"),
    (("terminate", "--model-uid", "mine"), ""),
    (("terminate", "--model-uid", "flux2-tiny"), ""),
)
"""Commands that work, and the text that each shows."""
REFUSED: tuple[tuple[tuple[str, ...], str], ...] = (
    (("registrations",), "Unsupported model type: LLM"),
    (("engine", "--model-name", MODEL), "Unsupported model type: LLM"),
    (("launch", "--model-name", MODEL, "--model-type", "embedding"), "Only models of type 'image' are served"),
    (("launch", "--model-name", "none-such", *IMAGE), "Model 'none-such' not found"),
    (("terminate", "--model-uid", "mine"), "Model 'mine' not found"),
)
"""Commands that fail, and the gateway's error message that each shows."""


def run(program: str, home: Path, url: str, arguments: tuple[str, ...]) -> tuple[int, str, float]:
    """Exit status, all output, and seconds."""
    environment = {**os.environ, "XINFERENCE_ENDPOINT": url, "XINFERENCE_HOME": str(home), "HOME": str(home)}
    began = time.perf_counter()
    done = subprocess.run((program, *arguments), env=environment, capture_output=True, text=True, timeout=300)
    return done.returncode, done.stdout + done.stderr, time.perf_counter() - began


def check(program: str, home: Path, url: str, said: tuple[str, ...], shows: str, *, works: bool) -> None:
    """Raises: SystemExit where the command does not do what it should."""
    status, output, seconds = run(program, home, url, said)
    print(f"{seconds:5.1f} s  {'works' if status == 0 else 'fails'}  xinference {' '.join(said)}", flush=True)
    if (status == 0) is not works or shows not in output:
        raise SystemExit(output)


def main() -> None:
    program = sys.argv[1] if len(sys.argv) > 1 else shutil.which("xinference")
    if program is None:
        raise SystemExit("xinference is not installed: `uv tool install xinference==4.1.0`")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "open").mkdir()
        (folder / "locked").mkdir()
        with gateway(folder / "open", load_seconds=1.0) as running:
            for said, shows in SESSION:
                check(program, folder, running.url, said, shows, works=True)
            for said, shows in REFUSED:
                check(program, folder, running.url, said, shows, works=False)
        keys = folder / "keys"
        keys.write_text(f"boss {KEY}\n")
        keys.chmod(0o600)
        access = {"access": {"keys_file": str(keys), "operators": ["boss"]}}
        with gateway(folder / "locked", access, ready=False, load_seconds=1.0) as running:
            check(program, folder, running.url, ("list",), "please login first", works=False)
            for said, shows in SESSION:
                check(program, folder, running.url, (*said, "--api-key", KEY), shows, works=True)
            for password, shows in (("wrong", "A valid API key is required"), (KEY, "")):
                said = ("login", "--username", "boss", "--password", password)
                check(program, folder, running.url, said, shows, works=password == KEY)
            for said, shows in SESSION:
                check(program, folder, running.url, said, shows, works=True)


if __name__ == "__main__":
    main()
