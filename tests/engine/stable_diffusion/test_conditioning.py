"""Conditionings of prompts, with text encoders whose outputs are known functions of their tokens."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import mlx.core as mx
import numpy as np
import pytest

from engine.catalog.spec import Family
from engine.pipelines.stable_diffusion.chunk_encodings import BoundedCache, ChunkEncoder
from engine.pipelines.stable_diffusion.conditioning import Conditioner, Conditioning, PromptPlan, time_ids
from engine.prompts.chunks import EMPTY_CHUNK, Chunk, ChunkOptions, split_chunks
from engine.prompts.embeddings import EmbeddingFile, read_embedding
from engine.prompts.names import EmbeddingNames
from engine.prompts.plan import Pass
from engine.prompts.tokenizer import END, clip_tokenizer
from engine.protocol.sampling import Sampling

LAYERS = 3


@dataclass(frozen=True)
class FakeArchitecture:
    channels: int


@dataclass(frozen=True)
class FakeOutput:
    hidden_states: list[mx.array]
    last: mx.array
    pooled: mx.array


@dataclass
class FakeEncoder:
    """The state after layer k is the embedded tokens times k + 1, plus their sum; the norm adds 100."""

    channels: int
    batches: list[int] = field(default_factory=list)
    tokens: list[list[int]] = field(default_factory=list)

    @property
    def architecture(self) -> FakeArchitecture:
        return FakeArchitecture(self.channels)

    def embed(self, tokens: mx.array) -> mx.array:
        return mx.sin(tokens[..., None] * (1 + mx.arange(self.channels)) * 0.37) + 1.5

    def normalise(self, hidden_state: mx.array) -> mx.array:
        return hidden_state + 100

    def __call__(self, tokens: mx.array, embeddings: mx.array | None = None) -> FakeOutput:
        self.batches.append(tokens.shape[0])
        self.tokens.extend(tokens.tolist())  # type: ignore[arg-type]
        x = self.embed(tokens) if embeddings is None else embeddings
        states = [x * (layer + 1) + mx.sum(x, axis=1, keepdims=True) for layer in range(LAYERS + 1)]
        return FakeOutput(states, self.normalise(states[-1]), mx.sum(x, axis=1) * 7)


def fakes(family: Family) -> list[FakeEncoder]:
    return [FakeEncoder(6), FakeEncoder(10)] if family == "sdxl" else [FakeEncoder(6)]


def plan(
    encoders: list[FakeEncoder],
    family: Family,
    prompt: str,
    negative: str = "",
    *,
    steps: int = 4,
    sampling: Sampling | None = None,
) -> PromptPlan:
    return Conditioner(family, encoders).plan(prompt, negative, Pass(steps), sampling or Sampling())


def rows(conditioning: Conditioning) -> np.ndarray:
    return np.array(conditioning.context)[0]


def chunks(text: str) -> tuple[Chunk, ...]:
    return split_chunks(text, ChunkOptions(EmbeddingNames({})))


def layer(encoder: FakeEncoder, chunk: Chunk, padding: int, number: int) -> np.ndarray:
    return np.array(encoder(mx.array([chunk.padded_with(padding)])).hidden_states[number])[0]


@pytest.mark.parametrize("text", ["a cat", ""])
@pytest.mark.parametrize(("clip_skip", "number"), [(1, 3), (2, 2), (3, 1)])
def test_sd1_reads_an_earlier_layer_after_the_final_norm_for_both_prompts(
    text: str, clip_skip: int, number: int
) -> None:
    (encoder,) = fakes("sd1")
    made = plan([encoder], "sd1", text, text, sampling=Sampling(clip_skip=clip_skip))
    ((weight, positive),), negative = made.at(0)
    expected = layer(encoder, chunks(text)[0], END, number) + 100
    np.testing.assert_allclose(rows(positive), expected, rtol=1e-6)
    np.testing.assert_allclose(rows(negative), expected, rtol=1e-6)
    assert (weight, positive.pooled) == (1.0, None)


@pytest.mark.parametrize("clip_skip", [0, 4, 12])
def test_clip_skip_beyond_the_layers_is_refused(clip_skip: int) -> None:
    with pytest.raises(ValueError, match="clip_skip must be 1 to 3"):
        plan(fakes("sd1"), "sd1", "a", sampling=Sampling(clip_skip=clip_skip)).at(0)


def test_sd2_reads_its_last_layer_pads_with_zero_and_ignores_clip_skip() -> None:
    (encoder,) = fakes("sd2")
    ((_, positive),), _ = plan([encoder], "sd2", "a cat", sampling=Sampling(clip_skip=2)).at(0)
    np.testing.assert_allclose(rows(positive), layer(encoder, chunks("a cat")[0], 0, 3) + 100, rtol=1e-6)
    assert encoder.tokens[0][:6] == [*chunks("a cat")[0].tokens[:3], END, 0, 0]


def test_sdxl_joins_the_second_last_layers_of_both_encoders_without_the_norm() -> None:
    first, second = fakes("sdxl")
    ((_, positive),), _ = plan([first, second], "sdxl", "a cat BREAK a dog", sampling=Sampling(clip_skip=3)).at(0)
    both = chunks("a cat BREAK a dog")
    expected = [np.hstack([layer(first, one, END, 2), layer(second, one, 0, 2)]) for one in both]
    np.testing.assert_allclose(rows(positive), np.vstack(expected), rtol=1e-6)
    assert positive.context.shape == (1, 154, 16)


def test_pooled_output_is_that_of_the_last_encoder_for_the_first_chunk() -> None:
    for family in ("sdxl", "sdxl_refiner"):
        encoders = fakes(family)  # type: ignore[arg-type]
        ((_, positive),), _ = plan(encoders, family, "a (cat:1.5) BREAK a dog").at(0)  # type: ignore[arg-type]
        alone = encoders[-1](mx.array([chunks("a cat")[0].padded_with(0)])).pooled
        assert positive.pooled is not None
        np.testing.assert_allclose(np.array(positive.pooled), np.array(alone), rtol=1e-6)


@pytest.mark.parametrize(("family", "zero"), [("sd1", False), ("sd2", False), ("sdxl", True), ("sdxl_refiner", True)])
def test_empty_negative_prompt_is_all_zeros_for_sdxl_only(family: Family, zero: bool) -> None:
    _, negative = plan(fakes(family), family, "a cat").at(0)
    assert (not rows(negative).any()) is zero
    if zero:
        assert negative.pooled is not None
        assert not np.array(negative.pooled).any()
    _, blank = plan(fakes(family), family, "a cat", " ").at(0)
    assert rows(blank).any()
    ((_, positive),), _ = plan(fakes(family), family, "").at(0)
    assert rows(positive).any()


def test_weights_multiply_the_output_and_the_mean_is_restored() -> None:
    (encoder,) = fakes("sd1")
    weights = np.array(chunks("a (cat:1.5)")[0].weights, np.float32)[:, None]
    plain = layer(encoder, chunks("a cat")[0], END, 3) + 100
    ((_, original),), _ = plan([encoder], "sd1", "a (cat:1.5)").at(0)
    np.testing.assert_allclose(rows(original), plain * weights * (plain.mean() / (plain * weights).mean()), rtol=1e-5)
    ((_, unrestored),), _ = plan([encoder], "sd1", "a (cat:1.5)", sampling=Sampling(emphasis="No norm")).at(0)
    np.testing.assert_allclose(rows(unrestored), plain * weights, rtol=1e-5)
    ((_, ignored),), _ = plan([encoder], "sd1", "a (cat:1.5)", sampling=Sampling(emphasis="Ignore")).at(0)
    np.testing.assert_array_equal(rows(ignored), plain)


def test_brackets_are_text_without_emphasis() -> None:
    (encoder,) = fakes("sd1")
    plan([encoder], "sd1", "a (cat:1.5)", sampling=Sampling(emphasis="None")).at(0)
    assert encoder.tokens[0][1 : encoder.tokens[0].index(END)] == clip_tokenizer().encode("a (cat:1.5)")


def test_mean_of_each_encoder_and_each_chunk_is_restored_by_itself() -> None:
    first, second = fakes("sdxl")
    ((_, positive),), _ = plan([first, second], "sdxl", "(a:2) cat BREAK a (dog:0.5)").at(0)
    found = rows(positive)
    for number, chunk in enumerate(chunks("a cat BREAK a dog")):
        own = found[77 * number : 77 * (number + 1)]
        assert own[:, :6].mean() == pytest.approx(layer(first, chunk, END, 2).mean(), rel=1e-5)
        assert own[:, 6:].mean() == pytest.approx(layer(second, chunk, 0, 2).mean(), rel=1e-5)


def test_mean_is_restored_over_all_texts_of_a_schedule_as_a1111_encodes_them_together() -> None:
    (encoder,) = fakes("sd1")
    made = plan([encoder], "sd1", "[a|(b:3)|a]", steps=3)
    first, second = (layer(encoder, chunks(text)[0], END, 3) + 100 for text in ("a", "b"))
    weights = np.array(chunks("(b:3)")[0].weights, np.float32)[:, None]
    factor = (2 * first.mean() + second.mean()) / (2 * first.mean() + (second * weights).mean())
    np.testing.assert_allclose(rows(made.at(1)[0][0][1]), first * factor, rtol=1e-5)
    np.testing.assert_allclose(rows(made.at(2)[0][0][1]), second * weights * factor, rtol=1e-5)


def test_conditioning_changes_with_the_steps_of_both_prompts_and_is_encoded_once() -> None:
    (encoder,) = fakes("sd1")
    made = plan([encoder], "sd1", "[cat:dog:1]", "[ugly::3]", steps=4)
    found = [made.at(step) for step in range(5)]
    assert [one is found[0] for one in found] == [True, True, False, False, False]
    assert found[2] is found[3]
    assert not np.array_equal(rows(found[0][0][0][1]), rows(found[2][0][0][1]))
    assert not np.array_equal(rows(found[3][1]), rows(found[4][1]))
    assert sum(encoder.batches) == 4


def test_prompts_joined_by_and_have_weights_and_one_length() -> None:
    (encoder,) = fakes("sd1")
    prompts, negative = plan([encoder], "sd1", "cat AND dog BREAK dog :0.5").at(0)
    assert [weight for weight, _ in prompts] == [1.0, 0.5]
    cat, dogs = (rows(conditioning) for _, conditioning in prompts)
    assert (cat.shape, dogs.shape, rows(negative).shape) == ((154, 6), (154, 6), (77, 6))
    np.testing.assert_array_equal(cat[77:], np.repeat(cat[76:77], 77, axis=0))


@pytest.mark.parametrize("family", ["sd1", "sdxl"])
def test_shorter_of_both_prompts_is_padded_with_empty_chunks_where_asked(family: Family) -> None:
    sampling = Sampling(pad_cond_uncond=True)
    encoders = fakes(family)
    empty = rows(Conditioner(family, encoders).encode(""))
    prompts, negative = plan(encoders, family, "cat BREAK cat AND dog", sampling=sampling).at(0)
    np.testing.assert_array_equal(rows(negative)[77:], empty)
    assert (rows(negative)[:77].any()) == (family == "sd1")
    prompts, negative = plan(encoders, family, "cat AND dog", "a BREAK b", sampling=sampling).at(0)
    assert [rows(conditioning).shape[0] for _, conditioning in prompts] == [154, 154]
    np.testing.assert_array_equal(rows(prompts[1][1])[77:], empty)


def test_single_text_is_encoded_without_editing() -> None:
    (encoder,) = fakes("sd1")
    Conditioner("sd1", [encoder]).encode("[a:b:3] AND c")
    assert encoder.tokens == [list(chunks("[a:b:3] AND c")[0].tokens)]


def embedding(folder: Path, name: str, **vectors: mx.array) -> EmbeddingFile:
    path = folder / f"{name}.safetensors"
    mx.save_safetensors(str(path), vectors)
    path.chmod(0o644)
    return EmbeddingFile(path, read_embedding(path))


def test_embedding_takes_the_place_of_its_name_in_each_encoder(tmp_path: Path) -> None:
    first, second = fakes("sdxl")
    sks = embedding(tmp_path, "sks", clip_g=mx.full((2, 10), 5.0), clip_l=mx.full((2, 6), 3.0, dtype=mx.float16))
    other = embedding(tmp_path, "cat", emb_params=mx.zeros((1, 6)))
    conditioner = Conditioner("sdxl", [first, second], {"sks": sks, "cat": other})
    made = conditioner.plan("cat sks", "", Pass(1), Sampling())
    ((_, positive),), _ = made.at(0)
    assert made.embeddings == ("sks",)
    tokens = mx.array([chunks("cat")[0].padded_with(END)[:2] + (0, 0) + (END,) * 73])
    embedded = np.array(first.embed(tokens))
    embedded[0, 2:4] = 3.0
    expected = np.array(first(tokens, mx.array(embedded)).hidden_states[-2])[0]
    np.testing.assert_allclose(rows(positive)[:, :6], expected, rtol=1e-5)
    assert ChunkEncoder("sdxl", [first, second], {"sks": sks, "cat": other}).vectors == {"sks": 2}


def test_vectors_that_end_beyond_the_chunk_are_left_out(tmp_path: Path) -> None:
    (encoder,) = fakes("sd1")
    many = embedding(tmp_path, "many", emb_params=mx.ones((30, 6)))
    conditioner = Conditioner("sd1", [encoder], {"many": many})
    prompt = "cat " * 40 + ", many " + "dog " * 5
    ((_, positive),), _ = conditioner.plan(prompt, "", Pass(1), Sampling(comma_padding_backtrack=74)).at(0)
    assert rows(positive).shape == (154, 6)


def test_encodings_are_cached_between_plans_until_they_are_forgotten() -> None:
    (encoder,) = fakes("sd1")
    conditioner = Conditioner("sd1", [encoder])
    for _ in range(2):
        conditioner.plan("(a:1.2) cat", "", Pass(1), Sampling()).at(0)
    assert sum(encoder.batches) == 2
    conditioner.forget()
    conditioner.plan("(a:1.2) cat", "", Pass(1), Sampling()).at(0)
    assert sum(encoder.batches) == 4


def test_chunks_are_encoded_in_bounded_batches() -> None:
    (encoder,) = fakes("sd1")
    found = ChunkEncoder("sd1", [encoder], {}).encode([*chunks(" BREAK ".join(map(str, range(20)))), EMPTY_CHUNK], 1)
    assert len(found) == 21
    assert encoder.batches == [8, 8, 5]


def test_cache_drops_the_least_recently_used_values_above_its_bytes() -> None:
    cache: BoundedCache[str, bytes] = BoundedCache(len, 10)
    for name, size in (("a", 4), ("b", 4), ("a", 5)):
        cache.put(name, bytes(size))
    assert cache.get("b") is not None
    cache.put("c", bytes(5))
    assert [name for name in "abc" if cache.get(name) is not None] == ["b", "c"]
    cache.put("d", bytes(50))
    assert [name for name in "abcd" if cache.get(name) is not None] == ["d"]


@pytest.mark.parametrize(
    ("family", "is_negative", "expected"),
    [
        ("sd1", False, ()),
        ("sdxl", True, (768, 1024, 0, 0, 768, 1024)),
        ("sdxl_refiner", False, (768, 1024, 0, 0, 6.0)),
        ("sdxl_refiner", True, (768, 1024, 0, 0, 2.5)),
    ],
)
def test_time_ids_tell_the_size_of_the_image(family: Family, is_negative: bool, expected: tuple[float, ...]) -> None:
    assert time_ids(family, 1024, 768, is_negative=is_negative) == expected
