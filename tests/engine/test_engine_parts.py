"""The engine's pure parts: deadlines, environments, fitting of pictures, schedules and caches."""

import ast
import importlib
import json
import math
import subprocess
import sys
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from PIL import Image, ImageChops

from engine import mlx_build
from engine.catalog import EMBEDDED, EMBEDDED_PATH
from engine.client import EngineOptions, environment
from engine.client.turn import Deadline
from engine.drawing import canvas
from engine.drawing.base import Model, preview_steps
from engine.protocol import Decoding, Drawn, ModelLoaded, ModelLoading, StepDone, steps_to_run
from tests.support.engine import KLEIN, SPECS, Recorder, plan
from tests.support.engine_studio import Studio, save_inputs

ENGINE = Path(environment.ROOT) / "engine"


def stepped(seconds: float) -> StepDone:
    return StepDone(image=0, step=1, steps=4, seconds=seconds)


def test_engine_deadline_follows_the_phase() -> None:
    deadline = Deadline(EngineOptions(load_s=600, first_step_s=500, step_floor_s=60, step_factor=10, decode_s=180))
    assert (deadline.phase, deadline.allowance_s) == ("waiting", 600)
    deadline.on_fact(ModelLoading(model="m"))
    assert (deadline.phase, deadline.allowance_s) == ("loading", 600)
    deadline.on_fact(ModelLoaded(model="m", seconds=1))
    assert (deadline.phase, deadline.allowance_s) == ("drawing", 500)
    deadline.on_fact(stepped(1))
    assert deadline.allowance_s == 60
    for seconds in (20, 20, 200):
        deadline.on_fact(stepped(seconds))
    assert deadline.allowance_s == 200
    deadline.on_fact(Decoding(image=0))
    assert (deadline.phase, deadline.allowance_s) == ("decoding", 180)
    deadline.on_fact(Drawn(image=0, seed=1, spool="x", width_px=1, height_px=1, drawn_px=(1, 1), seconds=1))
    assert (deadline.phase, deadline.allowance_s) == ("drawing", 200)


def test_preview_images_are_spread_evenly_and_never_of_last_step() -> None:
    for steps in range(1, 40):
        for at_most in range(10):
            due = preview_steps(steps, at_most)
            assert len(due) == min(at_most, steps - 1)
            assert due <= set(range(1, steps))


def test_image_to_image_runs_at_least_one_step_and_at_most_requested_steps() -> None:
    assert all(1 <= steps_to_run(s, d / 100) <= s for s in range(1, 30) for d in range(1, 100))


def test_model_with_two_names_is_loaded_once() -> None:
    other = KLEIN.model_copy(update={"name": "other name"})
    assert Model(KLEIN, "/m", 8).key == Model(other, "/m", 8).key
    assert Model(KLEIN, "/m", 8).key != Model(KLEIN, "/m", 4).key != Model(KLEIN, "/n", 4).key


# ---- the child's environment ---------------------------------------------------------------------


@pytest.fixture
def linux_cpu(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    cache = tmp_path / "ld.so.cache"
    cache.write_bytes(b"glibc-ld.so.cache\0libopenblas.so.0\0/usr/lib/libopenblas.so.0\0")
    monkeypatch.setattr(environment, "on_linux_cpu", lambda: True)
    monkeypatch.setattr(environment, "LOADER_CACHE", cache)
    return cache


def test_openblas_is_preloaded_where_it_is_found_and_what_was_preloaded_stays(linux_cpu: Path) -> None:
    mlx = EngineOptions(backend="mlx")
    assert environment.child_environment(mlx, {})["LD_PRELOAD"] == "libopenblas.so.0"
    assert environment.child_environment(mlx, {"LD_PRELOAD": "a.so"})["LD_PRELOAD"] == "a.so:libopenblas.so.0"
    mine = {"LD_PRELOAD": "/opt/libopenblas64.so"}
    assert environment.child_environment(mlx, mine)["LD_PRELOAD"] == "/opt/libopenblas64.so"
    assert "LD_PRELOAD" not in environment.child_environment(EngineOptions(backend="fake"), {})
    linux_cpu.write_bytes(b"nothing")
    assert "LD_PRELOAD" not in environment.child_environment(mlx, {})
    linux_cpu.unlink()
    assert "LD_PRELOAD" not in environment.child_environment(mlx, {})


def test_engine_on_gpu_gets_no_cpu_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(environment, "on_linux_cpu", lambda: False)
    child = environment.child_environment(EngineOptions(backend="mlx"), {})
    assert not {"LD_PRELOAD", "MLX_DISABLE_COMPILE", "OPENBLAS_NUM_THREADS"} & set(child)
    assert child["HF_HUB_OFFLINE"] == "1"


def test_engine_with_cuda_keeps_compiled_kernels_in_a_folder_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    """MLX's own choice is in the temporary folder, where any user could put code that the GPU then runs."""
    monkeypatch.setattr(mlx_build, "sys", SimpleNamespace(platform="linux"))
    monkeypatch.setattr(mlx_build, "is_installed", {"mlx-cuda-13", "mlx-cpu"}.__contains__)
    mlx = EngineOptions(backend="mlx", kernels=Path("/data/kernels"))
    child = environment.child_environment(mlx, {})
    assert child["MLX_PTX_CACHE_DIR"] == "/data/kernels"
    assert not {"LD_PRELOAD", "MLX_DISABLE_COMPILE", "OPENBLAS_NUM_THREADS"} & set(child), "though mlx-cpu is there too"
    assert environment.child_environment(mlx, {"MLX_PTX_CACHE_DIR": "/mine"})["MLX_PTX_CACHE_DIR"] == "/mine"
    assert "MLX_PTX_CACHE_DIR" not in environment.child_environment(EngineOptions(backend="mlx"), {})
    assert "MLX_PTX_CACHE_DIR" not in environment.child_environment(replace(mlx, backend="fake"), {})
    monkeypatch.setattr(mlx_build, "is_installed", {"mlx-cpu"}.__contains__)
    assert "MLX_PTX_CACHE_DIR" not in environment.child_environment(mlx, {})
    assert environment.child_environment(mlx, {})["MLX_DISABLE_COMPILE"] == "1"


def test_memory_of_device_leaves_cuda_what_its_driver_and_libraries_need() -> None:
    gib = 2**30
    assert mlx_build.memory_of({"device_name": "NVIDIA", "free_memory": 20 * gib, "total_memory": 24 * gib}) == int(
        0.95 * 24 * gib
    )
    assert mlx_build.memory_of({"memory_size": 32 * gib, "max_recommended_working_set_size": 22 * gib}) == 22 * gib
    assert mlx_build.memory_of({"architecture": "x86_64"}) is None


def test_engine_keeps_cpu_settings_of_the_user(linux_cpu: Path) -> None:
    mine = {"OPENBLAS_NUM_THREADS": "7", "MLX_DISABLE_COMPILE": "0"}
    child = environment.child_environment(EngineOptions(backend="mlx"), mine)
    assert {key: child[key] for key in mine} == mine


def test_the_engine_never_sees_the_hubs_token() -> None:
    mine = {"HF_TOKEN": "hf_secret", "HUGGING_FACE_HUB_TOKEN": "hf_secret", "PATH": "/bin"}
    child = environment.child_environment(EngineOptions(backend="fake"), mine)
    assert "hf_secret" not in child.values()
    assert child["PATH"] == "/bin"


def test_engine_child_receives_its_limits_and_mlx_obeys_them() -> None:
    mx = pytest.importorskip("mlx.core")
    from engine.backends.mlx import MlxBackend

    memory, cache = 3 * 2**30, 12_000_000
    options = EngineOptions(backend="mlx", memory_limit_bytes=memory, cache_limit_bytes=cache)
    assert environment.child_arguments(options)[-4:] == ["--memory-limit", str(memory), "--cache-limit", str(cache)]
    before = mx.set_memory_limit(2**34), mx.set_cache_limit(2**30)
    try:
        assert MlxBackend(memory_limit_bytes=memory, cache_limit_bytes=cache).memory_limit_bytes == memory
    finally:
        assert (mx.set_memory_limit(before[0]), mx.set_cache_limit(before[1])) == (memory, cache)


def test_cpu_cache_is_emptied_where_the_next_image_has_another_size(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A full cache takes no newer buffers on a CPU: it would be full of sizes that are not asked for again."""
    mx = pytest.importorskip("mlx.core")
    emptied: list[int] = []
    studio = Studio(SPECS[EMBEDDED], EMBEDDED_PATH, inputs=save_inputs(tmp_path))
    studio.load()
    monkeypatch.setattr(mx, "clear_cache", lambda: emptied.append(1))
    sizes = ({"width_px": 32}, {"width_px": 32}, {"width_px": 64}, {"width_px": 64}, {"width_px": 32})
    counts = []
    for size in sizes:
        studio.draw(**size)
        counts.append(len(emptied))
    assert counts == ([1, 1, 2, 2, 3] if studio.backend.device == "cpu" else [0] * 5)


# ---- pictures ------------------------------------------------------------------------------------


def test_image_contain_fit_keeps_proportions_and_fills_rest_from_edges() -> None:
    disc = Image.new("RGB", (128, 128), "blue")
    disc.paste("red", (32, 32, 96, 96))
    for size in ((256, 512), (512, 256), (256, 256), (96, 64)):
        fitted = canvas.contain(disc, size)
        assert fitted.size == size
        box = fitted.getchannel("R").point(lambda value: 255 * (value > 127)).getbbox()
        assert box is not None
        side = min(size) / 2
        assert box[2] - box[0] == pytest.approx(side, abs=2)
        assert box[3] - box[1] == pytest.approx(side, abs=2)
        corners = {fitted.getpixel((x, y)) for x in (0, size[0] - 1) for y in (0, size[1] - 1)}
        assert corners == {(0, 0, 255)}


@pytest.mark.parametrize("size", [(512, 256), (256, 512), (128, 128), (1024, 64)])
def test_image_resized_to_square_is_restored_to_its_shape(size: tuple[int, int]) -> None:
    image = Image.linear_gradient("L").convert("RGB").resize(size)
    back = canvas.uncontain(canvas.contain(image, (128, 128)), size)
    assert back.size == size
    pairs = zip(image.convert("L").tobytes(), back.convert("L").tobytes(), strict=True)
    assert sum(abs(a - b) for a, b in pairs) / (size[0] * size[1]) < 6


def test_image_transparency_is_flattened_on_white(tmp_path: Path) -> None:
    Image.new("RGBA", (4, 4), (0, 0, 0, 0)).save(tmp_path / "clear.png")
    assert canvas.open_input(str(tmp_path / "clear.png")).getpixel((0, 0)) == (255, 255, 255)


# ---- mflux ---------------------------------------------------------------------------------------


def test_img2img_begins_near_the_noise_that_denoise_stands_for() -> None:
    from engine.pipelines.common.noise import REFERENCE_SHIFT, img2img_schedule, shift_sigma
    from engine.pipelines.flux2 import sigma_of

    for tokens in (64, 1024, 4096):
        for steps in (1, 4, 8, 20, 50):
            for denoise in (0.05, 0.1, 0.3, 0.5, 0.75, 0.9, 0.999):
                scheduler_steps, strength = img2img_schedule(steps, denoise, partial(sigma_of, tokens))
                first = max(1, int(scheduler_steps * strength))
                assert scheduler_steps - first == steps_to_run(steps, denoise)
                assert 0 < strength < 1
    wanted = shift_sigma(REFERENCE_SHIFT, 0.1)
    assert wanted == pytest.approx(0.26, abs=0.01)
    scheduler_steps, _ = img2img_schedule(4, 0.1, partial(sigma_of, 4096))
    assert scheduler_steps > 20


def test_prompt_encodings_are_cached_and_oldest_evicted() -> None:
    import mlx.core as mx

    from engine.pipelines.common.prompt_cache import PromptCache

    asked: list[str] = []

    def encode(text: str) -> tuple[mx.array, ...]:
        asked.append(text)
        return mx.zeros((1, 25)), mx.zeros((1, 25))

    known = PromptCache(encode, most_bytes=400)
    for prompt in ("a", "b", "a"):
        known.encode(prompt)
    assert asked == ["a", "b"]
    known.encode("c")
    known.encode("a")
    assert asked == ["a", "b", "c"]
    known.encode("b")
    assert asked == ["a", "b", "c", "b"]


def test_model_klein_gets_negative_prompt_only_with_guidance() -> None:
    import mlx.core as mx

    from engine.pipelines.flux2 import CachedPrompts

    prompts = CachedPrompts(lambda **_: (mx.zeros(1), mx.zeros(1), None, None))
    assert prompts.pair(prompt="a", negative_prompt=" ", guidance=1.0)[2:] == (None, None)
    assert all(part is not None for part in prompts.pair(prompt="a", negative_prompt=" ", guidance=2.0))


def test_model_of_fixed_size_draws_area_around_mask(tmp_path: Path) -> None:
    picture, mask = Image.linear_gradient("L").convert("RGB").resize((640, 480)), Image.new("L", (640, 480))
    mask.paste(255, (500, 40, 600, 120))
    picture.save(tmp_path / "x.png")
    mask.save(tmp_path / "mask.png")
    what = plan(width_px=640, height_px=480, init_image="x", mask="mask", denoise=1.0)
    frame = canvas.frame_of(what, 128, {name: str(tmp_path / f"{name}.png") for name in ("x", "mask")})
    assert frame.drawn == (128, 128)
    assert frame.part is not None
    assert frame.part.box == (475, 5, 625, 155)
    assert frame.mask is not None
    assert frame.mask.size == (128, 128)
    left, _, right, _ = frame.mask.point(lambda value: 255 * (value > 127)).getbbox() or (0, 0, 0, 0)
    assert abs(left - 128 / 6) < 2
    assert abs(right - 128 * 5 / 6) < 2
    finished = frame.finish(Image.new("RGB", (128, 128), "red"))
    assert finished.getpixel((550, 80)) == (255, 0, 0)
    assert ImageChops.difference(finished, picture).getbbox() == (500, 40, 600, 120)


def test_mask_covering_nearly_all_leaves_no_surrounding_area_to_draw(tmp_path: Path) -> None:
    Image.new("RGB", (64, 48)).save(tmp_path / "x.png")
    Image.new("L", (64, 48), 255).save(tmp_path / "mask.png")
    inputs = {name: str(tmp_path / f"{name}.png") for name in ("x", "mask")}
    frame = canvas.frame_of(plan(init_image="x", mask="mask", denoise=1.0), 128, inputs)
    assert frame.part is None
    assert frame.finish(Image.new("RGB", (128, 128), "red")).getpixel((0, 0)) == (255, 0, 0)


def test_klein_gets_exactly_these_arguments(monkeypatch: pytest.MonkeyPatch) -> None:
    from mflux.models.common.config.model_config import AVAILABLE_MODELS

    from engine.pipelines import flux2
    from engine.pipelines.common.base import ImageTask
    from engine.pipelines.common.noise import img2img_schedule

    monkeypatch.setattr(flux2, "Flux2Klein", Recorder)
    painter = flux2.load(Model(KLEIN, "/models/klein", 4))
    assert isinstance(painter, flux2.Flux2Pipeline)
    pipeline: Recorder = painter._pipeline
    assert pipeline.built == {
        "model_path": "/models/klein",
        "quantize": 4,
        "model_config": AVAILABLE_MODELS["flux2-klein-4b"],
    }
    assert len(pipeline.observers) == 1
    watcher: Any = None
    painter.generate(ImageTask(plan(prompt="p"), 0, canvas.Frame((64, 48), (64, 48))), watcher)
    common = {"seed": 7, "prompt": "p", "width": 64, "height": 48, "guidance": 1.0}
    assert pipeline.asked == {**common, "num_inference_steps": 4, "image_path": None, "image_strength": None}
    init = Image.new("RGB", (64, 48))
    half = plan(prompt="p", init_image="x", denoise=0.5)
    painter.generate(ImageTask(half, 0, canvas.Frame((64, 48), (64, 48), init)), watcher)
    steps, strength = img2img_schedule(4, 0.5, partial(flux2.sigma_of, 12))
    assert pipeline.asked == {
        **common,
        "num_inference_steps": steps,
        "image_path": init,
        "image_strength": strength,
    }
    assert len(pipeline.observers) == 1


@pytest.mark.parametrize(
    ("name", "family", "pipeline", "scheduler", "takes"),
    [
        ("flux1-schnell", "flux1", "Flux1", "linear", {"guidance": 1.0}),
        ("flux1-dev-4-bit", "flux1", "Flux1", "linear", {"guidance": 1.0}),
        ("qwen-image", "qwen", "QwenImage", "linear", {"guidance": 1.0, "negative_prompt": "n"}),
        ("z-image-turbo", "z_image", "ZImage", "linear", {"guidance": 1.0, "negative_prompt": "n"}),
        ("z-image", "z_image", "ZImage", "flow_match_euler_discrete", {"guidance": 1.0, "negative_prompt": "n"}),
    ],
)
def test_model_standard_families_get_exactly_these_pipeline_arguments(
    name: str, family: str, pipeline: str, scheduler: str, takes: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    from mflux.models.common.config.model_config import AVAILABLE_MODELS

    from engine import pipelines as families
    from engine.pipelines.common.base import ImageTask
    from engine.pipelines.common.standard_loop import StandardPipeline

    module = importlib.import_module(f"engine.pipelines.{family}")
    monkeypatch.setattr(module, pipeline, Recorder)
    spec = SPECS[name]
    painter = families.load(Model(spec, "/models/x", spec.quantize))
    assert isinstance(painter, StandardPipeline)
    recorder: Recorder = painter._pipeline
    config = AVAILABLE_MODELS[spec.geometry]
    assert recorder.built == {"model_path": "/models/x", "quantize": spec.quantize, "model_config": config}
    assert config.model_name == spec.repo
    watcher: Any = None
    what = plan(prompt="p", negative_prompt="n")
    painter.generate(ImageTask(what, 0, canvas.Frame((64, 48), (64, 48))), watcher)
    common = {"seed": 7, "prompt": "p", "width": 64, "height": 48, "scheduler": scheduler, **takes}
    assert recorder.asked == {**common, "num_inference_steps": 4, "image_path": None, "image_strength": None}
    assert len(recorder.observers) == 1


def test_pipeline_prompt_cache_keeps_newest_entries() -> None:
    from engine.pipelines.common.prompt_cache import BoundedPromptCache

    cache = BoundedPromptCache(most=2)
    for prompt in "abc":
        cache[prompt] = ()
    assert list(cache) == ["b", "c"]


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\x00" * 8,
        b"\xff" * 64,
        (2).to_bytes(8, "little") + b"{}",
        (4).to_bytes(8, "little") + b"null",
        (60).to_bytes(8, "little") + json.dumps({"w": {"dtype": "F32", "data_offsets": [0, 400]}}).ljust(60).encode(),
    ],
)
def test_model_weights_file_truncated_is_refused(content: bytes, tmp_path: Path) -> None:
    from engine.backends.mlx import check_weights
    from engine.drawing.base import BackendError

    (tmp_path / "vae").mkdir()
    (tmp_path / "vae" / "0.safetensors").write_bytes(content)
    with pytest.raises(BackendError) as caught:
        check_weights(tmp_path)
    assert caught.value.code == "model_load_failed"
    assert str(tmp_path) not in caught.value.message


def test_memory_allocation_failure_of_mlx_is_a_memory_error() -> None:
    from engine.backends.mlx import memory_error_or_same

    for text in (
        "[malloc] Unable to allocate 80 bytes.",
        "[metal::malloc] Attempting to allocate 9 bytes",
        "out of memory",
    ):
        assert isinstance(memory_error_or_same(RuntimeError(text)), MemoryError)
    error = RuntimeError("shapes differ")
    assert memory_error_or_same(error) is error


# ---- rooms ---------------------------------------------------------------------------------------


def test_engine_client_module_imports_no_mlx_and_no_pillow() -> None:
    code = "import sys, engine.client; print([m for m in ('mlx', 'mflux', 'PIL', 'numpy') if m in sys.modules])"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, cwd=environment.ROOT, timeout=60, check=True, text=True
    )
    assert done.stdout.strip() == "[]"


def test_engine_imports_mlx_only_in_backend_samplers_and_pipelines() -> None:
    for file in ENGINE.rglob("*.py"):
        names = set()
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.Import):
                names |= {alias.name.split(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom):
                names.add((node.module or "").split(".")[0])
        if names & {"mlx", "mflux"}:
            place = file.relative_to(ENGINE)
            assert place.parts[0] in ("pipelines", "samplers") or place == Path("backends/mlx.py"), place


def test_schedule_of_noise_equals_mflux() -> None:
    from mflux.models.common.schedulers.flow_match_euler_discrete_scheduler import FlowMatchEulerDiscreteScheduler

    from engine.pipelines.flux2 import sigma_of

    steps, tokens = 20, 4096
    _, sigmas = FlowMatchEulerDiscreteScheduler.get_timesteps_and_sigmas(tokens, steps)
    for first, sigma in enumerate(sigmas.tolist()[:-1]):
        assert math.isclose(sigma_of(tokens, steps, first), sigma, rel_tol=1e-4)
