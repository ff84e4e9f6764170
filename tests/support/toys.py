"""Model families with random weights at toy width, through mflux's own classes: real code, no meaning."""

from __future__ import annotations

import importlib
import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import reduce
from pathlib import Path
from typing import Any
from unittest import mock

from tests.support import toy_parts
from tests.support.engine import SPECS
from tests.support.engine_toy import save_toy_tokenizer

CHAT_TEMPLATE = "{% for message in messages %}<{{ message['role'] }}>{{ message['content'] }}{% endfor %}"


@dataclass(frozen=True)
class Toy:
    """`name` is a row's; `initializer` and `definition` are mflux's, as module:class; `parts` builds what it would;
    there is no `initializer` where mflux reads the widths from the model's own files.
    """

    name: str
    initializer: str | None
    definition: str
    parts: Callable[[], dict[str, Any]]
    tokenizers: tuple[str, ...] = ("tokenizer",)
    changed: tuple[tuple[str, str, Any], ...] = ()
    """What of mflux has another value: module or module:class, attribute, value."""
    remade: tuple[tuple[str, str, Callable[[Any], Any]], ...] = ()
    """As `changed`, but made of what is there."""
    builder: str = "_init_models"
    """The initialiser's method that `parts` stands for."""
    tokens: int | None = None
    """How many of a prompt count, where mflux pads it to its own number."""
    also: tuple[str, ...] = ()
    """The folders of a saved model that otherwise come from a repository of their own."""
    lora: tuple[str, int] | None = None
    """A layer that every picture goes through, and its width in and out."""
    more: Callable[[Path], None] = lambda folder: None
    """Saves what else the family reads."""
    usual: dict[str, Any] = field(default_factory=dict)
    """How it is drawn with where nothing else is said."""

    @contextmanager
    def in_place(self) -> Iterator[None]:
        """mflux builds this family at toy width."""

        def build(model: Any, *_: Any) -> None:
            for name, part in self.parts().items():
                setattr(model, name, part)

        with ExitStack() as stack:
            for place, attribute, value in self.changed:
                stack.enter_context(mock.patch.object(found(place), attribute, value))
            for place, attribute, make in self.remade:
                made = make(getattr(found(place), attribute))
                stack.enter_context(mock.patch.object(found(place), attribute, made))
            if self.initializer is not None:
                stack.enter_context(mock.patch.object(found(self.initializer), self.builder, staticmethod(build)))
            if self.tokens is not None:
                config = found(f"{_AT}.common.config.model_config:AVAILABLE_MODELS")[SPECS[self.name].geometry]
                stack.enter_context(mock.patch.object(config, "max_sequence_length", self.tokens))
            yield

    def save(self, folder: Path) -> None:
        """Random weights, saved as mflux does."""
        os.environ.setdefault("TQDM_DISABLE", "1")
        import mlx.core as mx
        from mflux.models.common.weights.saving.model_saver import ModelSaver

        mx.random.seed(1)
        ModelSaver.save_model(type("Parts", (), self.parts()), None, str(folder), found(self.definition))
        for tokenizer in self.tokenizers:
            save_toy_tokenizer(folder / tokenizer, CHAT_TEMPLATE)
        self.more(folder)

    def part(self, folder: Path) -> tuple[str, ...]:
        """Move what comes from other repositories out of a saved model; a place for each of them."""
        if not self.also:
            return ()
        place = folder.with_name("also")
        place.mkdir()
        parted = [str((folder / name).rename(place / name)) for name in self.also]
        return tuple(parted) if len(parted) == len(SPECS[self.name].also) else (str(place),)

    def save_lora(self, file: Path, rank: int = 4) -> None:
        """Random matrices for `lora`."""
        import mlx.core as mx

        assert self.lora is not None
        layer, width = self.lora
        mx.random.seed(2)
        matrices = {"lora_A": mx.random.normal((rank, width)), "lora_B": mx.random.normal((width, rank))}
        mx.save_safetensors(str(file), {f"{layer}.{name}.weight": value for name, value in matrices.items()})


def found(place: str) -> Any:
    module, _, names = place.partition(":")
    return reduce(getattr, filter(None, names.split(".")), importlib.import_module(module))


_AT = "mflux.models"
_FIBO2_TEXT = f"{_AT}.fibo2.model.fibo2_text_encoder"
_QWEN21_LATENTS = f"{_AT}.qwen21.latent_creator.qwen_image21_latent_creator:QwenImage21LatentCreator"
_MOSS_DRAWS = f"{_AT}.moss_image:MOSSImage.generate_image"
_ERNIE_BATCH = f"{_AT}.ernie_image.model.ernie_text_encoder.prompt_encoder:ErniePromptEncoder.build_text_batch"
TOYS = (
    Toy(
        "flux2-klein-4b",
        f"{_AT}.flux2.flux2_initializer:Flux2Initializer",
        f"{_AT}.flux2.weights.flux2_weight_definition:Flux2KleinWeightDefinition",
        toy_parts.flux2,
        lora=("transformer.transformer_blocks.0.attn.to_q", 64),
    ),
    Toy(
        "flux3-klein",
        f"{_AT}.flux3.flux3_initializer:Flux3Initializer",
        f"{_AT}.flux3.weights.flux3_weight_definition:Flux3KleinWeightDefinition",
        toy_parts.flux3,
        tokenizers=("text_encoder",),
        changed=((f"{_AT}.flux3.model.flux3_text_encoder.prompt_encoder:Flux3PromptEncoder", "OUTPUT_LAYERS", (1, 2)),),
        lora=("transformer.single_transformer_blocks.0.attn.to_q", 64),
    ),
    Toy(
        "krea-2-raw",
        f"{_AT}.krea2:Krea2Initializer",
        f"{_AT}.krea2.weights.krea2_weight_definition:Krea2WeightDefinition",
        toy_parts.krea2,
        changed=((f"{_AT}.krea2.weights.krea2_weight_definition", "KREA2_TEMPLATE", "{}"),),
        lora=("transformer.blocks.0.attn.wq", 128),
    ),
    Toy(
        "ernie-image",
        f"{_AT}.ernie_image:ErnieImageInitializer",
        f"{_AT}.ernie_image.weights.ernie_weight_definition:ErnieWeightDefinition",
        toy_parts.ernie,
        changed=((_ERNIE_BATCH, "__defaults__", (None, None, 64)),),
        lora=("transformer.layers.0.self_attention.to_q", 64),
    ),
    Toy(
        "moss-image",
        f"{_AT}.moss_image:MOSSImageInitializer",
        f"{_AT}.moss_image.weights.moss_image_weight_definition:MOSSImageWeightDefinition",
        toy_parts.moss,
        changed=(
            (f"{_AT}.moss_image:MOSSImage.generate_image", "__defaults__", (50, 1024, 1024, 3.0, None, (1,), None)),
        ),
        lora=("transformer.layers.0.proj.q", 64),
    ),
    Toy(
        "boogu-image",
        f"{_AT}.boogu:BooguInitializer",
        f"{_AT}.boogu.weights.boogu_weight_definition:BooguWeightDefinition",
        toy_parts.boogu,
        tokenizers=("mllm",),
    ),
    Toy(
        "anima-base",
        f"{_AT}.anima:AnimaInitializer",
        f"{_AT}.anima.weights.anima_weight_definition:AnimaWeightDefinition",
        toy_parts.anima,
        more=toy_parts.save_t5,
        lora=("diffusion_model.blocks.0.self_attn.q_proj", 64),
        usual={"negative_prompt": "grey"},
    ),
    Toy(
        "ideogram-4",
        f"{_AT}.ideogram4:Ideogram4Initializer",
        f"{_AT}.ideogram4.weights:Ideogram4WeightDefinition",
        toy_parts.ideogram4,
        changed=((f"{_AT}.ideogram4.latent_creator:Ideogram4LatentCreator", "MIN_DIMENSION", 16),),
        lora=("transformer.layers.0.attention.o", 64),
    ),
    Toy(
        "fibo2",
        f"{_AT}.fibo2.fibo2_initializer:Fibo2Initializer",
        f"{_AT}.fibo2.weights.fibo2_weight_definition:Fibo2WeightDefinition",
        toy_parts.fibo2,
        changed=(
            (f"{_FIBO2_TEXT}.prompt_encoder:Fibo2PromptEncoder", "OUTPUT_LAYERS", ((0, 1, 2), (0, 1, 2))),
            (f"{_AT}.fibo2.variants.edit.fibo2_edit_images:Fibo2EditImages", "AREA", 4096),
            (f"{_FIBO2_TEXT}.fibo2_text_encoder:Fibo2TextEncoder", "IMAGE_TOKEN_ID", 257),
        ),
        tokenizers=("processor",),
        more=toy_parts.save_qwen_images,
        lora=("transformer.layers.0.attention.to_q", 64),
        usual={"negative_prompt": "grey"},
    ),
    Toy(
        "qwen-image-2.1",
        None,
        f"{_AT}.qwen21.weights.qwen_image21_weight_definition:QwenImage21WeightDefinition",
        toy_parts.qwen21,
        changed=((_QWEN21_LATENTS, "dimensions", staticmethod(lambda resolution, ratio: (32, 32))),),
        tokenizers=("processor",),
        more=toy_parts.save_qwen21,
        lora=("transformer.transformer_blocks.0.attn.to_q", 64),
    ),
)
