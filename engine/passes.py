"""One picture of a plan, in as many passes as it takes. Knows backends, no wire and no job."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from PIL import Image, ImageOps

from engine import tiles
from engine.backends.base import Backend, Picture, Watcher
from engine.backends.canvas import to_picture
from engine.catalog import ModelSpec
from engine.protocol import Generate, SecondPass, steps_to_run
from engine.watching import PassWatcher

FIRST = "first pass"
"""Under this name the second pass finds the first one's picture: no blob is called so."""
FILTERS = {"lanczos": Image.Resampling.LANCZOS, "nearest": Image.Resampling.NEAREST}

Lay = Callable[[Picture], str]
"""Puts a picture into a file for as long as it is needed; returns the path."""


def draw(
    backend: Backend,
    spec: ModelSpec,
    plan: Generate,
    image: int,
    inputs: Mapping[str, str],
    watcher: Watcher,
    lay: Lay,
) -> Picture:
    """Picture number `image`, begun from its own input picture; in tiles, or drawn over once more, as the plan says.

    Raises: as Backend.draw.
    """
    plan = begun_from_its_own(plan, image)
    if plan.tiles is not None:
        return tiles.draw(backend, spec, plan, plan.tiles, image, inputs, watcher, lay)
    second = plan.second_pass
    if second is None:
        return backend.draw(spec, plan, image, inputs, watcher)
    after = steps_to_run(second.steps, second.denoise)
    first = PassWatcher(watcher, 0, after)
    path = lay(enlarged(backend.draw(spec, plan, image, inputs, first), second))
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
    over = plan.model_copy(update=update)
    return backend.draw(spec, over, image, {**inputs, FIRST: path}, PassWatcher(watcher, first.run, 0))


def begun_from_its_own(plan: Generate, image: int) -> Generate:
    """The plan with the input picture of picture number `image`, and what that is laid into."""
    if not plan.further_init_images:
        return plan
    turn = image % len(plan.init_images)
    paste = plan.paste
    if paste is not None and paste.further_pictures:
        paste = paste.model_copy(update={"picture": (paste.picture, *paste.further_pictures)[turn]})
    return plan.model_copy(update={"init_image": plan.init_images[turn], "paste": paste})


def enlarged(picture: Picture, to: SecondPass) -> Picture:
    """The picture covering the size of the second pass, its middle cut out."""
    image = Image.frombytes("RGB", (picture.width_px, picture.height_px), picture.rgb)
    return to_picture(ImageOps.fit(image, (to.width_px, to.height_px), FILTERS[to.enlarge]), picture.drawn_px)
