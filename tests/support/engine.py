"""What the engine's tests share: runs to send, and an engine that is stopped again whatever happens."""

from __future__ import annotations

import asyncio
import os
from collections import defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import aclosing, asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from PIL import Image

from engine.backends.fake import FakeScript
from engine.catalog import CATALOG, EMBEDDED, ModelSpec
from engine.client import Engine, EngineOptions
from engine.client.turn import Fact
from engine.protocol import Generate, Load, Run

SPECS = {spec.name: spec for spec in CATALOG}
KLEIN = SPECS["flux2-klein-4b"]
TINY = SPECS[EMBEDDED]

FAST = EngineOptions(backend="fake", backoff_s=(0.0,), term_grace_s=0.3)
"""For the fake engine; deadlines are the real ones."""


def fake(options: EngineOptions = FAST, /, **script: Any) -> EngineOptions:
    return replace(options, fake_script=FakeScript(**script).model_dump_json())


def plan(**changes: Any) -> Generate:
    fields: dict[str, Any] = {
        "model": KLEIN.name,
        "prompt": "a red circle on a blue background",
        "width_px": 64,
        "height_px": 48,
        "steps": 4,
        "guidance": 1.0,
        "seeds": (7,),
    }
    return Generate(**{**fields, **changes})


def run_of(
    spool: Path, what: Generate | Load | None = None, *, job: str = "job1", spec: ModelSpec = KLEIN, **changes: Any
) -> Run:
    fields: dict[str, Any] = {
        "job": job,
        "attempt": 1,
        "plan": what or plan(),
        "spec": spec,
        "model_path": str(spool),
        "spool_dir": str(spool),
    }
    return Run(**{**fields, **changes})


@asynccontextmanager
async def running(options: EngineOptions) -> AsyncIterator[Engine]:
    """An engine that was started, and is stopped with no process left."""
    engine = Engine(options)
    await engine.start()
    try:
        yield engine
    finally:
        pid = engine.status.pid
        await engine.stop()
        assert pid is None or not alive(pid)


async def facts_of(engine: Engine, run: Run, on_fact: Callable[[Fact], Awaitable[None]] | None = None) -> list[Fact]:
    """All facts of a run; `on_fact` is awaited after each."""
    facts = []
    async with aclosing(engine.run(run)) as stream:
        async for fact in stream:
            facts.append(fact)
            if on_fact is not None:
                await on_fact(fact)
    return facts


def kinds(facts: list[Fact]) -> list[str]:
    return [fact.kind for fact in facts]


def alive(pid: int) -> bool:
    """Whether the process still runs; a zombie does not."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    stat = Path(f"/proc/{pid}/stat")
    try:
        return not stat.exists() or stat.read_text().rpartition(")")[2].split()[0] != "Z"
    except ProcessLookupError:  # it ended meanwhile
        return False


async def gone(pid: int, within_s: float) -> bool:
    """Whether the process ends in time."""
    for _ in range(round(within_s / 0.02)):
        if not alive(pid):
            return True
        await asyncio.sleep(0.02)
    return False


def read_ppm(path: Path) -> tuple[int, int, bytes]:
    magic, size, depth, pixels = path.read_bytes().split(b"\n", 3)
    assert (magic, depth) == (b"P6", b"255")
    width, height = map(int, size.split())
    assert len(pixels) == 3 * width * height
    return width, height, pixels


class Letters:
    """Stands in for a tokenizer, mflux's and the one in it: a token a letter."""

    template = None
    use_chat_template = False
    chat_template_kwargs: Mapping[str, Any] = {}
    add_special_tokens = True
    max_length = 512

    @property
    def tokenizer(self) -> Letters:
        return self

    def encode(self, text: str, **_: Any) -> list[int]:
        return list(range(len(text)))

    def __call__(self, text: str, **_: Any) -> dict[str, list[tuple[int, int]]]:
        return {"offset_mapping": [(at, at + 1) for at in range(len(text))]}


class Recorder:
    """Stands in for mflux's pipeline and keeps what it was given."""

    def __init__(self, **built: Any) -> None:
        import mlx.core as mx

        self.built = built
        self.asked: dict[str, Any] = {}
        self.vae, self.callbacks, self.transformer = None, self, self
        self.tiling_config = None
        self.model_config = built.get("model_config")
        self.tokenizers: dict[str, Letters] = defaultdict(Letters)
        self.observers: list[Any] = []
        self._array = mx.zeros(1)

    def register(self, observer: Any) -> None:
        self.observers.append(observer)

    def parameters(self) -> dict[str, Any]:
        return {"weight": self._array}

    def _encode_prompt_pair(self) -> None: ...

    def _encode_prompts(self) -> None: ...

    def _encode_prompts_with_images(self) -> None: ...

    def generate_image(self, **asked: Any) -> Any:
        self.asked = asked
        return type("Made", (), {"image": Image.new("RGB", (asked["width"], asked["height"]))})
