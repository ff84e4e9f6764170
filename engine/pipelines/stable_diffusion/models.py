"""Loaded models of an image: the base model with its LoRAs and embeddings, the refiner, another VAE."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from engine.checkpoints.kinds import NotACheckpoint
from engine.drawing.base import BackendError
from engine.pipelines.common.lora_stack import Loras, LoraStack, Networks
from engine.pipelines.stable_diffusion.autoencoder import Autoencoder
from engine.pipelines.stable_diffusion.conditioning import Conditioner
from engine.pipelines.stable_diffusion.loading import Parts, load_parts, load_vae
from engine.pipelines.stable_diffusion.network import Network
from engine.pipelines.stable_diffusion.networks.vae import Vae
from engine.pipelines.stable_diffusion.prompts import SizedPrompts
from engine.prompts.embeddings import EmbeddingFile, NotAnEmbedding, read_embedding
from engine.prompts.errors import PromptError
from engine.prompts.plan import Pass
from engine.protocol import Sampling, input_name
from engine.safetensors import UnsafeFile
from engine.samplers.noise_levels import NoiseLevels

INPAINTING_CHANNELS = 9


def load_checkpoint(path: Path, quantize: int | None = None) -> Parts:
    """Networks of a checkpoint. Raises: BackendError with the reason for one that is not complete, OSError."""
    try:
        return load_parts(path, quantize=quantize)
    except NotACheckpoint as error:
        raise BackendError("model_load_failed", f"The model cannot be loaded. {error.reason}") from error


class Model:
    """A loaded checkpoint with its LoRAs and textual inversions."""

    def __init__(self, parts: Parts) -> None:
        self.parts = parts
        self._levels: dict[tuple[bool, bool], NoiseLevels] = {}
        changeable = {name: network for name, network in parts.networks.items() if name != "vae"}
        self._lora_stack = LoraStack(Networks(changeable), parts.family)
        self._encoded_with: tuple[tuple[str, float], ...] = ()
        """LoRAs of the text encoders with which the conditioner's prompts were encoded."""
        self._embedding_paths: dict[str, str] = {}
        self._conditioner = self._new_conditioner({})

    @property
    def is_sdxl(self) -> bool:
        return self.parts.family in ("sdxl", "sdxl_refiner")

    @property
    def is_inpainting(self) -> bool:
        return self.parts.unet.architecture.in_channels == INPAINTING_CHANNELS

    def levels(self, sampling: Sampling) -> NoiseLevels:
        """Noise levels of the model under a sampling."""
        is_zero = self.parts.zero_terminal_snr or sampling.zero_terminal_snr
        key = (is_zero and self.parts.prediction == "v_prediction", sampling.downcast_alphas_cumprod)
        if key not in self._levels:
            self._levels[key] = NoiseLevels(zero_terminal_snr=key[0], downcast=key[1])
        return self._levels[key]

    def network(self, sampling: Sampling) -> Network:
        """The UNet as a denoiser."""
        return Network(self.parts.unet, self.parts.prediction, self.levels(sampling))

    def use(self, loras: Loras, embeddings: Mapping[str, str]) -> None:
        """Use exactly these LoRAs, and these files of textual inversions by name. Raises: LoraFault, BackendError."""
        self._lora_stack.apply(loras)
        if dict(embeddings) != self._embedding_paths:
            self._conditioner = self._new_conditioner(_embedding_files(embeddings))
            self._embedding_paths = dict(embeddings)
        elif self._encoded_with != self._lora_stack.text_encoder_loras:
            self._conditioner.forget()
        self._encoded_with = self._lora_stack.text_encoder_loras

    def prompts(
        self, prompt: str, negative_prompt: str, steps: Pass, sampling: Sampling, size_px: tuple[int, int]
    ) -> SizedPrompts:
        """Conditions of both prompts for an image of this width and height. Raises: BackendError("bad_input")."""
        layers = self.parts.text_encoders[0].architecture.layers
        if self.parts.family == "sd1" and sampling.clip_skip > layers:
            raise BackendError("bad_input", f"clip_skip must be at most {layers} for this model.")
        try:
            plan = self._conditioner.plan(prompt, negative_prompt, steps, sampling)
        except PromptError as error:
            raise BackendError("bad_input", error.message) from error
        return SizedPrompts(plan, self.parts.family, size_px)

    def save(self, folder: Path) -> None:
        """Write the model without its LoRAs. Raises: OSError."""
        self._lora_stack.apply(())
        self._conditioner.forget()
        self.parts.save(folder)

    def _new_conditioner(self, embeddings: Mapping[str, EmbeddingFile]) -> Conditioner:
        return Conditioner(self.parts.family, self.parts.text_encoders, embeddings)


def _embedding_files(paths: Mapping[str, str]) -> dict[str, EmbeddingFile]:
    found = {}
    for name, path in paths.items():
        try:
            found[name] = EmbeddingFile(Path(path), read_embedding(Path(path)))
        except (NotAnEmbedding, UnsafeFile) as error:
            raise BackendError("bad_input", f"Textual inversion '{name}' cannot be used: {error.message}") from error
    return found


class Models:
    """The base model, and what an image needs besides: the last refiner and the last VAE stay loaded.

    `current` is the model that draws now: the base model, or the refiner once it goes on with an image.
    """

    def __init__(self, base: Model) -> None:
        self.base = self.current = base
        self._refiner: tuple[str, Model] | None = None
        self._vae: tuple[str, Vae] | None = None

    def prepare(self, sampling: Sampling, loras: Loras, files: Mapping[str, str]) -> None:
        """Make the base model ready, and drop what the next image does not need. Raises: LoraFault."""
        self.current = self.base
        if sampling.refiner is None:
            self._refiner = None
        if sampling.vae is None:
            self._vae = None
        self.base.use(loras, {name: files[input_name("embedding", name)] for name in sampling.embeddings})

    def autoencoder(self, sampling: Sampling, files: Mapping[str, str]) -> Autoencoder:
        """The VAE that a sampling asks for, else that of the current model, which may be the base model's; its latents
        have the current model's factor.

        Raises: BackendError("bad_input") for a file that cannot be used, or where a model without a VAE gets none.
        """
        current = self.current.parts
        own = self.base.parts if current.own_vae is None else current
        try:
            vae = own.vae if sampling.vae is None else self._loaded_vae(files[input_name("vae", sampling.vae)])
        except NotACheckpoint as error:
            what = "The model's VAE" if sampling.vae is None else f"The VAE file '{sampling.vae}'"
            raise BackendError("bad_input", f"{what} cannot be used. {error.reason}") from error
        return Autoencoder(vae, current.scale_factor)

    def _loaded_vae(self, path: str) -> Vae:
        """Raises: NotACheckpoint, OSError."""
        if self._vae is None or self._vae[0] != path:
            self._vae = path, load_vae(Path(path))
        return self._vae[1]

    def refiner(self, model: str, loras: Loras, sampling: Sampling, files: Mapping[str, str]) -> Model:
        """The refiner of this name, the current model from now on. One of the base model's family gets the same LoRAs
        and textual inversions.
        """
        path = files[input_name("model", model)]
        if self._refiner is None or self._refiner[0] != path:
            self._refiner = None
            self._refiner = path, Model(load_checkpoint(Path(path), self.base.parts.bits))
        found = self._refiner[1]
        if found.parts.family == self.base.parts.family:
            found.use(loras, {name: files[input_name("embedding", name)] for name in sampling.embeddings})
        self.current = found
        return found
