"""Chunks of prompts, and the plan of both prompts for each step."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.prompts.chunks import EMPTY_CHUNK, MOST_CHUNKS, Chunk, ChunkOptions, UsedEmbedding, split_chunks
from engine.prompts.errors import PromptError
from engine.prompts.names import EmbeddingNames
from engine.prompts.plan import Pass, plan_prompts
from engine.prompts.tokenizer import COMMA, END, START
from engine.protocol.sampling import Emphasis

CAT, DOG = 2368, 1929
NAMES = {"easynegative": 8, "easy": 2, "Bad Hand": 3, "bad hand": 5, "huge": 75, " ": 1}


def options(emphasis: Emphasis = "Original", backtrack: int = 20) -> ChunkOptions:
    return ChunkOptions(EmbeddingNames(NAMES), emphasis, backtrack)


def content(chunk: Chunk) -> list[int]:
    """Tokens between the start token and the end tokens."""
    assert (chunk.tokens[0], chunk.tokens[-1], len(chunk.tokens), len(chunk.weights)) == (START, END, 77, 77)
    return [token for token in chunk.tokens[1:] if token != END]


def test_empty_prompt_is_one_empty_chunk() -> None:
    assert split_chunks("", options()) == (EMPTY_CHUNK,)
    assert content(EMPTY_CHUNK) == []


def test_tokens_carry_the_weights_of_their_parts() -> None:
    (chunk,) = split_chunks("cat (dog:1.5)", options())
    assert chunk.tokens[:4] == (START, CAT, DOG, END)
    assert chunk.weights[:4] == (1.0, 1.0, 1.5, 1.0)


def test_end_tokens_are_replaced_after_the_first_for_other_encoders() -> None:
    (chunk,) = split_chunks("cat", options())
    assert chunk.padded_with(0) == (START, CAT, END, *(0,) * 74)


def test_each_part_is_tokenised_alone() -> None:
    (chunk,) = split_chunks("c(at)", options())
    assert len(content(chunk)) == 2


def test_brackets_are_literal_without_emphasis() -> None:
    (chunk,) = split_chunks("(cat:1.5) BREAK dog", options("None"))
    assert set(chunk.weights) == {1.0}
    assert len(content(chunk)) > 6


def test_break_closes_a_chunk() -> None:
    first, second = split_chunks("cat BREAK dog", options())
    assert (content(first), content(second)) == ([CAT], [DOG])
    assert len(split_chunks("cat BREAK", options())) == 1
    assert len(split_chunks("BREAK BREAK cat", options())) == 3


def test_long_prompt_is_cut_into_chunks_of_75_tokens() -> None:
    chunks = split_chunks("cat " * 151, options())
    assert [len(content(chunk)) for chunk in chunks] == [75, 75, 1]


@pytest.mark.parametrize(
    ("before", "after", "backtrack", "lengths"),
    [
        (60, 20, 20, [61, 20]),  # 14 tokens after the comma move
        (50, 30, 20, [75, 6]),  # 24 are too many
        (55, 25, 20, [56, 25]),  # 20 tokens with the comma itself
        (54, 25, 20, [75, 5]),
        (60, 20, 0, [75, 6]),
        (74, 5, 20, [75, 5]),  # the comma is the last token of the chunk
        (75, 5, 20, [75, 6]),  # the comma itself begins the next chunk
    ],
)
def test_text_after_a_late_comma_moves_to_the_next_chunk(
    before: int, after: int, backtrack: int, lengths: list[int]
) -> None:
    chunks = split_chunks("cat " * before + ", " + "dog " * after, options(backtrack=backtrack))
    assert [len(content(chunk)) for chunk in chunks] == lengths
    assert sum(chunk.tokens.count(COMMA) for chunk in chunks) == 1


def test_longest_embedding_name_wins_and_takes_its_vectors_at_its_weight() -> None:
    (chunk,) = split_chunks("cat (EasyNegative:1.2), easy", options())
    assert chunk.embeddings == (UsedEmbedding(2, "easynegative"), UsedEmbedding(11, "easy"))
    assert chunk.tokens[:14] == (START, CAT, *(0,) * 8, COMMA, 0, 0, END)
    assert chunk.weights[2:11] == (*(1.2,) * 8, 1.0)


def test_first_of_two_names_with_the_same_tokens_counts() -> None:
    (chunk,) = split_chunks("bad  hand", options())
    assert chunk.embeddings == (UsedEmbedding(1, "Bad Hand"),)


def test_embedding_does_not_straddle_chunks() -> None:
    first, second = split_chunks("cat " * 70 + "easynegative", options())
    assert len(content(first)) == 70
    assert second.embeddings == (UsedEmbedding(1, "easynegative"),)


def test_vectors_after_a_comma_stay_in_the_closed_chunk_as_in_a1111() -> None:
    first, second = split_chunks("cat " * 70 + ", easy dog dog dog", options())
    assert first.embeddings == (UsedEmbedding(72, "easy"),)
    assert first.tokens[72] == END
    assert content(second) == [0, 0, DOG, DOG, DOG]
    assert second.embeddings == ()


def test_prompt_of_too_many_chunks_is_refused() -> None:
    assert len(split_chunks("BREAK " * (MOST_CHUNKS - 1) + "cat", options())) == MOST_CHUNKS
    with pytest.raises(PromptError, match="chunks"):
        split_chunks("BREAK " * MOST_CHUNKS + "cat", options())


@given(st.lists(st.sampled_from(("cat ", "dog, ", "easynegative ", "huge ", "(", ")", " BREAK ", ",")), max_size=120))
def test_chunks_hold_all_tokens_in_their_order(units: list[str]) -> None:
    chunks = split_chunks("".join(units), options())
    kept = [token for chunk in chunks for token in content(chunk) if token in (CAT, DOG)]
    assert kept == [{"cat ": CAT, "dog, ": DOG}[unit] for unit in units if unit in ("cat ", "dog, ")]


def test_plan_has_a_text_for_each_step_with_chunks_of_one_number() -> None:
    planned = plan_prompts("a [cat:dog BREAK dog:2] AND [cat|dog] :0.5", "[easy::1]", Pass(4), options())
    edited, alternating = planned.prompts
    assert [edited.texts[edited.text_at(step)] for step in range(5)] == ["a cat"] * 3 + ["a dog BREAK dog"] * 2
    assert [len(chunks) for chunks in edited.chunks] == [2, 2]
    assert edited.chunks[0][1] == EMPTY_CHUNK
    assert (alternating.weight, alternating.texts, alternating.counts) == (0.5, (" cat", " dog"), (2, 2))
    assert [alternating.text_at(step) for step in range(5)] == [0, 0, 1, 0, 1]
    assert planned.embeddings() == ("easy",)


def test_plan_of_the_second_pass_uses_its_own_steps() -> None:
    planned = plan_prompts("[cat:dog:1.5]", "", Pass(10, hires_steps=4), options())
    assert [planned.prompts[0].text_at(step) for step in range(5)] == [0, 0, 0, 1, 1]


@pytest.mark.parametrize(("text", "is_empty"), [("", True), (" ", False), ("[a::0]", True), ("[a::1]", False)])
def test_negative_prompt_is_empty_only_without_any_text(text: str, is_empty: bool) -> None:
    assert plan_prompts("a", text, Pass(4), options()).negative.is_empty is is_empty


def test_plan_with_too_much_text_at_its_steps_is_refused() -> None:
    with pytest.raises(PromptError, match="65 prompts"):
        plan_prompts("a AND " * 64 + "a", "", Pass(1), options())
    options_of_many = "[" + "|".join(map(str, range(300))) + "]"
    with pytest.raises(PromptError, match="options"):
        plan_prompts(options_of_many + "a" * 20_000, "", Pass(300), options())
    with pytest.raises(PromptError, match="brackets"):
        plan_prompts(options_of_many + "[a|b]" * 2000, "", Pass(300), options())
    with pytest.raises(PromptError, match="chunks"):
        plan_prompts(options_of_many + "BREAK " * 400 + "a", "", Pass(300), options())
