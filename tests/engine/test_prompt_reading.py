"""Prompts that a model does not read whole: counted by its own tokenizer, and kept with the job."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from engine.backends.fake import words
from engine.catalog import EMBEDDED_PATH
from engine.drawing.base import Model
from engine.drawing.canvas import Frame
from engine.prompt_tokens import MOST_CUT_CHARS, MOST_UNKNOWN, Span, StrictestEncoder, TokenEncoder, read_prompt
from engine.protocol import PromptRead, Succeeded
from gateway.jobs.facts import ImageDone, Queued, Requeued, Started
from gateway.jobs.job import Job, State
from gateway.service.service import JobService
from tests.support.engine import TINY, plan
from tests.support.engine_studio import Watching
from tests.support.service import ME, request, service_in

LONG = "one two three four five six seven"
ENCODER = TokenEncoder(words, 5)
STYLED = 19
"""Tokens of a prompt that the embedded model reads: 24 but for its four style characters and the blank before them."""


def told(reading: PromptRead | None) -> tuple[int, int | None, str] | None:
    return None if reading is None else (reading.tokens, reading.limit, reading.cut)


# ---- counting ------------------------------------------------------------------------------------


def test_prompt_within_limit_is_not_reported() -> None:
    assert read_prompt(ENCODER, "prompt", "one two three four five", "one two three four five") is None
    assert read_prompt(ENCODER, "prompt", "", "") is None
    assert read_prompt(None, "prompt", LONG * 1000, LONG * 1000) is None


def test_prompt_tokens_beyond_limit_are_counted_and_cut_text_is_shown() -> None:
    assert told(read_prompt(ENCODER, "prompt", LONG, LONG)) == (7, 5, "six seven")


def test_prompt_tokens_of_family_prefix_and_template_are_not_counted() -> None:
    encoder = TokenEncoder(words, 5, lambda text: f"User: {text.strip().lower()} Answer:")
    assert told(read_prompt(encoder, "prompt", f"!+ {LONG.upper()} ", f"{LONG.upper()} ")) == (
        7,
        3,
        "FOUR FIVE SIX SEVEN",
    )
    assert read_prompt(encoder, "prompt", "one two three four", "one two three four") is None, (
        "the template's end alone is cut"
    )


def test_prompt_end_tokens_of_tokenizer_reduce_the_word_limit() -> None:
    encoder = TokenEncoder(lambda text: [(0, 0), *words(text), (0, 0)], 5)
    assert told(read_prompt(encoder, "prompt", LONG, LONG)) == (7, 3, "four five six seven")
    assert read_prompt(encoder, "prompt", "one two three", "one two three") is None


def test_prompt_trailing_blanks_are_not_reported_as_loss() -> None:
    letters = TokenEncoder(lambda text: [(at, at + 1) for at in range(len(text))], 5)
    assert read_prompt(letters, "prompt", "abcde    ", "abcde    ") is None


def test_prompt_limit_is_that_of_strictest_encoder() -> None:
    both = StrictestEncoder(ENCODER, TokenEncoder(words, 3))
    assert told(read_prompt(both, "prompt", LONG, LONG)) == (7, 3, "four five six seven")
    assert read_prompt(StrictestEncoder(ENCODER, TokenEncoder(words, None)), "prompt", "one two", "one two") is None


def test_prompt_report_is_bounded() -> None:
    text = "word " * 9000
    found = read_prompt(ENCODER, "prompt", text, text, [f"{n}{'x' * 999}" for n in range(99)])
    assert found is not None
    assert len(found.cut) <= MOST_CUT_CHARS + 1
    assert found.cut.endswith("…")
    assert len(found.unknown) == MOST_UNKNOWN
    assert len(found.model_dump_json()) < 4000


def test_prompt_unknown_words_are_reported_once_each() -> None:
    found = read_prompt(ENCODER, "prompt", "a masterpiece", "a masterpiece", ["masterpiece", "masterpiece"])
    assert found == PromptRead(field="prompt", tokens=2, unknown=("masterpiece",))


# ---- the embedded model --------------------------------------------------------------------------


@pytest.fixture(scope="module")
def tiny() -> Any:
    """Its painter, loaded."""
    mx = pytest.importorskip("mlx.core")
    from engine.pipelines import load

    mx.disable_compile()
    yield load(Model(TINY, str(EMBEDDED_PATH), None))
    mx.enable_compile()


def sketch(**said: Any) -> Any:
    from engine.pipelines.common.base import ImageTask

    return ImageTask(plan(**said), 0, Frame((64, 64), (64, 64)))


def readings(painter: Any, **said: Any) -> list[tuple[int, int | None, str] | None]:
    return [told(found) for found in painter._prompt_readings(sketch(**said))]


@pytest.mark.parametrize("more", [0, 1, 12])
def test_embedded_model_reports_first_token_it_does_not_read(tiny: Any, more: int) -> None:
    prompt = " ".join(["red"] * (STYLED + more))
    rest = " ".join(["red"] * more)
    assert readings(tiny, prompt=prompt) == ([(STYLED + more, STYLED, rest)] if more else [])
    assert readings(tiny, prompt=f"{prompt.upper()} ") == ([(STYLED + more, STYLED, rest)] if more else [])
    bare = readings(tiny, prompt=prompt, references=("a",))
    assert bare == ([(STYLED + more, 24, " ".join(["red"] * (STYLED + more - 24)))] if STYLED + more > 24 else [])


def test_prompt_reported_as_read_is_all_that_the_image_depends_on(tiny: Any) -> None:
    def seen(prompt: str) -> bytes:
        embedding, _ = tiny._pipeline.encode_prompt(tiny._styled_prompt(plan(prompt=prompt), 0))
        return bytes(memoryview(embedding))

    prompt = " ".join(["red"] * STYLED)
    assert seen(prompt) == seen(f"{prompt} circle and a blue star")
    assert seen(prompt) != seen(prompt.removesuffix("red") + "circle")


def test_prompt_encoding_from_cache_reports_same_as_first_encoding(tiny: Any) -> None:
    prompt = f"{' '.join(['red'] * STYLED)} circle"
    for _ in range(2):
        watcher = Watching()
        tiny.generate(sketch(prompt=prompt, steps=1), watcher)
        assert [told(found) for found in watcher.readings] == [(STYLED + 1, STYLED, "circle")]


def test_prompt_tokenizer_without_token_offsets_does_not_fail_the_image(
    tiny: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(text: str) -> list[Span]:
        raise NotImplementedError

    monkeypatch.setattr(tiny, "_encoder", TokenEncoder(fail, 5))
    watcher = Watching()
    assert tiny.generate(sketch(prompt=LONG, steps=1), watcher).size == (64, 64)
    assert watcher.readings == []


# ---- with the job --------------------------------------------------------------------------------


async def drawn(service: JobService, **said: object) -> Job:
    submitted = await service.submit(request(**said), ME)
    ended = await service.ended(submitted.id)
    assert ended.state is State.SUCCEEDED
    return ended


def kinds(job: Job) -> list[type]:
    return [type(event.fact) for event in job.events]


async def test_prompt_truncation_is_reported_once_per_job_before_its_images(tmp_path: Path) -> None:
    script = {"prompt_words": 5, "unknown_words": ["three"]}
    async with service_in(tmp_path, script=script, base_model="qwen-image") as service:
        for _ in range(2):
            job = await drawn(service, prompt=LONG, count=2, negative_prompt=f"no {LONG}", guidance=4.0)
            assert kinds(job) == [Queued, Started, PromptRead, PromptRead, ImageDone, ImageDone, Succeeded]
            assert [(one.param, one.asked, one.used) for one in job.all_adjustments] == [
                ("prompt", 7, 5),
                ("prompt", "three", None),
                ("negative_prompt", 8, 5),
                ("negative_prompt", "three", None),
            ]
            assert re.search("left out: six seven$", job.all_adjustments[0].reason)
        assert job.adjustments == ()
        short = await drawn(service, prompt="one two")
        assert kinds(short) == [Queued, Started, ImageDone, Succeeded]
    async with service_in(tmp_path) as service:
        assert (await service.get(job.id)).all_adjustments == job.all_adjustments


async def test_prompt_negative_that_is_unused_is_not_reported(tmp_path: Path) -> None:
    async with service_in(tmp_path, script={"prompt_words": 5}, base_model="qwen-image") as service:
        job = await drawn(service, prompt="x", negative_prompt=LONG, guidance=1.0)
        assert kinds(job) == [Queued, Started, ImageDone, Succeeded]


async def test_prompt_truncation_is_reported_once_for_a_restarted_job(tmp_path: Path) -> None:
    script = {"prompt_words": 5, "crash_in": "decode", "crash_times": 1, "counter_path": str(tmp_path / "crashes")}
    async with service_in(tmp_path, script=script) as service:
        job = await drawn(service, prompt=LONG)
        assert kinds(job) == [Queued, Started, PromptRead, Requeued, Started, ImageDone, Succeeded]
        assert [one.used for one in job.all_adjustments] == [5]
