"""Every family at toy width: what is told of a long prompt, held against the tokens that mflux gives its encoder."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from random import Random
from typing import Any
from unittest import mock

import pytest

from engine.drawing.base import BackendError, JobCancelled
from engine.protocol import PromptRead
from tests.engine.test_engine_toys import TOYS
from tests.support.engine import SPECS
from tests.support.engine_studio import Studio, Watching, save_inputs

MOST_TOKENS = 300
"""In the place of what these families' tokenizers cut at, which is up to 4096: toys take as long as whole models."""
READ_WHOLE = ("boogu", "ming", "qwen21")
LETTERS = "".join(Random(1).choices("abcdefghijklmnopqrstuvwxyz", k=700))
"""A token a letter, in these toys; no part of it comes twice."""
LENS = "mflux.models.lens.model.text_encoder.lens_gpt_oss_encoder"


@contextmanager
def cut_early() -> Iterator[None]:
    from mflux.models.common.tokenizer import LanguageTokenizer
    from mflux.models.fibo.model.fibo_text_encoder.prompt_encoder import PromptEncoder
    from mflux.models.fibo2.model.fibo2_text_encoder.prompt_encoder import Fibo2PromptEncoder
    from mflux.models.flux3.model.flux3_text_encoder.prompt_encoder import Flux3PromptEncoder
    from mflux.models.ideogram4.model.ideogram4_text_encoder.tokenizer import Ideogram4Tokenizer

    from engine.pipelines.fibo import TEXT_TOKENS

    def early(kind: type) -> Any:
        real = kind.__init__

        def initialise(made: Any, *given: Any, **named: Any) -> None:
            real(made, *given, **named)
            made.max_length = min(made.max_length, MOST_TOKENS)

        return initialise

    embed = PromptEncoder._get_prompt_embeds

    def embed_early(*, max_sequence_length: int, **named: Any) -> Any:
        assert max_sequence_length == TEXT_TOKENS
        return embed(max_sequence_length=MOST_TOKENS, **named)

    with ExitStack() as stack:
        stack.enter_context(mock.patch.object(PromptEncoder, "_get_prompt_embeds", staticmethod(embed_early)))
        stack.enter_context(mock.patch("engine.pipelines.fibo.TEXT_TOKENS", MOST_TOKENS))
        stack.enter_context(mock.patch(f"{LENS}.render_lens_chat", "<{}<|end|><|start|>assistant>".format))
        for encoder in (Flux3PromptEncoder, Fibo2PromptEncoder):
            stack.enter_context(mock.patch.object(encoder, "MAX_LENGTH", MOST_TOKENS))
        for kind in (LanguageTokenizer, Ideogram4Tokenizer):
            stack.enter_context(mock.patch.object(kind, "__init__", early(kind)))
        yield


@contextmanager
def heard() -> Iterator[list[str]]:
    """The texts of the tokens that mflux makes of prompts."""
    from mflux.models.iris.model.iris_text_encoder.prompt_encoder import IrisPromptEncoder
    from mflux.models.lens.model.text_encoder.lens_gpt_oss_encoder import LensGptOssEncoder
    from transformers import PreTrainedTokenizerBase

    texts: list[str] = []
    encode, iris, lens = PreTrainedTokenizerBase.__call__, IrisPromptEncoder.tokenize, LensGptOssEncoder._template_ids

    def listened(tokenizer: Any, *given: Any, **named: Any) -> Any:
        made = encode(tokenizer, *given, **named)
        if "return_offsets_mapping" not in named:
            ids = made["input_ids"]
            rows = ids if len(ids) and not isinstance(ids[0], int) else [ids]
            texts.extend(tokenizer.decode(row) for row in rows)
        return made

    def listened_iris(prompt: str, tokenizer: Any) -> Any:
        ids, mask = iris(prompt, tokenizer)
        texts.append(tokenizer.tokenizer.decode(ids[0].tolist()))
        return ids, mask

    def listened_lens(encoder: Any, prompt: str) -> Any:
        ids = lens(encoder, prompt)
        texts.append(encoder.tokenizer.decode(ids))
        return ids

    with (
        mock.patch.object(PreTrainedTokenizerBase, "__call__", listened),
        mock.patch.object(IrisPromptEncoder, "tokenize", staticmethod(listened_iris)),
        mock.patch.object(LensGptOssEncoder, "_template_ids", listened_lens),
    ):
        yield texts


@pytest.fixture(scope="module", autouse=True)
def eager() -> Iterator[None]:
    mx = pytest.importorskip("mlx.core")
    mx.disable_compile()
    yield
    mx.enable_compile()


@pytest.mark.parametrize("name", TOYS)
def test_prompt_report_of_long_prompt_equals_mflux_truncation(name: str, tmp_path: Path) -> None:
    toy, spec, prompt = TOYS[name], SPECS[name], LETTERS
    with toy.in_place(), cut_early(), heard() as texts:
        toy.save(tmp_path / "model")
        studio = Studio(spec, tmp_path / "model", also=toy.part(tmp_path / "model"), inputs=save_inputs(tmp_path))
        studio.usual |= toy.usual
        studio.load()
        watching = Watching(cancel_at=1)
        said: dict[str, Any] = {"prompt": prompt}
        if spec.negative_prompt:
            said |= {"negative_prompt": prompt[::-1], "guidance": spec.default_guidance + 1}
        texts.clear()
        if spec.family == "ideogram4":
            with pytest.raises(BackendError, match=f"longer than the {MOST_TOKENS} tokens"):
                studio.draw(watching, **said)
            return
        with pytest.raises(JobCancelled):
            studio.draw(watching, **said)
    found = {one.field: one for one in watching.readings}
    is_edit = spec.geometry.startswith("qwen-image-edit")
    assert ("prompt" in found) is not (spec.family in READ_WHOLE or is_edit)
    assert_told(found.get("prompt"), prompt, texts)
    if spec.negative_prompt:
        assert_told(found.get("negative_prompt"), prompt[::-1], texts)


def assert_told(found: PromptRead | None, prompt: str, texts: list[str]) -> None:
    if found is None:
        assert any(prompt in text for text in texts)
        return
    assert found.limit is not None
    last = prompt[: prompt.index(found.cut[:20])]
    assert any(last in text and prompt[: len(last) + 1] not in text for text in texts)
