"""A picture by mflux's own class for a plan of the engine's: what the engine must draw pixel for pixel.

Nothing of the engine's families is used; by which schedule a picture begins from another is said by the caller.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest import mock
from unittest.mock import Mock

from PIL.Image import Image, composite

from engine.drawing.canvas import opaque, open_input
from engine.protocol import Generate
from tests.support.engine_studio import Studio
from tests.support.toys import found

_AT = "mflux.models"
PIPELINES = {
    "flux2-klein-4b": f"{_AT}.flux2:Flux2Klein",
    "flux3-klein": f"{_AT}.flux3.variants:Flux3Klein",
    "krea-2-raw": f"{_AT}.krea2:Krea2",
    "krea-2-controlnet-depth": f"{_AT}.krea2.variants.controlnet.krea2_controlnet:Krea2Controlnet",
    "ernie-image": f"{_AT}.ernie_image:ErnieImage",
    "moss-image": f"{_AT}.moss_image:MOSSImage",
    "boogu-image": f"{_AT}.boogu:BooguImage",
    "anima-base": f"{_AT}.anima:Anima",
    "ideogram-4": f"{_AT}.ideogram4:Ideogram4",
    "fibo2": f"{_AT}.fibo2.variants:Fibo2",
    "qwen-image-2.1": f"{_AT}.qwen21.variants.edit.qwen_image_21_edit:QwenImage21Edit",
    "qwen-image-2.1-turbo-controlnet-canny": (
        f"{_AT}.qwen21.variants.controlnet.qwen_image_21_controlnet:QwenImage21Controlnet"
    ),
    "flux1-dev": f"{_AT}.flux.variants.txt2img.flux:Flux1",
    "flux1-kontext-dev": f"{_AT}.flux.variants.kontext.flux_kontext:Flux1Kontext",
    "flux1-fill-dev": f"{_AT}.flux.variants.fill.flux_fill:Flux1Fill",
    "flux1-depth-dev": f"{_AT}.flux.variants.depth.flux_depth:Flux1Depth",
    "flux1-redux-dev": f"{_AT}.flux.variants.redux.flux_redux:Flux1Redux",
    "flux1-schnell-controlnet-canny": f"{_AT}.flux.variants.controlnet.flux_controlnet:Flux1Controlnet",
    "qwen-image": f"{_AT}.qwen.variants.txt2img.qwen_image:QwenImage",
    "qwen-image-edit-2511": f"{_AT}.qwen.variants.edit.qwen_image_edit:QwenImageEdit",
    "z-image": f"{_AT}.z_image:ZImage",
    "z-image-turbo-controlnet-canny": f"{_AT}.z_image.variants.controlnet:ZImageTurboControlnet",
    "fibo": f"{_AT}.fibo.variants.txt2img.fibo:FIBO",
    "fibo-edit": f"{_AT}.fibo.variants.edit.fibo_edit:FIBOEdit",
    "iris-3b": f"{_AT}.iris.variants:Iris",
    "iris-3b-base": f"{_AT}.iris.variants:Iris",
    "lens-turbo": f"{_AT}.lens.variants.txt2img.lens_image:LensImage",
    "ming-image": f"{_AT}.ming_image:MingImage",
}
"""By a row's name, as module:class."""
EDITORS = {
    "flux2-klein-4b": f"{_AT}.flux2.variants.edit.flux2_klein_edit:Flux2KleinEdit",
    "flux3-klein": f"{_AT}.flux3.variants:Flux3KleinEdit",
    "fibo2": f"{_AT}.fibo2.variants:Fibo2Edit",
}
"""Of those for which mflux has another class where there are references."""


class Alone:
    """Calls mflux's class of a toy, which must be in place, for plans as a studio's; `bits` and `loras`, files with
    their scales, are mflux's own, `baked` says that it adds them to the weights.
    """

    def __init__(
        self, studio: Studio, *, bits: int | None = None, loras: Sequence[tuple[Path, float]] = (), baked: bool = False
    ) -> None:
        self._studio = studio
        self._bits = bits
        self._loras = loras
        self._baked = baked
        self._pipelines: dict[str, Any] = {}

    def draw(self, plan: Generate, schedule: tuple[int, float] | None = None) -> Image:
        """The picture, with what a mask keeps; inputs have its size. `schedule` is steps and `image_strength`, where it
        begins from another.
        """
        toy = self._studio.spec.name
        place = EDITORS[toy] if plan.references and toy in EDITORS else PIPELINES[toy]
        if place not in self._pipelines:
            self._pipelines[place] = self._built(found(place), plan)
        pipeline = self._pipelines[place]
        asked = {
            "seed": plan.seeds[0],
            "prompt": plan.prompt,
            "num_inference_steps": plan.steps,
            "width": plan.width_px,
            "height": plan.height_px,
            "guidance": plan.guidance,
            "negative_prompt": plan.negative_prompt,
            "warn_on_caption_issues": False,
        }
        takes = inspect.signature(pipeline.generate_image).parameters
        asked = {name: value for name, value in asked.items() if name in takes}
        if schedule is not None and plan.init_image is not None:
            steps, strength = schedule
            picture = self._studio.inputs[plan.init_image]
            asked |= {"num_inference_steps": steps, "image_path": picture, "image_strength": strength}
        made = opaque(pipeline.generate_image(**asked, **self._pictures(plan)).image)
        if plan.mask is None or plan.init_image is None:
            return made
        kept, mask = (open_input(self._studio.inputs[name]) for name in (plan.init_image, plan.mask))
        return composite(made, kept, mask.convert("L"))

    def _pictures(self, plan: Generate) -> Mapping[str, Any]:
        inputs = self._studio.inputs
        references = [inputs[name] for name in plan.references]
        match self._studio.spec.name:
            case "flux1-kontext-dev" | "fibo-edit":
                return {"image_path": references[0]}
            case "flux1-redux-dev":
                return {"redux_image_paths": references}
            case "flux1-fill-dev":
                assert plan.init_image is not None
                assert plan.mask is not None
                return {"image_path": inputs[plan.init_image], "masked_image_path": inputs[plan.mask]}
            case _ if plan.control is not None:
                return self._followed(inputs[plan.control.image], plan.control.strength)
            case _:
                return {"image_paths": references} if references else {}

    def _followed(self, picture: str, strength: float) -> Mapping[str, Any]:
        match self._studio.spec.name:
            case "flux1-depth-dev" | "krea-2-controlnet-depth":
                return {"depth_image_path": picture}
            case "z-image-turbo-controlnet-canny":
                from mflux.models.z_image.variants.controlnet import ControlSpec, ControlType

                spec = ControlSpec(type=ControlType("canny"), image_path=Path(picture), strength=strength)
                return {"controls": [spec], "controlnet_strength": 1.0}
            case _:
                return {"controlnet_image_path": picture, "controlnet_strength": strength}

    def _built(self, pipeline: Any, plan: Generate) -> Any:
        """mflux's class with everything in the model's own folder, but for a ControlNet that has a place of its own."""
        spec, folder = self._studio.spec, whole(self._studio)
        takes = inspect.signature(pipeline).parameters
        said: dict[str, Any] = {"quantize": self._bits, "model_path": str(folder)}
        if self._loras:
            files, scales = zip(*self._loras, strict=True)
            said |= {"lora_paths": [str(file) for file in files], "lora_scales": list(scales)}
            if "bake_lora" in takes:
                said["bake_lora"] = self._baked
        if "controlnet_path" in takes and self._studio.also and spec.family != "flux1":
            said |= {"model_path": str(self._studio.model), "controlnet_path": self._studio.also[0]}
        if spec.name == "krea-2-controlnet-depth":
            assert plan.control is not None
            said["controlnet_strength"] = plan.control.strength
        if spec.name == "lens-turbo":
            said["encoder_path"] = str(folder / "encoder")
        rows = found(f"{_AT}.common.config.model_config:AVAILABLE_MODELS")
        with _offline(folder):
            return pipeline(model_config=rows[spec.geometry], **said)


def whole(studio: Studio) -> Path:
    """The folder of a studio's model, with what was parted from it."""
    if not studio.also:
        return studio.model
    folder = studio.model.with_name("whole")
    if not folder.exists():
        folder.mkdir()
        for part in (*studio.model.iterdir(), *studio.model.with_name("also").iterdir()):
            (folder / part.name).symlink_to(part)
    return folder


@contextmanager
def _offline(folder: Path) -> Iterator[None]:
    """Lens's VAE lies in the folder; depths come ready, so that nothing estimates them. mflux would fetch both."""
    vae = mock.patch.object(found(f"{_AT}.lens.variants.txt2img.lens_image"), "VAE_REPO", str(folder / "klein"))
    depths = mock.patch.object(found(f"{_AT}.flux.flux_initializer"), "DepthPro", Mock)
    with vae, depths:
        yield
