"""From a prompt and a negative prompt to the chunks that are encoded for each step.

Source: A1111 1.10.1 modules/prompt_parser.py `get_learned_conditioning`, `get_multicond_learned_conditioning`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

from engine.prompts.chunks import EMPTY_CHUNK, Chunk, ChunkOptions, split_chunks
from engine.prompts.composition import split_composition
from engine.prompts.editing import PromptSchedule, fixed_schedule, parse_schedule
from engine.prompts.errors import PromptError

MOST_CHARACTERS = 2**20
"""Characters of all the different texts that a prompt means at its steps."""
MOST_SCHEDULE_CHUNKS = 2048
"""Chunks of all these texts."""


@dataclass(frozen=True, slots=True)
class Pass:
    """Steps of the pass that the prompts are planned for, as A1111 counts them: see `parse_schedule`."""

    steps: int
    """Of the first pass."""
    hires_steps: int | None = None
    """Of the second pass of hires fix, where the plan is for it."""
    old_editing: bool = False


@dataclass(frozen=True, slots=True, eq=False)
class PlannedPrompt:
    """One prompt: its different texts, and when each is meant. All texts have the same number of chunks."""

    weight: float
    texts: tuple[str, ...]
    chunks: tuple[tuple[Chunk, ...], ...]
    """Of each text, filled up with empty chunks."""
    entries: tuple[int, ...]
    """Index of the text of each entry of the schedule."""
    _schedule: PromptSchedule

    def text_at(self, step: int) -> int:
        """Index of the text at a step, an evaluation of the network counted from 0."""
        return self.entries[self._schedule.index_at(step)]

    @property
    def counts(self) -> tuple[int, ...]:
        """Entries of the schedule that mean each text."""
        counted = Counter(self.entries)
        return tuple(counted[index] for index in range(len(self.texts)))

    @property
    def is_empty(self) -> bool:
        """Whether it is the empty text at every step; white space is a text."""
        return self.texts == ("",)


@dataclass(frozen=True, slots=True, eq=False)
class PlannedPrompts:
    """The prompts that are joined by AND, and the negative prompt."""

    prompts: tuple[PlannedPrompt, ...]
    negative: PlannedPrompt

    def embeddings(self) -> tuple[str, ...]:
        """Names of the textual inversions that they use, in the order of their first use."""
        return tuple(dict.fromkeys(self._names()))

    def _names(self) -> Iterator[str]:
        for planned in (*self.prompts, self.negative):
            for chunks in planned.chunks:
                for chunk in chunks:
                    yield from (used.name for used in chunk.embeddings)


def plan_prompts(prompt: str, negative_prompt: str, steps: Pass, options: ChunkOptions) -> PlannedPrompts:
    """Plan both prompts. AND in a negative prompt is a word. Raises: PromptError."""
    prompts = tuple(_plan(part.text, part.weight, steps, options) for part in split_composition(prompt))
    return PlannedPrompts(prompts, _plan(negative_prompt, 1.0, steps, options))


def plan_text(text: str, options: ChunkOptions) -> PlannedPrompt:
    """Plan a text that is meant at every step: without editing and AND. Raises: PromptError."""
    return _planned(fixed_schedule(text), 1.0, options)


def _plan(text: str, weight: float, steps: Pass, options: ChunkOptions) -> PlannedPrompt:
    schedule = parse_schedule(text, steps.steps, hires_steps=steps.hires_steps, old=steps.old_editing)
    return _planned(schedule, weight, options)


def _planned(schedule: PromptSchedule, weight: float, options: ChunkOptions) -> PlannedPrompt:
    texts: dict[str, int] = {}
    entries, characters = [], 0
    for _, found in schedule.texts():
        if found not in texts:
            texts[found] = len(texts)
            characters += len(found)
            if characters > MOST_CHARACTERS:
                raise PromptError("The prompt means too many long texts at its steps; use shorter or fewer options.")
        entries.append(texts[found])
    chunks, count = [], 0
    for found in texts:
        chunks.append(split_chunks(found, options))
        count += len(chunks[-1])
        if count > MOST_SCHEDULE_CHUNKS:
            raise PromptError(
                f"The texts that the prompt means at its steps have more than {MOST_SCHEDULE_CHUNKS} chunks."
            )
    most = max(map(len, chunks))
    filled = tuple((*own, *(EMPTY_CHUNK,) * (most - len(own))) for own in chunks)
    return PlannedPrompt(weight, tuple(texts), filled, tuple(entries), schedule)
