"""FLUX.2 Klein 4B's geometry with random weights, by the gateway and by mflux alone: parts of benchmarks/gpu.py."""

from __future__ import annotations

import base64
import contextlib
import io
import os
import shutil
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import numpy as np
from PIL import Image

from benchmarks.gpu_bare import Bare
from benchmarks.gpu_health import Health
from benchmarks.gpu_report import Row
from benchmarks.gpu_setup import LIKE, Emit, Lacking, Setup
from engine.catalog import ModelSpec
from engine.protocol import Generate
from gateway.models.weights import weights_bytes
from gateway.residency.footprint import GB, Footprint, guess
from tests.support import PRELOADED
from tests.support.engine import SPECS
from tests.support.forked import ANEW
from tests.support.live import Live
from tests.support.toys import CHAT_TEMPLATE, TOYS

WEIGHTS, CLIENTS, CACHE = "weights", "clients", "cache"
NAME = "klein"
"""Name of the model in the gateway."""
DISK_GB = 20.0
STEPS, MORE_STEPS = 4, 8
IMAGES = 4
CLIENT_COUNT = 4
SMALL_PX = 64
LEAST_STEP_S = 0.001
CANCELS = 3
LARGE_CACHE_GB = 16.0
TIMEOUT_S = 300.0

RATIO_MOST = 1.01
FOUR_MOST = 0.9
ESTIMATE_MOST = 1.25
"""Measured memory as a share of the estimate; the same bound as in docs/memory.md."""
CANCEL_MOST = 1.1
"""Steps: one, and a tenth of one for the requests."""
HEALTH_MOST_MS = 3.0


def save_weights(setup: Setup, emit: Emit) -> None:
    """The model with random weights in bfloat16, as mflux saves one. Raises: Lacking for too little room on disk."""
    if has_weights(setup):
        return
    if not setup.tiny and (free_gb := shutil.disk_usage(setup.work).free / GB) < DISK_GB:
        raise Lacking(f"{setup.work} has {free_gb:.0f} GB free, the weights take {DISK_GB:.0f}")
    began = time.monotonic()
    shutil.rmtree(setup.weights, ignore_errors=True)
    if setup.tiny:
        toy = next(one for one in TOYS if one.name == LIKE)
        with toy.in_place():
            toy.save(setup.weights)
    else:
        save_klein(setup.weights)
    mark_of(setup).touch()
    size_gb = weights_bytes(setup.weights) / GB
    emit(Row(WEIGHTS, f"{size_gb:.1f} GB of random weights saved", time.monotonic() - began, "s"))


def mark_of(setup: Setup) -> Path:
    """File that exists once all weights are saved."""
    return setup.weights.with_suffix(".saved")


def has_weights(setup: Setup) -> bool:
    return mark_of(setup).exists()


def save_klein(folder: Path, narrow: int = 1) -> None:
    """Save Klein 4B by mflux's own numbers, with `narrow` a fraction of its width, at its whole depth."""
    import mlx.core as mx
    from mflux.models.common.config.model_config import AVAILABLE_MODELS
    from mflux.models.common.weights.saving.model_saver import ModelSaver
    from mflux.models.flux2.model.flux2_text_encoder.qwen3_text_encoder import Qwen3TextEncoder
    from mflux.models.flux2.model.flux2_transformer.transformer import Flux2Transformer
    from mflux.models.flux2.model.flux2_vae.vae import Flux2VAE
    from mflux.models.flux2.weights.flux2_weight_definition import Flux2KleinWeightDefinition

    from tests.support.engine_toy import save_toy_tokenizer

    config = AVAILABLE_MODELS[LIKE]
    transformer = {**config.transformer_overrides}
    text_encoder = {**config.text_encoder_overrides}
    if narrow > 1:
        transformer |= {name: transformer[name] // narrow for name in ("num_attention_heads", "joint_attention_dim")}
        text_encoder = {name: width // narrow for name, width in text_encoder.items()} | {"vocab_size": 320}
    parts: dict[str, Any] = {
        "vae": Flux2VAE(),
        "transformer": Flux2Transformer(**transformer),
        "text_encoder": Qwen3TextEncoder(**text_encoder),
    }
    mx.random.seed(1)
    for part in parts.values():
        part.set_dtype(mx.bfloat16)
    ModelSaver.save_model(type("Parts", (), parts), None, str(folder), Flux2KleinWeightDefinition)
    save_toy_tokenizer(folder / "tokenizer", CHAT_TEMPLATE)


# ---- one gateway ---------------------------------------------------------------------------------


@contextlib.contextmanager
def serving(setup: Setup, bits: int | None) -> Iterator[httpx.Client]:
    """A gateway with the model at `bits` as its default, and a client of it. The log goes to stderr."""
    home = setup.work / f"gateway-{bits or 'whole'}-{time.monotonic_ns()}"
    home.mkdir()
    models = {
        "default": NAME,
        "local": {NAME: {"path": str(setup.weights), "like": spec_of(bits).name}},
        "cache_dir": str(home / "models"),
        "keep_quantized": False,
        "steps_as_sent": True,
    }
    config: dict[str, Any] = {"models": models}
    if setup.cache_gb is not None:
        config["engine"] = {"cache_limit_gb": setup.cache_gb}
    os.environ |= {ANEW: "1", "MLX_PTX_CACHE_DIR": str(setup.work / "kernels")}
    program: tuple[str, ...] = ("api_main.py",)
    if setup.tiny:
        program = ("tests/support/toy_gateway.py", LIKE, "float32")
        os.environ[PRELOADED] = setup.environment().get("LD_PRELOAD", "")
    gateway = Live(home, backend="mlx", config=config, program=program, output=sys.stderr.fileno())
    try:
        gateway.start()
        with httpx.Client(base_url=gateway.url, timeout=TIMEOUT_S) as client:
            yield client
    finally:
        if gateway.process is not None and gateway.process.poll() is None:
            gateway.stop()


def spec_of(bits: int | None) -> ModelSpec:
    return SPECS[LIKE if bits is None else f"{LIKE}-{bits}-bit"]


def images_of(client: httpx.Client, setup: Setup, seed: int, prompt: str, *, n: int = 1, **more: Any) -> list[bytes]:
    """PNGs of one request to /v1."""
    size = f"{setup.size_px}x{setup.size_px}"
    body = {"prompt": prompt, "seed": seed, "n": n, "size": size, "steps": STEPS, "response_format": "b64_json"}
    answer = client.post("/v1/images/generations", json={**body, **more}).raise_for_status()
    return [base64.b64decode(image["b64_json"]) for image in answer.json()["data"]]


def seconds_of(client: httpx.Client, setup: Setup, seed: int, prompt: str, **more: Any) -> float:
    began = time.perf_counter()
    images_of(client, setup, seed, prompt, **more)
    return time.perf_counter() - began


def prompt_of(number: int) -> str:
    """A prompt that was not encoded before."""
    return f"{number}: a red circle on a blue background, seen from above in the evening"


# ---- memory --------------------------------------------------------------------------------------


def estimate(setup: Setup, bits: int | None) -> Footprint:
    """What admission reckons before it has learned anything."""
    plan = Generate(
        model=NAME,
        prompt="",
        width_px=setup.size_px,
        height_px=setup.size_px,
        steps=STEPS,
        guidance=1.0,
        seeds=(0,),
        quantize=bits,
    )
    return guess(plan, spec_of(bits), disk_bytes=weights_bytes(setup.weights), is_float32=setup.tiny)


def memory_rows(part: str, expected: Footprint, loaded: Any, peak: Any) -> Iterator[Row]:
    """Rows for measured GB of the loaded model and of the peak while it draws."""
    for what, measured, guessed in (
        ("loaded model", loaded, expected.weights),
        ("peak of an image", peak, expected.weights + expected.image),
    ):
        yield Row(part, f"memory: {what}", measured, "GB")
        share = measured * GB / guessed
        yield Row(part, f"memory: {what}, share of the estimate of {guessed / GB:.2f} GB", share, "", ESTIMATE_MOST)


def mlx_memory(client: httpx.Client) -> tuple[float, float]:
    """GB that the engine's MLX holds, and its peak since the newest image or load began."""
    system = client.get("/api/v1/system").raise_for_status().json()
    return system["mlx_memory_gb"] * 2**30 / GB, system["mlx_peak_memory_gb"] * 2**30 / GB


def best_bits(setup: Setup, limit_bytes: float) -> int | None:
    """The most bits at which the model fits once; None for unquantised."""
    return next((bits for bits in (None, 8, 4) if estimate(setup, bits).peak < limit_bytes), 4)


def require_room(setup: Setup, bits: int | None, copies: int, limit_bytes: float) -> None:
    """Raises: Lacking if `copies` of the model and one image each do not fit."""
    need = copies * estimate(setup, bits).peak
    if need > limit_bytes:
        raise Lacking(f"{copies} times the model takes {need / GB:.0f} GB of {limit_bytes / GB:.0f}")


# ---- parts ---------------------------------------------------------------------------------------


def compare(setup: Setup, emit: Emit, part: str, bits: int | None, limit_bytes: float) -> None:
    """The gateway and mflux alone in alternation; steps; four images; memory; cancels."""
    save_weights(setup, emit)
    require_room(setup, bits, 2, limit_bytes)
    began = time.monotonic()
    with serving(setup, bits) as client, Bare(setup, bits, sys.stderr.fileno()) as bare:
        images_of(client, setup, 0, prompt_of(0))
        emit(Row(part, "start, load and first image of the gateway", time.monotonic() - began, "s"))
        loaded, peak = mlx_memory(client)
        for row in memory_rows(part, estimate(setup, bits), loaded, peak):
            emit(row)
        bare.draw(0, prompt_of(0), STEPS)
        alternate(setup, emit, part, client, bare)
        step_s = steps(setup, emit, part, client, bare)
        four(setup, emit, part, client, bare)
        cancels(setup, emit, part, client, step_s)


def alternate(setup: Setup, emit: Emit, part: str, client: httpx.Client, bare: Bare) -> None:
    """New prompts, then the same prompt again: seconds of each side, and the ratio in each pair."""
    most = 0
    bare_s, gateway_s = [], []
    for seed in range(1, setup.pairs + 1):
        bare_s.append(bare.draw(seed, prompt_of(seed), STEPS))
        began = time.perf_counter()
        [png] = images_of(client, setup, seed, prompt_of(seed))
        gateway_s.append(time.perf_counter() - began)
        off = np.asarray(Image.open(io.BytesIO(png)).convert("RGB")).astype(int) - bare.image().astype(int)
        most = max(most, int(np.abs(off).max()))
        if seed == 1:
            Image.open(io.BytesIO(png)).resize((256, 256)).save(setup.out / f"{part}.png")
    emit(Row(part, "largest difference of a pixel from mflux alone", most, "of 255", 0))
    emit(Row(part, "an image by mflux alone, median", statistics.median(bare_s), "s"))
    emit(Row(part, "an image through the gateway, median", statistics.median(gateway_s), "s"))
    emit(Row(part, "gateway / mflux alone, new prompts", median_ratio(gateway_s, bare_s), "", RATIO_MOST))
    again = [
        (bare.draw(seed, prompt_of(1), STEPS), seconds_of(client, setup, seed, prompt_of(1)))
        for seed in range(101, 101 + setup.pairs)
    ]
    ratio = median_ratio([s for _, s in again], [a for a, _ in again])
    emit(Row(part, "gateway / mflux alone, a prompt seen before", ratio, "", RATIO_MOST))


def median_ratio(ones: list[float], others: list[float]) -> float:
    """Median of the ratios of pairs."""
    return statistics.median(one / other for one, other in zip(ones, others, strict=True))


def steps(setup: Setup, emit: Emit, part: str, client: httpx.Client, bare: Bare) -> float:
    """Seconds a step of each side, from images with more steps and with fewer; returns the gateway's."""
    each_s = []
    sides: tuple[Callable[[int], float], ...] = (
        lambda n: bare.draw(7, prompt_of(1), n),
        lambda n: seconds_of(client, setup, 7, prompt_of(1), steps=n),
    )
    for draw in sides:
        few, many = (statistics.median(draw(n) for _ in range(3)) for n in (STEPS, MORE_STEPS))
        each_s.append((many - few) / (MORE_STEPS - STEPS))
    emit(Row(part, "a step by mflux alone", each_s[0], "s"))
    emit(Row(part, "a step in the gateway's engine", each_s[1], "s"))
    return max(each_s[1], LEAST_STEP_S)


def four(setup: Setup, emit: Emit, part: str, client: httpx.Client, bare: Bare) -> None:
    """Four images of one new prompt in one request against four by mflux alone."""
    ratios = []
    for turn in range(1 if setup.tiny else 2):
        prompt = prompt_of(200 + turn)
        alone = sum(bare.draw(seed, prompt, STEPS) for seed in range(IMAGES))
        ratios.append(seconds_of(client, setup, 1, prompt, n=IMAGES) / alone)
    emit(Row(part, "four images of one prompt / four by mflux alone", statistics.median(ratios), "", FOUR_MOST))


def cancels(setup: Setup, emit: Emit, part: str, client: httpx.Client, step_s: float) -> None:
    """Time between a cancel and the next image, less the time of that image alone, in steps; the longest of some."""
    small: dict[str, Any] = {"size": f"{SMALL_PX}x{SMALL_PX}", "steps": 1}
    usual = statistics.median(seconds_of(client, setup, 1, prompt_of(1), **small) for _ in range(3))
    busy = []
    for turn in range(CANCELS):
        size = {"width": setup.size_px, "height": setup.size_px}
        body = {"prompt": prompt_of(1), "seed": turn, "steps": MORE_STEPS, **size}
        job = client.post("/api/v1/generate", json=body).raise_for_status().json()["job_id"]
        wait_for_step(client, job)
        time.sleep(step_s * (turn + 0.5) / CANCELS)
        began = time.perf_counter()
        client.delete(f"/api/v1/jobs/{job}").raise_for_status()
        images_of(client, setup, 1, prompt_of(1), **small)
        busy.append(time.perf_counter() - began - usual)
    emit(Row(part, "from a cancel to the next image", max(busy), "s"))
    emit(Row(part, "from a cancel to the next image, in steps", max(busy) / step_s, "", CANCEL_MOST))


def wait_for_step(client: httpx.Client, job: str) -> None:
    """Wait until a step of the job is reported, or its end."""
    with client.stream("GET", f"/api/v1/jobs/{job}/stream") as answer:
        for line in answer.iter_lines():
            if line in ("event: progress", "event: complete", "event: error"):
                return


def clients(setup: Setup, emit: Emit, limit_bytes: float) -> None:
    """Images a minute for four clients with their own prompts, against mflux alone in a loop; /health/live too."""
    save_weights(setup, emit)
    bits = best_bits(setup, limit_bytes)
    rounds = 1 if setup.tiny else 5
    with Bare(setup, bits, sys.stderr.fileno()) as bare:
        bare.draw(0, prompt_of(0), STEPS)
        alone = [bare.draw(seed, prompt_of(300 + seed), STEPS) for seed in range(2 * rounds)]
    with serving(setup, bits) as client, ThreadPoolExecutor(CLIENT_COUNT) as pool:
        images_of(client, setup, 0, prompt_of(0))

        def draw(number: int) -> None:
            for turn in range(rounds):
                images_of(client, setup, turn, prompt_of(1000 * (number + 1) + turn))

        with Health(str(client.base_url)) as health:
            began = time.perf_counter()
            list(pool.map(draw, range(CLIENT_COUNT)))
            minutes = (time.perf_counter() - began) / 60
    loop = 60 / statistics.mean(alone)
    by_gateway = CLIENT_COUNT * rounds / minutes
    title = f"at {bits} bits" if bits else "unquantised"
    emit(Row(CLIENTS, f"images a minute by mflux alone in a loop, {title}", loop))
    emit(Row(CLIENTS, "images a minute through the gateway, four clients", by_gateway))
    emit(Row(CLIENTS, "gateway / mflux alone in a loop", by_gateway / loop, "", 1.0, least=True))
    emit(Row(CLIENTS, "/health/live while drawing, p99", health.p99_ms, "ms", HEALTH_MOST_MS))


def caches(setup: Setup, emit: Emit, limit_bytes: float) -> None:
    """An image with the usual `engine.cache_limit_gb` and with a large one: what MLX pays for the driver's memory."""
    save_weights(setup, emit)
    bits = best_bits(setup, limit_bytes)
    medians = []
    for cache_gb in (setup.cache_gb, LARGE_CACHE_GB):
        with serving(replace(setup, cache_gb=cache_gb), bits) as client:
            images_of(client, setup, 0, prompt_of(0))
            seconds = [seconds_of(client, setup, seed, prompt_of(400 + seed)) for seed in range(setup.pairs)]
        medians.append(statistics.median(seconds))
        title = "the usual cache" if cache_gb is None else f"engine.cache_limit_gb {cache_gb:g}"
        emit(Row(CACHE, f"an image through the gateway with {title}, median", medians[-1], "s"))
    emit(Row(CACHE, f"with {LARGE_CACHE_GB:g} GB / with the usual cache", medians[1] / medians[0]))
