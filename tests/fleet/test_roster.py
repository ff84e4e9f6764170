"""Roster: which of several nodes claims a job or a download. Every job has one, whatever the nodes have."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from gateway.fleet.messages import JobProgress, SkipImage, TicketUsed, read_text, to_text
from gateway.fleet.node import Node, SeenNode
from gateway.fleet.roster import ALIVE_S, Need, Roster
from gateway.jobs.plans import LANES
from gateway.store.shared import MESSAGE_BYTES

NODES = st.lists(
    st.builds(
        Node,
        id=st.uuids().map(str),
        name=st.uuids().map(str),
        kind=st.just("worker"),
        version=st.just("1"),
        lanes=st.sampled_from([LANES, ("engine",), ("network",), ()]),
        memory_limit_bytes=st.sampled_from([None, 10, 20, 30]),
        models=st.sampled_from([(), ("a",), ("b",), ("a", "b")]),
        loras=st.sampled_from([(), ("l",)]),
        files=st.sampled_from([(), ("vae v",)]),
    ),
    min_size=1,
    max_size=5,
)
NEEDS = st.builds(
    Need,
    model=st.sampled_from(["a", "b"]),
    loras=st.sampled_from([frozenset(), frozenset({"l"})]),
    refiner=st.sampled_from([None, None, "b"]),
    files=st.sampled_from([frozenset(), frozenset({"vae v"})]),
    memory_bytes=st.sampled_from([5, 15, 25, 35]),
)


def _rosters(nodes: list[Node]) -> list[Roster]:
    """Of each node, its own; all have seen all."""
    rosters = []
    for own in nodes:
        roster = Roster(lambda own=own: own)
        roster.update([SeenNode(node, 1.0) for node in nodes])
        rosters.append(roster)
    return rosters


@given(NODES, NEEDS)
def test_job_that_can_run_somewhere_is_claimed_there_and_nowhere_else(nodes: list[Node], need: Need) -> None:
    engines = [node for node in nodes if "engine" in node.lanes]
    able = [node for node in engines if need.is_on(node) and need.fits(node)]
    owners = [r.own for r in _rosters(nodes) if "engine" in r.own.lanes and r.is_own(need, may_fail=False)]
    if able:
        assert owners == able
    elif any(need.fits(node) for node in engines):
        assert owners == [], "a download is on its way to a node that it fits"
    else:
        assert owners == [node for node in engines if need.is_on(node)], "it fits nowhere and fails"


@given(NODES, NEEDS)
def test_job_whose_model_nobody_brings_is_claimed_and_fails(nodes: list[Node], need: Need) -> None:
    rosters = [roster for roster in _rosters(nodes) if "engine" in roster.own.lanes]
    assert not rosters or any(roster.is_own(need, may_fail=True) for roster in rosters)


@given(NODES, NEEDS)
def test_download_is_claimed_by_the_nodes_that_its_jobs_fit_on(nodes: list[Node], need: Need) -> None:
    drawing = [node for node in nodes if {"engine", "network"} <= set(node.lanes)]
    owners = [roster.own for roster in _rosters(nodes) if roster.is_own_download(need)]
    fitting = [node for node in drawing if need.fits(node)] or drawing
    assert owners == ([node for node in fitting if need.model in node.models] or fitting), "a LoRA comes to its model"


def test_nodes_away_for_long_do_not_work_and_the_newest_process_of_a_name_counts() -> None:
    own = Node("1", "me", "gateway", "1")
    old = Node("2", "worker", "worker", "1", lanes=LANES, models=("a",), loaded_model="a", state="ready")
    new = Node("3", "worker", "worker", "1", lanes=LANES, models=("b",), state="ready")
    roster = Roster(lambda: own)
    roster.update([SeenNode(old, ALIVE_S + 1)])
    assert (roster.works("engine"), roster.has("a"), roster.loaded_models) == (False, True, ())
    roster.update([SeenNode(old, 2.0), SeenNode(new, 1.0)])
    assert (roster.works("engine"), roster.has("a"), roster.has("b")) == (True, False, True)
    roster.update([SeenNode(new, 1.0, is_draining=True)])
    assert not roster.works("engine")


@given(st.text(max_size=300))
def test_messages_of_another_version_are_ignored(text: str) -> None:
    assert read_text(text) is None
    assert read_text('{"kind": "later", "x": 1}') is None
    for message in (SkipImage(job="a"), TicketUsed(digest="0"), JobProgress(job="a", attempt=1, facts=())):
        assert read_text(to_text(message)) == message
        assert len(to_text(message).encode()) < MESSAGE_BYTES
