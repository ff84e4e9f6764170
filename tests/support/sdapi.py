"""What the tests of /sdapi/v1 share."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import httpx
import pytest
from PIL import Image

from adapters.sdapi import requests, scripts
from adapters.sdapi.init_images import InputImages
from adapters.sdapi.request_schemas import Img2Img, Txt2Img
from adapters.sdapi.responses import RenderInput
from adapters.shared.body import validated
from engine.catalog import CATALOG
from engine.protocol import Cancelled, Generate, Succeeded
from gateway.jobs.facts import ImageDone, Queued, Started
from gateway.jobs.job import Job
from gateway.jobs.resolve import Adjustment, GenerationRequest, Limits, resolve
from tests.support import a_job
from tests.support.live import Live, live

SMALL = {"prompt": "a red circle", "width": 64, "height": 64, "steps": 4}
LIMITS = Limits()
TINY = next(spec for spec in CATALOG if spec.name == "flux2-tiny")
BASE = next(spec for spec in CATALOG if not spec.distilled)


def fixtures(gateway: str = "gateway", client: str = "client", **options: Any) -> tuple[Any, Any]:
    """Two fixtures of these names: a running gateway for one module, and a client of its /sdapi/v1."""

    @pytest.fixture(scope="module", name=gateway)
    def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Live]:
        with live(tmp_path_factory.mktemp(gateway), **options) as started:
            yield started

    @pytest.fixture(name=client)
    def connected(request: pytest.FixtureRequest) -> Iterator[httpx.Client]:
        url = request.getfixturevalue(gateway).url
        with httpx.Client(base_url=f"{url}/sdapi/v1/", timeout=100) as made:
            yield made

    return running, connected


def an_image(size: tuple[int, int] = (64, 64), colour: str = "red", mode: str = "RGB") -> bytes:
    out = io.BytesIO()
    Image.new(mode, size, colour).save(out, "PNG")
    return out.getvalue()


def noise(size: tuple[int, int]) -> Image.Image:
    """A picture whose pixels differ from their neighbours in every channel."""
    across, down = Image.linear_gradient("L").rotate(90).resize(size), Image.linear_gradient("L").resize(size)
    return Image.merge("RGB", (across, down, Image.effect_noise(size, 80)))


def a_mask(size: tuple[int, int], box: tuple[int, int, int, int]) -> bytes:
    """White in the box, black elsewhere."""
    out = io.BytesIO()
    mask = Image.new("L", size)
    mask.paste(255, box)
    mask.save(out, "PNG")
    return out.getvalue()


def opened(png: bytes) -> Image.Image:
    picture = Image.open(io.BytesIO(png))
    picture.load()
    return picture


def ended(plan: Generate, *, pictures: int | None = None, adjustments: tuple[Adjustment, ...] = ()) -> Job:
    """A job of this plan that drew `pictures` of its pictures, all where None, and was stopped after fewer."""
    job = Job.of(replace(a_job(plan=plan), adjustments=adjustments), 1).apply(Queued(), 10.0)
    job = job.apply(Started(attempt=1), 20.0)
    done = len(plan.seeds) if pictures is None else pictures
    for i in range(done):
        fact = ImageDone(
            image=i,
            seed=plan.seeds[i],
            file=f"{job.id}.1.{i}.png",
            width_px=plan.width_px,
            height_px=plan.height_px,
            drawn_px=(plan.width_px, plan.height_px),
            seconds=1.0,
        )
        job = job.apply(fact, 21.0)
    return job.apply(Succeeded() if done == len(plan.seeds) else Cancelled(), 22.0)


@dataclass(frozen=True)
class Translated:
    """The canonical request, and what of the body has no effect."""

    request: GenerationRequest
    adjustments: tuple[Adjustment, ...]


def to_request(body: Txt2Img | Img2Img, **more: Any) -> Translated:
    """As the route does it, without the images."""
    scripts.check(body)
    requests.check(body)
    return Translated(*requests.to_request(body, **more))


def translated(**body: Any) -> Translated:
    return to_request(validated(Txt2Img, body), checkpoint=None, limits=LIMITS)


def begun(model: type[Txt2Img | Img2Img]) -> InputImages:
    """One stored picture to begin from, where this kind of request needs one."""
    return InputImages(init_images=("0" * 64,)) if model is Img2Img else InputImages()


def told(
    body: dict[str, Any],
    *,
    pictures: int | None = None,
    model: type[Txt2Img | Img2Img] = Txt2Img,
    images: InputImages | None = None,
    **more: Any,
) -> RenderInput:
    asked = validated(model, body)
    found = to_request(asked, checkpoint=None, limits=LIMITS, images=images or begun(model))
    resolution = resolve(found.request, TINY, LIMITS, random_seed=lambda: 7, leniency="drop")
    job = ended(resolution.plan, pictures=pictures, adjustments=resolution.adjustments)
    return RenderInput(asked, job, resolution.plan, found.adjustments, **more)


INIT = base64.b64encode(an_image((96, 64), "blue")).decode()
