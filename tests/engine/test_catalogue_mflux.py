"""The catalogue against mflux: its registry, its pinned commits, what its loaders read, what its commands accept.

A model or a command that a new mflux adds or drops fails here until the catalogue or one of these tables says what
becomes of it.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from fnmatch import fnmatch
from importlib import import_module
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any
from unittest.mock import MagicMock, Mock

import pytest
from PIL import Image

from engine.catalog import CATALOG, EMBEDDED, ModelSpec
from engine.catalog.revisions import MFLUX, OTHERS
from engine.catalog.spec import STABLE_DIFFUSION

FROM_MFLUX = [
    spec
    for spec in CATALOG
    if spec.name != EMBEDDED and spec.unavailable is None and spec.family not in STABLE_DIFFUSION
]
WHOLE = [spec for spec in FROM_MFLUX if not spec.quantize and not spec.stored_bits]

NOT_SERVED: Mapping[str, str] = {
    "dev-controlnet-upscaler": "SeedVR2 enlarges better and needs no prompt",
    "dev-fill-catvton": "tries on clothes only",
}

FIXED_GUIDANCE: Mapping[str, str] = {
    "flux2-klein-4b": "mflux's command refuses all but 1",
    "flux2-klein-9b": "mflux's command refuses all but 1",
    "flux2-klein-9b-kv": "mflux's command refuses all but 1",
    "krea-2": "distilled to 1",
    "krea-2-controlnet-depth": "distilled to 1",
    "anima-turbo": "distilled to 1",
    "fibo-lite": "mflux draws at 1 whatever is said",
}
"""Geometries that mflux's registry says take guidance."""

MORE_TOKENS = dict.fromkeys(("fibo", "fibo-lite", "fibo-edit", "fibo-edit-rmbg"), 2048)
"""What mflux's encoder takes, whatever its registry says."""

_WEIGHTS = "mflux.models.{}_weight_definition"
LOADERS: Mapping[str, tuple[str, str]] = {
    "flux2": ("flux2.weights.flux2", "Flux2KleinWeightDefinition"),
    "z_image": ("z_image.weights.z_image", "ZImageWeightDefinition"),
    "flux1": ("flux.weights.flux", "FluxWeightDefinition"),
    "dev-redux": ("flux.weights.flux", "FluxReduxWeightDefinition"),
    "qwen": ("qwen.weights.qwen", "QwenWeightDefinition"),
    "qwen21": ("qwen21.weights.qwen_image21", "QwenImage21WeightDefinition"),
    "flux3": ("flux3.weights.flux3", "Flux3KleinWeightDefinition"),
    "krea2": ("krea2.weights.krea2", "Krea2WeightDefinition"),
    "ernie": ("ernie_image.weights.ernie", "ErnieWeightDefinition"),
    "moss": ("moss_image.weights.moss_image", "MOSSImageWeightDefinition"),
    "fibo": ("fibo.weights.fibo", "FIBOWeightDefinition"),
    "fibo2": ("fibo2.weights.fibo2", "Fibo2WeightDefinition"),
    "ming": ("ming_image.weights.ming_image", "MingImageWeightDefinition"),
    "ideogram4": ("ideogram4.weights.ideogram4", "Ideogram4WeightDefinition"),
    "boogu": ("boogu.weights.boogu", "BooguWeightDefinition"),
    "lens": ("lens.weights.lens", "LensWeightDefinition"),
    "seedvr2-3b": ("seedvr2.weights.seedvr2", "SeedVR2WeightDefinition3B"),
    "seedvr2-7b": ("seedvr2.weights.seedvr2", "SeedVR2WeightDefinition7B"),
}
"""Geometry or family -> what mflux reads of a repository of it."""

OWN_LAYOUT = {"iris", "anima"}
"""Families whose definition tells what mflux saves, not what their repositories hold."""

COMMANDS: Mapping[str, tuple[str, ...]] = {
    "mflux-generate": ("dev", "schnell", "krea-dev"),
    "mflux-generate-kontext": ("dev-kontext",),
    "mflux-generate-fill": ("dev-fill",),
    "mflux-generate-redux": ("dev-redux",),
    "mflux-generate-depth": ("dev-depth",),
    "mflux-generate-controlnet": ("dev-controlnet-canny", "schnell-controlnet-canny"),
    "mflux-generate-flux2": (
        "flux2-klein-4b",
        "flux2-klein-9b",
        "flux2-klein-9b-kv",
        "flux2-klein-base-4b",
        "flux2-klein-base-9b",
    ),
    "mflux-generate-flux3": ("flux3-image-klein", "flux3-image-klein-base"),
    "mflux-generate-z-image": ("z-image",),
    "mflux-generate-z-image-turbo": ("z-image-turbo",),
    "mflux-generate-z-image-controlnet": ("z-image-turbo-controlnet-union-2.1",),
    "mflux-generate-qwen": ("qwen-image",),
    "mflux-generate-qwen-edit": ("qwen-image-edit", "qwen-image-edit-2511"),
    "mflux-generate-qwen-2.1": ("qwen-image-2.1", "qwen-image-2.1-turbo"),
    "mflux-generate-qwen-2.1-controlnet": (
        "qwen-image-2.1-controlnet-union",
        "qwen-image-2.1-turbo-controlnet-union",
    ),
    "mflux-generate-krea2": ("krea-2", "krea-2-raw"),
    "mflux-generate-krea2-controlnet": ("krea-2-controlnet-depth",),
    "mflux-generate-ernie-image": ("ernie-image",),
    "mflux-generate-ernie-image-turbo": ("ernie-image-turbo",),
    "mflux-generate-moss-image": ("moss-image-sft", "moss-image-base"),
    "mflux-generate-fibo": ("fibo", "fibo-lite"),
    "mflux-generate-fibo-edit": ("fibo-edit", "fibo-edit-rmbg"),
    "mflux-generate-fibo2": ("fibo2",),
    "mflux-generate-fibo2-edit": ("fibo2-edit-turbo",),
    "mflux-generate-ming": ("ming-image-design",),
    "mflux-generate-lens": ("lens-turbo",),
    "mflux-generate-ideogram4": ("ideogram-4-fp8",),
    "mflux-generate-boogu": ("boogu-image-turbo",),
    "mflux-generate-iris": ("iris-3b", "iris-3b-base"),
    "mflux-generate-anima": ("anima-turbo", "anima-aesthetic", "anima-base"),
    "mflux-upscale-seedvr2": ("seedvr2-3b", "seedvr2-7b"),
}

EDITS: Mapping[str, tuple[str, ...]] = {
    "mflux-generate-flux2-edit": COMMANDS["mflux-generate-flux2"],
    "mflux-generate-flux3-edit": COMMANDS["mflux-generate-flux3"],
    "mflux-generate-qwen-2.1-edit": COMMANDS["mflux-generate-qwen-2.1"],
    "mflux-generate-qwen-edit": COMMANDS["mflux-generate-qwen-edit"],
    "mflux-generate-kontext": ("dev-kontext",),
    "mflux-generate-redux": ("dev-redux",),
    "mflux-generate-fibo-edit": ("fibo-edit", "fibo-edit-rmbg"),
    "mflux-generate-fibo2-edit": ("fibo2", "fibo2-edit-turbo"),
}
"""Commands that follow pictures."""

PICTURE_OPTIONS: Mapping[str, tuple[str, ...]] = {
    "mflux-generate-kontext": ("--image-path", "x.png"),
    "mflux-generate-fill": ("--image-path", "x.png", "--masked-image-path", "x.png"),
    "mflux-generate-redux": ("--redux-image-paths", "x.png"),
    "mflux-generate-depth": ("--image-path", "x.png"),
    "mflux-generate-controlnet": ("--controlnet-image-path", "x.png"),
    "mflux-generate-z-image-controlnet": ("--control", "canny:x.png:1"),
    "mflux-generate-qwen-edit": ("--image-paths", "x.png"),
    "mflux-generate-qwen-2.1-controlnet": ("--controlnet-image-path", "x.png"),
    "mflux-generate-krea2-controlnet": ("--depth-image-path", "x.png"),
    "mflux-generate-fibo-edit": ("--image-path", "x.png"),
    "mflux-generate-fibo2-edit": ("--image-paths", "x.png"),
}
"""What a command cannot do without."""

OTHER_STEPS: Mapping[str, tuple[int, str]] = {
    "krea-2-raw": (28, "no command of mflux draws with it; its card says 28"),
    "seedvr2-3b": (32, "a step is a block that its one step goes through"),
    "seedvr2-7b": (36, "a step is a block that its one step goes through"),
}
"""Geometries whose rows have other steps than mflux: how many, and why."""

OTHER_GUIDANCE: Mapping[str, tuple[float | None, float, str]] = {
    "flux2-klein-base-4b": (1.0, 4.0, "1 is none: the command is the distilled models', the card says 4"),
    "flux2-klein-base-9b": (1.0, 4.0, "1 is none: the command is the distilled models', the card says 4"),
    "krea-dev": (3.5, 4.5, "the card says 4.5; the command is FLUX.1 dev's"),
    "z-image": (0.0, 4.0, "mflux reads nothing as 0, which is none: the card says 3 to 5"),
    "krea-2-raw": (None, 4.5, "no command of mflux draws with it; its card says 4.5"),
}
"""Geometries whose rows have another guidance than mflux: mflux's, ours, and why."""

UNRUN = {"krea-2-raw"}
"""No command takes it."""

NOT_OFFERED: Mapping[str, str] = {
    "mflux-concept": "draws heat maps",
    "mflux-concept-from-image": "draws heat maps",
    "mflux-generate-in-context": "two pictures side by side by a LoRA of its own",
    "mflux-generate-in-context-edit": "two pictures side by side by a LoRA of its own",
    "mflux-generate-in-context-catvton": "tries on clothes only",
    "mflux-upscale-controlnet": "SeedVR2 enlarges better and needs no prompt",
}


class Called(BaseException):
    """What a command asked of its pipeline."""

    def __init__(self, arguments: Mapping[str, Any]) -> None:
        self.arguments = arguments


def asked_of_mflux(command: str, geometry: str, monkeypatch: pytest.MonkeyPatch) -> Mapping[str, Any]:
    """What mflux's command hands to `generate_image` where its user names a model and a prompt and nothing else."""
    [entry] = entry_points(group="console_scripts", name=command)
    module = import_module(entry.module)

    def pipeline(real: Any) -> Any:
        def generate_image(*_: Any, **named: Any) -> None:
            taken = inspect.signature(real.generate_image).parameters
            defaults = {name: one.default for name, one in taken.items() if one.default is not inspect.Parameter.empty}
            raise Called({**defaults, **named})

        return Mock(return_value=Mock(generate_image=generate_image))

    for name, found in list(vars(module).items()):
        if inspect.isclass(found) and hasattr(found, "generate_image"):
            monkeypatch.setattr(module, name, pipeline(found))
    for name in ("VAEDecodeOptions", "CallbackManager"):
        if hasattr(module, name):
            monkeypatch.setattr(module, name, MagicMock())
    prompt = '{"short_description": "x", "edit_instruction": "x"}'
    words = [command, "--prompt", prompt, "--model", geometry, "--seed", "1"]
    monkeypatch.setattr("sys.argv", [*words, *PICTURE_OPTIONS.get(command, ())])
    with pytest.raises(Called) as called:
        entry.load()()
    return called.value.arguments


def resolved_guidance(geometry: str, said: float | None, config: Any) -> float | None:
    """What mflux's pipelines make of no guidance; None where they have none."""
    from mflux.cli.defaults import defaults
    from mflux.models.anima.variants.txt2img.anima import Anima
    from mflux.models.fibo2.variants.fibo2_core import _Fibo2Core
    from mflux.models.ideogram4.model.ideogram4_scheduler.scheduler import Ideogram4Scheduler
    from mflux.models.iris.variants.txt2img.iris import Iris

    if said is not None or config.supports_guidance is False:
        return said if config.supports_guidance is not False else None
    if geometry.startswith("anima"):
        return float(Anima.DEFAULT_GUIDANCE[geometry])
    if geometry.startswith("iris"):
        return float(Iris.DEFAULT_GUIDANCE)
    if geometry.startswith("fibo2"):
        return float(_Fibo2Core.DEFAULT_GUIDANCE)
    if geometry.startswith("flux3"):
        return float(defaults.GUIDANCE_SCALE)
    if geometry.startswith("ideogram"):
        return float(Ideogram4Scheduler.get_preset(None).guidance_schedule[-1])
    return 1.0 if geometry.startswith("ming") else 0.0


@pytest.fixture(scope="module")
def registry() -> Mapping[str, Any]:
    from mflux.models.common.config.model_config import AVAILABLE_MODELS

    found: Mapping[str, Any] = AVAILABLE_MODELS
    return found


@pytest.fixture(scope="module")
def commands() -> Mapping[str, Mapping[str, Any]]:
    """What `mflux-capabilities` prints, by command."""
    from mflux.cli.capabilities import build_capabilities

    return {row["command"]: row for row in build_capabilities()["commands"]}


def test_catalogue_serves_every_mflux_model_or_states_why_not(registry: Mapping[str, Any]) -> None:
    served = {spec.geometry for spec in FROM_MFLUX}
    assert served <= set(registry)
    assert served & set(NOT_SERVED) == set(), "take what is served out of NOT_SERVED"
    assert set(registry) - served - set(NOT_SERVED) == set()


@pytest.mark.parametrize("spec", WHOLE, ids=lambda spec: spec.name)
def test_catalogue_row_matches_mflux_registry(spec: ModelSpec, registry: Mapping[str, Any]) -> None:
    config = registry[spec.geometry]
    repos = {spec.repo, *(more.repo for more in spec.also)}
    assert {config.model_name, config.controlnet_model, config.custom_transformer_model} - {None} <= repos
    assert spec.max_sequence in (None, MORE_TOKENS.get(spec.geometry, config.max_sequence_length))
    assert spec.min_steps > 1 or config.sigma_shift_terminal is None, "mflux divides by nothing at a single step"
    low, high = spec.guidance_range
    if config.supports_guidance is False:
        assert low == high
    elif low == high and spec.task == "generate":
        assert spec.geometry in FIXED_GUIDANCE


def test_catalogue_commits_equal_those_pinned_by_mflux() -> None:
    from mflux.models.common.resolution.model_revisions import ModelRevisions

    assert MFLUX.items() <= ModelRevisions.PINNED.items()
    assert not OTHERS.keys() & ModelRevisions.PINNED.keys()
    for spec in FROM_MFLUX:
        assert spec.revision == ModelRevisions.PINNED.get(spec.repo, OTHERS.get(spec.repo or ""))
        for more in spec.also:
            assert more.revision == ModelRevisions.PINNED.get(more.repo)


@pytest.mark.parametrize("spec", WHOLE, ids=lambda spec: spec.name)
def test_catalogue_row_downloads_files_that_mflux_reads(spec: ModelSpec) -> None:
    if spec.family in OWN_LAYOUT:
        return
    place, name = LOADERS.get(spec.geometry) or LOADERS[spec.family]
    definition = getattr(import_module(_WEIGHTS.format(place)), name)
    takes_name = bool(inspect.signature(definition.get_download_patterns).parameters)
    patterns = [*spec.files, *(pattern for more in spec.also for pattern in more.patterns)]
    for wanted in definition.get_download_patterns(*([spec.repo] if takes_name else [])):
        assert any(fnmatch(wanted, pattern) for pattern in patterns), wanted
    folders = {pattern.rpartition("/")[0] for pattern in patterns}
    tokenizers = getattr(definition, "get_tokenizers", list)()
    assert {tokenizer.hf_subdir for tokenizer in tokenizers} <= folders


def test_catalogue_covers_every_mflux_command_or_states_why_not(
    commands: Mapping[str, Mapping[str, Any]], registry: Mapping[str, Any]
) -> None:
    assert {*COMMANDS, *EDITS, *NOT_OFFERED} == set(commands)
    assert not NOT_OFFERED.keys() & {*COMMANDS, *EDITS}
    named = {geometry for geometries in (*COMMANDS.values(), *EDITS.values()) for geometry in geometries}
    assert named <= set(registry)
    assert {spec.geometry for spec in FROM_MFLUX} <= named


@pytest.mark.parametrize("spec", WHOLE, ids=lambda spec: spec.name)
def test_catalogue_row_has_same_capabilities_as_mflux_command(
    spec: ModelSpec, commands: Mapping[str, Mapping[str, Any]]
) -> None:
    command = commands[next(name for name, geometries in COMMANDS.items() if spec.geometry in geometries)]
    if spec.task == "upscale":
        return
    assert spec.lora == command["traits"]["lora"]
    assert spec.init_image or not command["traits"]["img2img"], "we may do more with a picture than mflux, not less"
    assert (spec.max_references > 0) == any(spec.geometry in geometries for geometries in EDITS.values())
    status = next(row["status"] for row in command["options"] if row["flag"] == "--negative-prompt")
    low, high = spec.guidance_range
    # Without guidance there is nothing to stay away from, whatever a command that serves both says.
    assert spec.negative_prompt == (status in {"honored", "conditional"} and low < high)


@pytest.mark.parametrize("spec", WHOLE, ids=lambda spec: spec.name)
def test_catalogue_row_has_mflux_step_count_or_a_stated_reason(spec: ModelSpec) -> None:
    from mflux.cli.defaults.defaults import MODEL_INFERENCE_STEPS

    assert not OTHER_STEPS.keys() & MODEL_INFERENCE_STEPS.keys()
    steps, _ = OTHER_STEPS.get(spec.geometry) or (MODEL_INFERENCE_STEPS[spec.geometry], "")
    assert spec.default_steps == steps
    assert spec.useful_max_steps >= steps


@pytest.mark.parametrize("spec", WHOLE, ids=lambda spec: spec.name)
def test_catalogue_row_passes_same_arguments_as_mflux_command(
    spec: ModelSpec, registry: Mapping[str, Any], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Each command is run up to its pipeline, which is not built."""
    if spec.task == "upscale" or spec.geometry in UNRUN:
        return
    monkeypatch.chdir(tmp_path)
    Image.new("RGB", (64, 64)).save("x.png")
    command = next(name for name, geometries in COMMANDS.items() if spec.geometry in geometries)
    asked = asked_of_mflux(command, spec.geometry, monkeypatch)
    if (steps := asked.get("num_inference_steps")) is not None:
        assert spec.default_steps == steps
    guidance = resolved_guidance(spec.geometry, asked.get("guidance"), registry[spec.geometry])
    if spec.geometry in OTHER_GUIDANCE:
        theirs, ours, _ = OTHER_GUIDANCE[spec.geometry]
        assert (guidance, spec.default_guidance) == (theirs, ours)
    elif spec.guidance_range[0] < spec.guidance_range[1]:
        assert spec.default_guidance == guidance


def test_catalogue_downloads_are_pinned_or_marked_unpinned() -> None:
    for spec in FROM_MFLUX:
        assert (spec.revision is None) == ("no commit is pinned" in spec.description), spec.name
        assert all(more.revision for more in spec.also)
