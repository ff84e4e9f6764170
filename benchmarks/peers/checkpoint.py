"""The checkpoint that every server draws with: the embedded model's weights as a FLUX.2 Klein, in mflux's layout.

In float32, since mflux computes with the precision that such a checkpoint has. The names of its parts, sizes and
tokens are the embedded model's; a prompt is padded to 512 tokens, as by mflux for every FLUX.2 Klein.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

from benchmarks.peers.bare import LOAD, environment
from engine.catalog import EMBEDDED_PATH

NAME = "flux2-klein-4b-qfull"
"""Of its folder, as mfluxible names a copy that is not quantised; what mflux guesses from it is right."""
PARTS = ("transformer", "text_encoder", "vae")
SAVE = f"{LOAD}\nmodel.save_model(sys.argv[2])"
SAVE_S = 120


def checkpoint_in(home: Path) -> Path:
    """The folder of the checkpoint, which is made where there is none."""
    folder = home / "models" / NAME
    if folder.exists():
        return folder
    draft = home / "models" / f".{NAME}"
    shutil.rmtree(draft, ignore_errors=True)
    draft.mkdir(parents=True)
    subprocess.run(
        [sys.executable, "-c", SAVE, str(EMBEDDED_PATH), str(draft)],
        env=environment(EMBEDDED_PATH, home),
        stdout=subprocess.DEVNULL,
        timeout=SAVE_S,
        check=True,
    )
    for part in PARTS:
        shutil.copyfile(EMBEDDED_PATH / part / "config.json", draft / part / "config.json")
    shutil.copytree(EMBEDDED_PATH / "tokenizer", draft / "tokenizer", dirs_exist_ok=True)
    draft.rename(folder)
    return folder
