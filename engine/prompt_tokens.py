"""Prompt tokens: how much of a prompt a text encoder reads, by the model's tokenizer. It loads no weights."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Protocol, cast

from engine.protocol import PromptRead

Span = tuple[int, int]
"""Start and end of a token in its text, in characters; empty for a token that stands for no text."""

MOST_CUT_CHARS = 160
MOST_UNKNOWN = 24
MOST_WORD_CHARS = 40
MARKER = "\ue000"
"""Character for private use that marks the place of the prompt in a template."""


@dataclass(frozen=True, slots=True)
class Cut:
    """Prompt that is not encoded completely: its tokens, how many of them are encoded, and the text after those."""

    tokens: int
    limit: int
    rest: str


class Encoder(Protocol):
    """Text encoder, by its token limit."""

    def count(self, text: str, own: str) -> int:
        """Number of tokens of `own`, the end of `text`, when `text` is encoded."""

    def cut(self, text: str, own: str) -> Cut | None:
        """What is cut off from `own`; None where nothing is."""


class TokenEncoder:
    """Encoder with a token limit that includes the template around the prompt.

    `spans` returns the tokens of a text, and `wrap` puts a text into the template. A tokenizer that cuts keeps the
    first tokens, and those that it adds at the end itself.
    """

    def __init__(
        self,
        spans: Callable[[str], Sequence[Span]],
        limit: int | None,
        wrap: Callable[[str], str] = lambda text: text,
    ) -> None:
        self._spans = spans
        self._limit = limit
        self._wrap = wrap
        self._cut_once = lru_cache(maxsize=32)(self._cut)  # called again for each image of a job

    def count(self, text: str, own: str) -> int:
        whole, begin, end, _ = self._locate(text, own)
        return len(_within(self._spans(whole), begin, end))

    def cut(self, text: str, own: str) -> Cut | None:
        return self._cut_once(text, own)

    def _cut(self, text: str, own: str) -> Cut | None:
        whole, begin, end, words = self._locate(text, own)
        spans = self._spans(whole)
        if self._limit is None or len(spans) <= self._limit:
            return None
        added = next((at for at, (first, last) in enumerate(reversed(spans)) if first < last), 0)
        own_spans, read_spans = _within(spans, begin, end), _within(spans[: self._limit - added], begin, end)
        if len(read_spans) >= len(own_spans):
            return None  # only the end of the template was cut
        rest = words[max(0, own_spans[len(read_spans)][0] - begin) :].strip()
        return Cut(len(own_spans), len(read_spans), rest) if rest else None

    def _locate(self, text: str, own: str) -> tuple[str, int, int, str]:
        """The text in its template, the start and end of `own` in that, and `own` as it is there."""
        whole = self._wrap(text)
        before, found, after = self._wrap(MARKER).partition(MARKER)
        if not found or not (whole.startswith(before) and whole.endswith(after)):
            return whole, 0, len(whole), whole
        end = len(whole) - len(after)
        inner = whole[len(before) : end]
        # A template may strip the text, and convert it to lower case.
        for words in (own, own.strip(), own.rstrip(), own.lstrip(), own.strip().lower()):
            begin = len(inner) - len(words)
            if begin >= 0 and inner[begin:].lower() == words.lower():
                return whole, len(before) + begin, end, words
        return whole, len(before), end, inner


class StrictestEncoder:
    """Several encoders of one prompt: the text counts as encoded where all of them encode it."""

    def __init__(self, *encoders: Encoder) -> None:
        self._encoders = encoders

    def count(self, text: str, own: str) -> int:
        return max(encoder.count(text, own) for encoder in self._encoders)

    def cut(self, text: str, own: str) -> Cut | None:
        cuts = [cut for encoder in self._encoders if (cut := encoder.cut(text, own)) is not None]
        return max(cuts, key=lambda cut: len(cut.rest), default=None)


def tokenizer_encoder(
    tokenizer: Any, limit: int | None, wrap: Callable[[str], str] = lambda text: text, *, special: bool = True
) -> TokenEncoder:
    """Encoder with a tokenizer of transformers, which cuts at the limit; `special` tokens count as well."""

    def spans(text: str) -> Sequence[Span]:
        encoding = tokenizer(text, add_special_tokens=special, return_offsets_mapping=True, verbose=False)
        return cast(Sequence[Span], encoding["offset_mapping"])

    return TokenEncoder(spans, limit, wrap)


def language_encoder(tokenizer: Any, limit: int | None = None) -> TokenEncoder:
    """Encoder with mflux's LanguageTokenizer: in its template, up to its own limit unless another is given."""

    def chat(text: str) -> str:
        message = {"role": "user", "content": text}
        options = {"tokenize": False, "add_generation_prompt": True, **tokenizer.chat_template_kwargs}
        return str(tokenizer.tokenizer.apply_chat_template([message], **options))

    wrap = tokenizer.template.format if tokenizer.template else chat if tokenizer.use_chat_template else str
    return tokenizer_encoder(
        tokenizer.tokenizer, limit or tokenizer.max_length, wrap, special=tokenizer.add_special_tokens
    )


def read_prompt(
    encoder: Encoder | None, field: Any, text: str, own: str, unknown: Iterable[str] = ()
) -> PromptRead | None:
    """Report on how `own`, the end of `text`, is encoded; None where all of it is encoded and known."""
    words = tuple(dict.fromkeys(word[:MOST_WORD_CHARS] for word in unknown))[:MOST_UNKNOWN]
    cut = None if encoder is None else encoder.cut(text, own)
    if cut is not None:
        return PromptRead(field=field, tokens=cut.tokens, limit=cut.limit, cut=shorten(cut.rest), unknown=words)
    if not words:
        return None
    tokens = 0 if encoder is None else encoder.count(text, own)
    return PromptRead(field=field, tokens=tokens, unknown=words)


def shorten(text: str) -> str:
    """The beginning of a text, in one line."""
    words = " ".join(text[: 4 * MOST_CUT_CHARS].split())
    return words if len(words) <= MOST_CUT_CHARS and len(text) <= 4 * MOST_CUT_CHARS else f"{words[:MOST_CUT_CHARS]}…"


def _within(spans: Sequence[Span], begin: int, end: int) -> list[Span]:
    """Spans that stand for some of the text from `begin` to `end`."""
    return [(first, last) for first, last in spans if first < last and first < end and last > begin]
