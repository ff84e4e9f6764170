"""Fake backend that draws gradients and misbehaves as scripted: for tests, and for developing adapters without a model.

It reports what a real backend reports, including img2img, previews and native sizes. It imports no MLX.
"""

from __future__ import annotations

import hashlib
import os
import re
import signal
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Literal, NoReturn, Protocol

from PIL import Image

from engine.catalog import ModelSpec
from engine.drawing import canvas
from engine.drawing.base import Decode, FinishedImage, ImageSkipped, Model, Watcher
from engine.prompt_tokens import Span, TokenEncoder, read_prompt
from engine.protocol import MAX_LINE_BYTES, Frozen, Generate, Memory, PromptRead, Upscale, steps_to_run

Phase = Literal["start", "load", "step", "decode", "ping"]


class FakeScript(Frozen):
    """Script of the fake backend's behaviour. Steps count from 1 within an image.

    `crash_times` bounds the number of all misbehaviours together. The count is kept in the file `counter_path`, so that
    it survives a restart of the child.
    """

    start_seconds: float = 0.0
    load_seconds: float = 0.0
    load_until_path: str | None = None
    """File that ends each load once it exists."""
    step_seconds: float = 0.0
    decode_seconds: float = 0.0
    start_fails: bool = False
    crash_in: Literal["load", "decode", "save"] | None = None
    crash_at_step: int | None = None
    crash_with: Literal["SIGABRT", "SIGKILL", "SIGSEGV"] | int = "SIGKILL"
    """A signal, or an exit code."""
    crash_says: str = ""
    """Text written to stderr before a crash."""
    crash_times: int | None = None
    counter_path: str | None = None
    hang_in: Phase | None = None
    hang_at_step: int = 1
    hang_busy: bool = False
    hang_deaf: bool = False
    """Ignore SIGTERM."""
    raise_in: Literal["load", "step", "decode"] | None = None
    oom_at_step: int | None = None
    memory_growth_bytes: int = 0
    """Bytes by which each image increases the memory in use."""
    active_bytes: int = 1_000_000
    peak_bytes: int = 2_000_000
    """Bytes reported as in use with a model loaded, and at the peak."""
    memory_limit_bytes: int | None = None
    garbage_at_step: int | None = None
    oversized_frame: bool = False
    partial_frame: bool = False
    prompt_words: int | None = None
    """Number of words of a prompt that are encoded; a word counts as a token."""
    unknown_words: tuple[str, ...] = ()
    """Words that the text encoder does not know."""
    slow_stdout: float = 0.0
    """Seconds between two pieces of a line on stdout."""


UPSCALE_STEPS = 32
"""Number of steps that SeedVR2 3B reports."""


class RawWire(Protocol):
    """The wire as the fake backend uses it, to write raw bytes past the worker."""

    pause_s: float

    def write(self, data: bytes) -> None: ...


class FakeBackend:
    """Fake backend; see the module."""

    name = "fake"
    device = "none"

    def __init__(self, script: FakeScript, wire: RawWire) -> None:
        self._script = script
        self._wire = wire
        self._loaded: Model | None = None
        self._images_made = 0
        self.memory_limit_bytes = script.memory_limit_bytes
        wire.pause_s = script.slow_stdout
        if script.hang_deaf:
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
        time.sleep(script.start_seconds)
        if script.start_fails and self._may_misbehave():
            sys.exit("the script says that the start fails")
        self._phase("start")

    def holds(self, model: Model) -> bool:
        return self._loaded is not None and self._loaded.key == model.key

    def load(self, model: Model) -> None:
        self._loaded = None
        self._phase("load")
        if self._script.crash_in == "load" and self._may_misbehave():
            self._crash()
        time.sleep(self._script.load_seconds)
        while (until := self._script.load_until_path) is not None and not Path(until).exists():
            time.sleep(0.01)
        if model.copy is not None and not (Path(model.copy) / "transformer" / "0.safetensors").exists():
            raise ValueError("no copy of this backend")
        self._loaded = model

    def save(self, folder: str) -> None:
        """Write a file that has a safetensors header but is no model."""
        if self._script.crash_in == "save" and self._may_misbehave():
            self._crash()
        header = b'{"w":{"dtype":"U8","shape":[1],"data_offsets":[0,1]}}'
        (Path(folder) / "transformer").mkdir()
        (Path(folder) / "transformer" / "0.safetensors").write_bytes(len(header).to_bytes(8, "little") + header + b"w")

    def draw(
        self, spec: ModelSpec, plan: Generate, image: int, inputs: Mapping[str, str], watcher: Watcher
    ) -> FinishedImage:
        return self.denoise(spec, plan, image, inputs, watcher)()

    def denoise(
        self, spec: ModelSpec, plan: Generate, image: int, inputs: Mapping[str, str], watcher: Watcher
    ) -> Decode:
        frame = canvas.frame_of(plan, spec.native_px, inputs, grey_edges=spec.grey_edges)
        if (untouched := frame.untouched) is not None:
            return lambda: canvas.to_finished_image(untouched, untouched.size)
        for reading in prompt_readings(plan, self._script):
            watcher.report_prompt(reading)
        drawn = draw_gradients(plan, image, frame)
        steps = steps_to_run(plan.steps, plan.denoise, plan.sampling)
        with suppress(ImageSkipped):
            for step in range(1, steps + 1):
                began = time.monotonic()
                self._step(step)
                watcher.step(step, steps, time.monotonic() - began, lambda: frame.preview(drawn))
        self._images_made += 1
        watcher.start_decoding()

        def decode() -> FinishedImage:
            self._phase("decode")
            if self._script.crash_in == "decode" and self._may_misbehave():
                self._crash()
            time.sleep(self._script.decode_seconds)
            return canvas.to_finished_image(frame.finish(drawn), frame.drawn)

        return decode

    def upscale(self, plan: Upscale, image: str, watcher: Watcher) -> FinishedImage:
        with Image.open(image) as opened:
            enlarged = opened.convert("RGB").resize((plan.width_px, plan.height_px), Image.Resampling.LANCZOS)
        for step in range(1, UPSCALE_STEPS + 1):
            began = time.monotonic()
            self._step(step)
            watcher.check()
            with suppress(ImageSkipped):
                watcher.step(step, UPSCALE_STEPS, time.monotonic() - began, lambda: b"")
        self._images_made += 1
        watcher.start_decoding()
        time.sleep(self._script.decode_seconds)
        return canvas.to_finished_image(enlarged, enlarged.size)

    def check_device(self) -> None:
        self._phase("ping")

    def memory(self) -> Memory:
        growth = self._images_made * self._script.memory_growth_bytes
        active = 0 if self._loaded is None else self._script.active_bytes + growth
        return Memory(active_bytes=active, peak_bytes=self._script.peak_bytes + growth)

    def clear(self) -> None:
        """Nothing is cached."""

    def _step(self, step: int) -> None:
        script = self._script
        time.sleep(script.step_seconds)
        if step == script.hang_at_step:
            self._phase("step")
        if step == script.crash_at_step and self._may_misbehave():
            self._crash()
        if step == script.oom_at_step and self._may_misbehave():
            raise MemoryError("the script says so")
        if step == script.garbage_at_step and self._may_misbehave():
            self._wire.write(b"Traceback (most recent call last): /secret/path\n")
        if script.oversized_frame and self._may_misbehave():
            self._wire.write(b'{"kind":"' + b"x" * (MAX_LINE_BYTES + 1))
        if script.partial_frame and self._may_misbehave():
            self._wire.write(b'{"kind":"job","job":')
            os._exit(1)

    def _phase(self, phase: Phase) -> None:
        if self._script.raise_in == phase and self._may_misbehave():
            raise RuntimeError("could not open /secret/path")
        if self._script.hang_in == phase and self._may_misbehave():
            while True:
                if not self._script.hang_busy:
                    time.sleep(3600)

    def _may_misbehave(self) -> bool:
        """Whether misbehaviour is still allowed; counts this one."""
        if self._script.crash_times is None:
            return True
        assert self._script.counter_path is not None
        counter = Path(self._script.counter_path)
        if counter.exists() and counter.stat().st_size >= self._script.crash_times:
            return False
        with counter.open("ab") as file:
            file.write(b".")
        return True

    def _crash(self) -> NoReturn:
        print(self._script.crash_says, file=sys.stderr, flush=True)
        if isinstance(self._script.crash_with, int):
            os._exit(self._script.crash_with)
        os.kill(os.getpid(), signal.Signals[self._script.crash_with])
        time.sleep(60)
        raise AssertionError("unreachable")


def prompt_readings(plan: Generate, script: FakeScript) -> Iterator[PromptRead]:
    """Prompts that are not encoded completely, one token a word; the negative prompt only where guidance is above 1."""
    encoder = TokenEncoder(words, script.prompt_words)
    negative = plan.negative_prompt if plan.guidance > 1 else None
    for field, prompt in (("prompt", plan.prompt), ("negative_prompt", negative or "")):
        found = read_prompt(encoder, field, prompt, prompt, [word for word in script.unknown_words if word in prompt])
        if found is not None:
            yield found


def words(text: str) -> list[Span]:
    """Start and end of each word."""
    return [found.span() for found in re.finditer(r"\S++", text)]


def draw_gradients(plan: Generate, image: int, frame: canvas.Frame) -> Image.Image:
    """Gradient that depends on everything that an image depends on."""
    drawn = gradient(plan.prompt, plan.seeds[image], frame.drawn)
    if plan.subseed_strength:
        variation = gradient(plan.prompt, plan.subseeds[image], frame.drawn)
        drawn = Image.blend(drawn, variation, plan.subseed_strength)
    for reference in frame.references:
        drawn = Image.blend(drawn, canvas.stretch(reference, frame.drawn), 0.5)
    if frame.control is not None and plan.control is not None:
        drawn = Image.blend(drawn, frame.control, plan.control.strength / 4)
    for lora in plan.loras:
        drawn = Image.blend(drawn, gradient(lora.name, 0, frame.drawn), min(1.0, abs(lora.scale) / 2))
    if frame.init is not None:
        drawn = Image.blend(canvas.stretch(frame.init, drawn.size), drawn, plan.denoise)
        if frame.mask is not None:
            drawn = Image.composite(drawn, frame.init, frame.mask)
    return drawn


def gradient(prompt: str, seed: int, size: tuple[int, int]) -> Image.Image:
    """Vertical gradient between two colours that depend on prompt and seed."""
    digest = hashlib.sha256(f"{seed}\n{prompt}".encode()).digest()
    top, bottom = digest[:3], digest[3:6]
    width, height = size
    last = max(1, height - 1)
    rows = (bytes((t * (last - y) + b * y) // last for t, b in zip(top, bottom, strict=True)) for y in range(height))
    return Image.frombytes("RGB", size, b"".join(row * width for row in rows))
