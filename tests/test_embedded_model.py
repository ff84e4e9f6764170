"""The embedded model as shipped: size, drawing by prompt, determinism, quantising, img2img."""

import json
import os
import subprocess
import sys
from ctypes.util import find_library
from pathlib import Path

import pytest

MODEL = Path(__file__).resolve().parents[1] / "engine" / "embedded" / "flux2-tiny"
MAX_BYTES = 18_000_000
PROMPTS = (
    ("a red circle on a blue background", "blue", "red"),
    ("a pink heart on black", "black", "pink"),
    ("yellow background, one purple square", "yellow", "purple"),
    ("Draw a green triangle on a white background", "white", "green"),
)

DRAW = """
import hashlib, json, sys
from engine.families.flux2_tiny import NATIVE_PX, NATIVE_STEPS, build
from tools.train_embedded.reading import background, objects

path, source, jobs = sys.argv[1], sys.argv[2], json.loads(sys.argv[3])
models, results = {}, []
for job in jobs:
    bits = job.get("quantize")
    if bits not in models:
        models[bits] = build(path, quantize=bits)
    picture = models[bits].generate_image(
        seed=job["seed"], prompt=job["prompt"], num_inference_steps=NATIVE_STEPS, height=NATIVE_PX, width=NATIVE_PX,
        guidance=job.get("guidance", 1.0), image_path=source if job.get("strength") else None,
        image_strength=job.get("strength"),
    ).image
    if job.get("keep"):
        picture.save(source)
    things = objects(picture)
    results.append({
        "background": background(picture),
        "colours": [thing.colour for thing in things],
        "pixels": hashlib.sha256(picture.tobytes()).hexdigest(),
        "size": picture.size,
    })
print("RESULTS " + json.dumps(results))
"""


def _jobs() -> list[dict]:
    jobs = [{"prompt": text, "seed": seed} for text, _, _ in PROMPTS for seed in (1, 2, 3)]
    circle = PROMPTS[0][0]
    jobs.append({"prompt": circle, "seed": 1, "keep": True})
    jobs.append({"prompt": circle, "seed": 1, "quantize": 8})
    jobs.append({"prompt": circle, "seed": 1, "quantize": 4})
    jobs.append({"prompt": circle, "seed": 1, "guidance": 2.0})
    jobs.append({"prompt": circle, "seed": 5, "strength": 0.75})
    jobs.append({"prompt": "", "seed": 1})
    return jobs


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> list[dict]:
    """Results of all jobs, drawn in one child process with OpenBLAS where the library is found."""
    pytest.importorskip("mlx.core")
    pytest.importorskip("mflux")
    env = os.environ | {"PYTHONPATH": str(MODEL.parents[2]), "OPENBLAS_NUM_THREADS": "1"}
    if sys.platform == "linux" and (blas := find_library("openblas")):
        env["LD_PRELOAD"] = blas
    source = tmp_path_factory.mktemp("embedded") / "source.png"
    command = [sys.executable, "-c", DRAW, str(MODEL), str(source), json.dumps(_jobs())]
    child = subprocess.run(command, env=env, capture_output=True, text=True, timeout=300, check=False)
    assert child.returncode == 0, child.stderr[-2000:]
    line = next(line for line in child.stdout.splitlines() if line.startswith("RESULTS "))
    return json.loads(line.removeprefix("RESULTS "))


def test_folder_is_small_and_plain() -> None:
    files = [path for path in MODEL.rglob("*") if path.is_file()]
    assert {path.suffix for path in files} <= {".safetensors", ".json", ".txt"}
    assert sum(path.stat().st_size for path in files) <= MAX_BYTES
    assert {path.parent.name for path in files} >= {"transformer", "text_encoder", "vae", "tokenizer"}


def test_training_is_recorded_without_traces_of_a_machine() -> None:
    text = (MODEL / "training.json").read_text(encoding="utf-8")
    facts = json.loads(text)
    assert {"seed", "machine", "versions", "vae", "flow"} <= facts.keys()
    assert '"/' not in text, "an absolute path"


def test_follows_the_prompt(drawn: list[dict]) -> None:
    wanted = [(ground, colour) for _, ground, colour in PROMPTS for _ in range(3)]
    results = drawn[: len(wanted)]
    right = [
        result["background"] == ground and result["colours"][:1] == [colour]
        for (ground, colour), result in zip(wanted, results, strict=True)
    ]
    assert [result["background"] for result in results] == [ground for ground, _ in wanted]
    assert sum(right) >= len(right) * 0.6, list(zip(wanted, results, strict=True))
    assert all(result["size"] == [128, 128] for result in results)


def test_seed_decides_the_pixels(drawn: list[dict]) -> None:
    first, second = drawn[0]["pixels"], drawn[1]["pixels"]
    again = drawn[3 * len(PROMPTS)]["pixels"]
    assert first == again
    assert first != second


def test_other_ways_to_draw(drawn: list[dict]) -> None:
    eight_bit, four_bit, guided, from_image, blank = drawn[3 * len(PROMPTS) + 1 :]
    for result in (eight_bit, four_bit, guided, from_image):
        assert (result["background"], result["colours"][:1]) == ("blue", ["red"])
    assert blank["size"] == [128, 128]
