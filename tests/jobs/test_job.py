"""The state machine: what may happen when, and what is folded from it."""

from __future__ import annotations

import itertools
from typing import get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.protocol import (
    Cancelled,
    Decoding,
    Failed,
    ModelLoaded,
    ModelLoading,
    Preview,
    PromptRead,
    StepDone,
    Succeeded,
)
from gateway.jobs.facts import CancelRequested, ImageDone, PageRead, Queued, Reading, Requeued, Started, TextLine
from gateway.jobs.job import TRANSITIONS, IllegalTransition, Job, Progress, State, StateFacts
from tests.support import a_job, a_plan


def image(n: int) -> ImageDone:
    return ImageDone(image=n, seed=n, file=f"{n}.png", width_px=64, height_px=64, drawn_px=(64, 64), seconds=0.1)


def page(n: int, *texts: str) -> PageRead:
    lines = tuple(TextLine(box=((0, 0), (9, 0), (9, 9), (0, 9)), text=text, score=1.0) for text in texts)
    return PageRead(page=n, width_px=64, height_px=64, lines=lines, seconds=0.1)


def fact_of(kind: type[StateFacts], job: Job) -> StateFacts:
    match kind.__name__:
        case "Started":
            return Started(attempt=job.attempt + 1)
        case "PromptRead":
            return PromptRead(field="prompt", tokens=9, limit=3, cut="and more")
        case "ImageDone":
            return image(job.first_undrawn)
        case "PageRead":
            return page(len(job.pages))
        case "Requeued":
            return Requeued(reason="engine_crash")
        case "Failed":
            return Failed(code="engine_crash", message="It stopped.")
        case _:
            return kind()  # type: ignore[call-arg]


ROADS: dict[State | None, list[type[StateFacts]]] = {
    None: [],
    State.QUEUED: [Queued],
    State.RUNNING: [Queued, Started],
    State.SUCCEEDED: [Queued, Started, Succeeded],
    State.FAILED: [Queued, Started, Failed],
    State.CANCELLED: [Queued, Cancelled],
}


def job_in(state: State | None) -> Job:
    job = Job.of(a_job(plan=a_plan(seeds=(1, 2))), number=1)
    for kind in ROADS[state]:
        job = job.apply(fact_of(kind, job), at=1.0)
    return job


@pytest.mark.parametrize(("state", "kind"), list(itertools.product(ROADS, get_args(StateFacts))))
def test_job_state_after_every_fact_follows_the_transition_table(state: State | None, kind: type[StateFacts]) -> None:
    job = job_in(state)
    fact = fact_of(kind, job)
    if (state, kind) in TRANSITIONS:
        after = job.apply(fact, at=2.0)
        assert after.state is TRANSITIONS[state, kind]
        assert after.seq == job.seq + 1
        assert after.events[-1].fact == fact
    else:
        with pytest.raises(IllegalTransition):
            job.apply(fact, at=2.0)


def test_job_state_that_is_terminal_has_no_transition() -> None:
    assert not [state for state, _ in TRANSITIONS if state is not None and state.terminal]


@given(st.lists(st.sampled_from(list(get_args(StateFacts))), max_size=30))
def test_job_events_have_no_sequence_gaps_and_replaying_them_gives_the_job_again(kinds: list[type[StateFacts]]) -> None:
    job = start = Job.of(a_job(plan=a_plan(seeds=tuple(range(40)))), number=1)
    for kind in kinds:
        fact = fact_of(kind, job)
        if job.may(fact):
            job = job.apply(fact, at=float(job.seq))
    assert [event.seq for event in job.events] == list(range(1, job.seq + 1))
    again = start
    for event in job.events:
        again = again.apply(event.fact, event.at)
    assert again == job


def test_image_of_a_job_is_never_repeated_nor_skipped() -> None:
    job = job_in(State.RUNNING).apply(image(0), at=2.0)
    for n in (0, 2):
        with pytest.raises(IllegalTransition):
            job.apply(image(n), at=3.0)
    assert job.apply(image(1), at=3.0).first_undrawn == 2


def test_job_attempts_only_grow_and_only_a_crash_counts_against_the_retry_budget() -> None:
    job = job_in(State.RUNNING).apply(Requeued(reason="gateway_restart"), at=2.0)
    assert (job.attempt, job.crashes) == (1, 0)
    with pytest.raises(IllegalTransition):
        job.apply(Started(attempt=1), at=3.0)
    job = job.apply(Started(attempt=2), at=3.0).apply(Requeued(reason="engine_crash"), at=4.0)
    assert (job.attempt, job.crashes) == (2, 1)


def test_a_cancelled_job_keeps_its_finished_pictures() -> None:
    job = job_in(State.RUNNING).apply(image(0), at=2.0).apply(CancelRequested(reason="client_gone"), at=3.0)
    job = job.apply(Cancelled(), at=4.0)
    assert (job.state, len(job.images), job.cancel_requested) == (State.CANCELLED, 1, "client_gone")


def test_progress_runs_from_zero_to_one_over_all_pictures() -> None:
    progress = Progress(job_id="j", images=2)
    seen = [progress.fraction]
    progress = progress.apply(ModelLoading(model="m")).apply(ModelLoaded(model="m", seconds=1.0))
    for n, step in itertools.product(range(2), (1, 2)):
        progress = progress.apply(StepDone(image=n, step=step, steps=2, seconds=0.1))
        seen.append(progress.fraction)
        progress = progress.apply(Preview(image=n, step=step, jpeg_base64="")).apply(Decoding(image=n))
    assert seen == [0.0, 0.25, 0.5, 0.75, 1.0]


def test_ocr_text_is_joined_page_by_page_in_order() -> None:
    job = job_in(State.RUNNING)
    with pytest.raises(IllegalTransition):
        job.apply(page(1), at=2.0)
    for read in (page(0, "one", "two"), page(1), page(2, "three")):
        job = job.apply(read, at=2.0)
    assert job.text == "one\ntwo\n\n\n\nthree"
    with pytest.raises(IllegalTransition):
        job.apply(page(2), at=2.0)


def test_ocr_progress_reports_the_page_being_read() -> None:
    progress = Progress(job_id="j", images=4).apply(Reading(page=1))
    assert (progress.phase, progress.fraction) == ("reading", 0.25)
