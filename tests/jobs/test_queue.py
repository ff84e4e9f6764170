"""The order of waiting jobs, as transcripts: who is served when, by a clock that the tests hold."""

from __future__ import annotations

from collections.abc import Callable

from hypothesis import given
from hypothesis import strategies as st

from gateway.jobs.job import Priority
from gateway.jobs.order import (
    AGEING_S,
    BACKGROUND_AGEING_S,
    RoundRobinState,
    Standing,
    Waiting,
    moved,
    next_rise,
    order,
    take,
)
from gateway.jobs.plans import Lane

BACKGROUND, LOW, NORMAL, HIGH = Priority
ENGINE: Lane = "engine"


class Play:
    """A queue and its clock: `join` says who comes, `serve` who goes."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.number = 0
        self.line: list[Waiting] = []
        self.turns = RoundRobinState()

    def join(self, owner: str, priority: Priority = NORMAL, count: int = 1) -> None:
        for _ in range(count):
            self.number += 1
            standing = Standing(priority, self.now, self.number)
            name = f"{owner}{sum(job.owner == owner for job in self.line) + 1}"
            self.line.append(Waiting(f"{name}.{self.number}", owner, ENGINE, "m", standing))

    def serve(self, count: int = 1, *, each_s: float = 0.0) -> str:
        """Whose jobs were served, a letter each; a queue that is found empty forgets its turns, as the store does."""
        served = ""
        for _ in range(count):
            expected = order(self.line, self.turns, self.now)
            taken = take(self.line, self.turns, self.now)
            if taken is None:
                self.turns = RoundRobinState()
                break
            job, self.turns = taken
            assert job == expected[0]
            self.line.remove(job)
            served += job.owner
            self.now += each_s
        return served

    def ids(self) -> list[str]:
        return [job.id for job in order(self.line, self.turns, self.now)]


def test_queue_owners_of_one_priority_take_turns_and_their_jobs_keep_their_order() -> None:
    play = Play()
    play.join("a", count=4)
    play.join("b", count=2)
    play.join("c")
    numbers = [int(job_id.split(".")[1]) for job_id in play.ids()]
    assert numbers == [1, 5, 7, 2, 6, 3, 4]
    assert play.serve(9) == "abcabaa"


def test_queue_newcomer_during_a_flood_waits_for_the_running_job_only() -> None:
    """S-25: A floods 1,000, B submits one."""
    play = Play()
    play.join("a", count=1000)
    assert play.serve(3) == "aaa"
    play.join("b")
    assert play.serve(3) == "baa"


def test_queue_flood_of_one_owner_that_ages_does_not_delay_other_owners() -> None:
    play = Play()
    play.join("a", count=100)
    play.serve(30, each_s=60.0)
    play.join("b")
    assert play.serve(2, each_s=60.0) == "ba"


def test_queue_owner_returning_at_once_does_not_overtake_owners_awaiting_a_second_turn() -> None:
    play = Play()
    play.join("a")
    play.join("b", count=3)
    play.join("c", count=3)
    served = ""
    for _ in range(9):
        served += play.serve()
        if served[-1] == "a":
            play.join("a")
    assert served == "abcbcabca"


def test_queue_after_idle_time_is_served_in_submission_order() -> None:
    play = Play()
    play.join("a")
    assert play.serve(2) == "a"
    play.join("a")
    play.join("b")
    assert play.serve(2) == "ab"


def test_queue_serves_higher_priority_first_and_background_last() -> None:
    play = Play()
    play.join("d", BACKGROUND)
    play.join("c", LOW)
    play.join("b", NORMAL)
    play.join("a", HIGH)
    assert play.serve(4) == "abcd"


def test_job_is_not_starved_by_a_steady_stream_of_high_priority_jobs() -> None:
    """S-26, of another owner's and of one's own."""
    for owner in ("x", "a"):
        play = Play()
        play.join(owner, LOW)
        waited = -1
        for minute in range(60):
            play.join("a", HIGH)
            play.join("a", HIGH)
            before = len(play.line)
            play.serve(each_s=60.0)
            assert len(play.line) == before - 1
            if all(job.standing.priority is HIGH for job in play.line):
                waited = minute
                break
        assert 10 <= waited <= 21, owner


def test_queue_ageing_raises_priority_every_ten_minutes_and_background_every_hour() -> None:
    play = Play()
    play.join("a", LOW)
    play.join("d", BACKGROUND)
    ages: list[tuple[float, str]] = []
    for seconds in (0.0, AGEING_S - 1, AGEING_S + 1, BACKGROUND_AGEING_S + 1):
        again = Play()
        again.line, again.now = list(play.line), play.now + seconds
        again.number = 2
        again.join("b", NORMAL)
        again.join("c", LOW)
        ages.append((seconds, again.serve(4)))
    assert [served for _, served in ages] == ["bacd", "bacd", "abcd", "abdc"]


def test_queue_ageing_raises_only_the_first_job_of_an_owner_and_restarts_when_served() -> None:
    play = Play()
    play.join("a", NORMAL, count=3)
    play.now += AGEING_S
    play.join("b", HIGH, count=2)
    assert play.serve(1) == "a"
    assert play.serve(2) == "bb"
    assert play.serve(2) == "aa"


def test_job_is_not_starved_by_an_endless_stream_of_new_owners() -> None:
    play = Play()
    play.join("a")
    play.serve()
    play.join("a", HIGH)
    for n in range(100):
        play.join(f"new{n}", HIGH)
        play.join(f"more{n}", HIGH)
        if play.serve(each_s=60.0) == "a":
            return
    raise AssertionError("never served")


def test_a_worker_is_given_the_first_job_it_can_run() -> None:
    play = Play()
    play.join("a", count=2)
    big = [Waiting(j.id, j.owner, j.lane, "big", j.standing) for j in play.line[:1]]
    line = [*big, play.line[1]]
    taken = take(line, RoundRobinState(), play.now, models={"m"})
    assert taken is not None
    assert taken[0] == play.line[1]
    assert take(line, RoundRobinState(), play.now, models={"other"}) is None


# ---- whatever comes ----------------------------------------------------------------------------

owners = st.sampled_from("abc")
moments = st.floats(0, 3 * BACKGROUND_AGEING_S, allow_nan=False)


@st.composite
def queues(draw: Callable[..., object]) -> tuple[list[Waiting], RoundRobinState, float]:
    now = 20_000.0
    line = []
    count = draw(st.integers(1, 12))
    assert isinstance(count, int)
    for number in range(count):
        owner, priority, age = draw(st.tuples(owners, st.sampled_from(list(Priority)), moments))  # type: ignore[misc]
        line.append(Waiting(f"{number}", owner, ENGINE, "m", Standing(priority, now - age, number)))
    had = draw(st.frozensets(st.tuples(st.integers(-1, 2), owners)))
    last = draw(st.dictionaries(st.tuples(st.integers(-1, 2), owners), moments.map(lambda age: now - age)))
    return line, RoundRobinState(had, last), now  # type: ignore[arg-type]


@given(queues())
def test_queue_gives_the_first_job_of_the_order(queue: tuple[list[Waiting], RoundRobinState, float]) -> None:
    line, turns, now = queue
    taken = take(line, turns, now)
    assert taken is not None
    ordered = order(line, turns, now)
    assert taken[0] == ordered[0]
    assert sorted(job.id for job in ordered) == sorted(job.id for job in line)


@given(queues(), st.data())
def test_queue_reorder_changes_no_position_of_other_owners(
    queue: tuple[list[Waiting], RoundRobinState, float], data: st.DataObject
) -> None:
    line, turns, now = queue
    before = order(line, turns, now)
    job = data.draw(st.sampled_from(before))
    to = data.draw(st.integers(-1, len(line)))
    standings = moved(before, job.id, to)
    after = order([Waiting(o.id, o.owner, o.lane, o.model, standings.get(o.id, o.standing)) for o in line], turns, now)
    assert [o.owner for o in after] == [o.owner for o in before]
    assert [o.id for o in after if o.owner != job.owner] == [o.id for o in before if o.owner != job.owner]
    own = [o.id for o in before if o.owner == job.owner and o.id != job.id]
    own.insert(max(0, min(to, len(own))), job.id)
    assert [o.id for o in after if o.owner == job.owner] == own


@given(queues(), st.floats(0, 0.999))
def test_queue_order_is_unchanged_until_the_next_priority_rise_by_age(
    queue: tuple[list[Waiting], RoundRobinState, float], share: float
) -> None:
    line, turns, now = queue
    heads = {job.group: job for job in sorted(line, key=lambda job: job.standing.number, reverse=True)}.values()
    until = min((next_rise(job, turns, now) for job in heads), default=float("inf"))
    until = min(until, now + 10 * BACKGROUND_AGEING_S)
    assert until > now
    assert order(line, turns, now + share * (until - now) * 0.999) == order(line, turns, now)


@given(st.lists(st.tuples(owners, st.sampled_from([LOW, NORMAL, HIGH])), min_size=1, max_size=30))
def test_queue_without_new_jobs_is_served_in_the_reported_order(jobs: list[tuple[str, Priority]]) -> None:
    play = Play()
    for owner, priority in jobs:
        play.join(owner, priority)
    told = play.ids()
    for expected in told:
        assert play.ids()[0] == expected
        play.serve()
