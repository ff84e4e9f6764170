"""FLUX.1."""

from __future__ import annotations

from engine.catalog.spec import HubFiles, ModelSpec, at_load

_FILES = (
    "text_encoder/*.safetensors",
    "text_encoder/*.json",
    "text_encoder_2/*.safetensors",
    "text_encoder_2/*.json",
    "transformer/*.safetensors",
    "transformer/*.json",
    "vae/*.safetensors",
    "vae/*.json",
    "tokenizer/**",
    "tokenizer_2/**",
)

_SCHNELL = ModelSpec(
    name="flux1-schnell",
    family="flux1",
    geometry="schnell",
    repo="black-forest-labs/FLUX.1-schnell",
    files=_FILES,
    gated=True,
    licence="Apache-2.0",
    description="FLUX.1 schnell, 12B parameters, distilled",
    size_gb=34.0,
    distilled=True,
    default_steps=4,
    useful_max_steps=8,
    guidance_range=(1.0, 1.0),
    max_sequence=256,
)

_DEV = ModelSpec(
    name="flux1-dev",
    family="flux1",
    geometry="dev",
    repo="black-forest-labs/FLUX.1-dev",
    files=_FILES,
    gated=True,
    licence="FLUX Non-Commercial",
    description="FLUX.1 dev, 12B parameters",
    size_gb=34.0,
    distilled=False,
    default_steps=25,
    useful_max_steps=100,
    default_guidance=3.5,
    max_sequence=512,
)

_KREA = _DEV.model_copy(
    update={
        "name": "flux1-krea-dev",
        "geometry": "krea-dev",
        "repo": "black-forest-labs/FLUX.1-Krea-dev",
        "description": "FLUX.1 Krea dev, 12B parameters",
        "default_guidance": 4.5,
    }
)


def _like_dev(name: str, geometry: str, description: str, **update: object) -> ModelSpec:
    """Row of a model shaped like FLUX.1 dev; its repository is derived from its name unless `update` gives one."""
    repo = f"black-forest-labs/FLUX.1-{name.removeprefix('flux1-').removesuffix('-dev').capitalize()}-dev"
    fields = {"name": name, "geometry": geometry, "repo": repo, "description": f"FLUX.1 {description}, 12B parameters"}
    return _DEV.model_copy(update={**fields, **update})


_KONTEXT = _like_dev(
    "flux1-kontext-dev",
    "dev-kontext",
    "Kontext dev, edits the picture it follows",
    default_guidance=2.5,
    max_references=1,
    needs_reference=True,
)
_FILL = _like_dev(
    "flux1-fill-dev",
    "dev-fill",
    "Fill dev, repaints what a mask shows",
    default_guidance=30.0,
    needs_mask=True,
)
_DEPTH = _like_dev(
    "flux1-depth-dev",
    "dev-depth",
    "Depth dev, follows a depth map",
    default_guidance=10.0,
    control="depth",
)
_REDUX = _like_dev(
    "flux1-redux-dev",
    "dev-redux",
    "Redux dev, varies and mixes pictures",
    repo=_DEV.repo,
    also=(
        HubFiles(
            repo="black-forest-labs/FLUX.1-Redux-dev",
            patterns=("image_encoder/*.safetensors", "image_encoder/*.json", "image_embedder/*"),
            saved_as="image_encoder",
        ),
    ),
    size_gb=35.0,
    max_references=4,
    needs_reference=True,
    init_image=False,
    masks=False,
)
_CANNY = HubFiles(
    repo="InstantX/FLUX.1-dev-Controlnet-Canny",
    patterns=("*.safetensors", "config.json"),
    saved_as="transformer_controlnet",
)


def _outlined(spec: ModelSpec) -> ModelSpec:
    short = spec.name.removeprefix("flux1-")
    update = {
        "name": f"{spec.name}-controlnet-canny",
        "geometry": f"{short}-controlnet-canny",
        "description": f"FLUX.1 {short} with a ControlNet, follows the outlines of a picture",
        "also": (_CANNY,),
        "size_gb": spec.size_gb + 3.6,
        "control": "canny",
        "init_image": False,
        "masks": False,
    }
    return spec.model_copy(update=update)


ROWS = tuple(
    row
    for spec in (_SCHNELL, _DEV, _KREA, _KONTEXT, _FILL, _DEPTH, _REDUX, _outlined(_DEV), _outlined(_SCHNELL))
    for row in at_load(spec, 4, 8)
)
