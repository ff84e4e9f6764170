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
from engine.prompts.names import EmbeddingNames
from engine.protocol.sampling import Sampling

MOST_PROMPTS = 64
"""Prompts that are joined by AND: the network is evaluated for each of them."""
MOST_ITEMS = 2**19
"""Pieces of text and brackets of prompts times the texts that they mean at their steps."""
MOST_CHARACTERS = 2**20
"""Characters of all the different texts that both prompts mean at their steps."""
MOST_CHUNKS = 2048
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


def chunk_options(sampling: Sampling, names: EmbeddingNames) -> ChunkOptions:
    """How the prompts of a job are split; `names` are those of the textual inversions that fit the model."""
    return ChunkOptions(names, sampling.emphasis, sampling.comma_padding_backtrack)


def plan_prompts(prompt: str, negative_prompt: str, steps: Pass, options: ChunkOptions) -> PlannedPrompts:
    """Plan both prompts. AND in a negative prompt is a word. Raises: PromptError."""
    parts = split_composition(prompt)
    if len(parts) > MOST_PROMPTS:
        raise PromptError(f"The prompt joins {len(parts)} prompts by AND; at most {MOST_PROMPTS} are possible.")
    planner = _Planner(options)
    prompts = tuple(planner.plan(_schedule(part.text, steps), part.weight) for part in parts)
    return PlannedPrompts(prompts, planner.plan(_schedule(negative_prompt, steps)))


def plan_text(text: str, options: ChunkOptions) -> PlannedPrompt:
    """Plan a text that is meant at every step: without editing and AND. Raises: PromptError."""
    return _Planner(options).plan(fixed_schedule(text))


def _schedule(text: str, steps: Pass) -> PromptSchedule:
    return parse_schedule(text, steps.steps, hires_steps=steps.hires_steps, old=steps.old_editing)


class _Planner:
    """Plans prompts whose work together is bounded."""

    def __init__(self, options: ChunkOptions) -> None:
        self._options = options
        self._items = self._characters = self._chunks = 0

    def plan(self, schedule: PromptSchedule, weight: float = 1.0) -> PlannedPrompt:
        self._items += schedule.items * len(schedule.ends)
        if self._items > MOST_ITEMS:
            raise PromptError("The prompt has too many brackets for the steps at which it changes; use fewer.")
        texts: dict[str, int] = {}
        entries = []
        for _, text in schedule.texts():
            if text not in texts:
                texts[text] = len(texts)
                self._characters += len(text)
            if self._characters > MOST_CHARACTERS:
                raise PromptError("The prompt means too many long texts at its steps; use shorter or fewer options.")
            entries.append(texts[text])
        chunks = [self._split(text) for text in texts]
        most = max(map(len, chunks))
        filled = tuple((*own, *(EMPTY_CHUNK,) * (most - len(own))) for own in chunks)
        return PlannedPrompt(weight, tuple(texts), filled, tuple(entries), schedule)

    def _split(self, text: str) -> tuple[Chunk, ...]:
        chunks = split_chunks(text, self._options)
        self._chunks += len(chunks)
        if self._chunks > MOST_CHUNKS:
            raise PromptError(f"The texts that the prompt means at its steps have more than {MOST_CHUNKS} chunks.")
        return chunks
