"""Image of a plan, in as many passes as it takes. It knows backends, no wire and no job."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from PIL import Image, ImageOps

from engine import tiles
from engine.catalog import ModelSpec
from engine.drawing.base import Backend, Decode, FinishedImage, Watcher
from engine.drawing.canvas import to_finished_image
from engine.pass_watcher import PassWatcher
from engine.protocol import Generate, Sampling, SecondPass, steps_to_run

FIRST = "first pass"
"""Name of the first pass's image among the inputs of the second; no blob has this name."""
FILTERS = {"lanczos": Image.Resampling.LANCZOS, "nearest": Image.Resampling.NEAREST}

SaveTemporary = Callable[[FinishedImage], str]
"""Function that writes an image into a temporary file and returns its path."""


def denoise(
    backend: Backend,
    spec: ModelSpec,
    plan: Generate,
    image: int,
    inputs: Mapping[str, str],
    watcher: Watcher,
    save_temporary: SaveTemporary,
) -> Decode:
    """Image number `image` of the plan, from its own input image; in tiles, or with a second pass, as the plan says. It
    is not decoded yet, unless it is made of tiles.

    Raises: as Backend.denoise.
    """
    plan = plan_of_image(plan, image)
    if plan.tiles is not None:
        finished = tiles.draw(backend, spec, plan, plan.tiles, image, inputs, watcher, save_temporary)
        return lambda: finished
    second = plan.second_pass
    if second is None or second.enlarges_latents:
        return backend.denoise(spec, plan, image, inputs, watcher)
    after = steps_to_run(second.steps, second.denoise) if plan.sampling is None else second.steps
    first = PassWatcher(watcher, 0, after)
    path = save_temporary(enlarge(backend.draw(spec, plan, image, inputs, first), second))
    update = {
        "prompt": plan.prompt if second.prompt is None else second.prompt,
        "width_px": second.width_px,
        "height_px": second.height_px,
        "steps": second.steps,
        "init_image": FIRST,
        "further_init_images": (),
        "denoise": 0.0 if first.skipped else second.denoise,
        "second_pass": None,
        "mask": None,
        "paste": None,
    }
    if plan.sampling is not None:
        update |= second_sampling(plan, plan.sampling, second, untouched=first.skipped or second.denoise <= 0)
    over = plan.model_copy(update=update)
    last = PassWatcher(watcher, first.run, 0, own_prompt=over.prompt != plan.prompt)
    return backend.denoise(spec, over, image, {**inputs, FIRST: path}, last)


def second_sampling(plan: Generate, sampling: Sampling, second: SecondPass, *, untouched: bool) -> dict[str, object]:
    """Fields of the second pass's plan for Stable Diffusion; with `untouched` it only enlarges.

    Source: A1111 1.10.1 sample_hr_pass: exactly the steps that were asked for. A refiner goes on with this pass only.
    """
    return {
        "negative_prompt": plan.negative_prompt if second.negative_prompt is None else second.negative_prompt,
        "guidance": plan.guidance if second.guidance is None else second.guidance,
        "sampling": None if untouched else second.sampling_after(sampling, plan.steps),
    }


def plan_of_image(plan: Generate, image: int) -> Generate:
    """The plan with the input image of image number `image`, and the image that the result is pasted into."""
    if not plan.further_init_images:
        return plan
    turn = image % len(plan.init_images)
    paste = plan.paste
    if paste is not None and paste.further_pictures:
        paste = paste.model_copy(update={"picture": (paste.picture, *paste.further_pictures)[turn]})
    return plan.model_copy(update={"init_image": plan.init_images[turn], "paste": paste})


def enlarge(finished: FinishedImage, to: SecondPass) -> FinishedImage:
    """The image scaled to cover the size of the second pass, and cropped to its middle."""
    image = Image.frombytes("RGB", (finished.width_px, finished.height_px), finished.rgb)
    return to_finished_image(ImageOps.fit(image, (to.width_px, to.height_px), FILTERS[to.enlarge]), finished.drawn_px)
