"""Prompt tokenizer: byte-level BPE fitted on rendered prompts, in the Qwen2 layout."""

import json
from pathlib import Path
from random import Random

from tokenizers import Regex, Tokenizer, models, pre_tokenizers, trainers
from transformers import Qwen2TokenizerFast
from transformers.models.qwen2.tokenization_qwen2 import PRETOKENIZE_REGEX

from .edits import edit
from .geometry import TEXT_TOKENS, VOCABULARY
from .scenes import prompt, sample_scene

PAD = "<|endoftext|>"
CHAT_TEMPLATE = "{% for message in messages %}{{ ' ' + (message['content'] | trim | lower) }}{% endfor %}"
EXTRA_WORDS = Path(__file__).with_name("extra_words.txt")
"""Words that prompts may use and the rendered data does not."""


def build_tokenizer(folder: Path, seed: int, prompts: int = 60_000) -> None:
    """Fit the tokenizer on random prompts, and write it as a Qwen2 tokenizer folder."""
    rng = Random(seed)
    scenes = [sample_scene(rng, everything=True) for _ in range(prompts)]
    corpus = [f" {prompt(scene, rng).strip().lower()}" for scene in scenes]
    corpus += [f" {edit(scene, rng, everything=True).words}" for scene in scenes[: prompts // 4]]
    corpus += [f" {word}" for word in EXTRA_WORDS.read_text(encoding="utf-8").split() for _ in range(20)]
    fitted = Tokenizer(models.BPE())
    fitted.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(PRETOKENIZE_REGEX), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY - 1,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        min_frequency=2,
        show_progress=False,
    )
    fitted.train_from_iterator(corpus, trainer)
    model = json.loads(fitted.to_str())["model"]
    merges = [tuple(pair) for pair in model["merges"]]
    tokenizer = Qwen2TokenizerFast(vocab=model["vocab"], merges=merges, pad_token=PAD, padding_side="right")
    tokenizer.chat_template = CHAT_TEMPLATE
    tokenizer.model_max_length = TEXT_TOKENS
    tokenizer.save_pretrained(folder, save_jinja_files=False)


def load_tokenizer(folder: Path) -> Qwen2TokenizerFast:
    """Read the tokenizer as the pipeline does."""
    return Qwen2TokenizerFast.from_pretrained(folder, local_files_only=True)


def encode_prompts(tokenizer: Qwen2TokenizerFast, prompts: list[str]):
    """Padded token ids and attention mask of prompts, through the chat template."""
    texts = [f" {text.strip().lower()}" for text in prompts]
    return tokenizer(texts, padding="max_length", max_length=TEXT_TOKENS, truncation=True, return_tensors="pt")
