"""From a body of /v1 to the canonical request that the core takes. Opens no image."""

from __future__ import annotations

import re
from collections.abc import Container, Iterable
from dataclasses import dataclass
from typing import TypeVar

from starlette.requests import Request

from adapters.shared.body import let_go
from adapters.shared.context import core_of, owner_of
from adapters.v1.errors import client_param_names
from adapters.v1.input_images import prepare_inputs
from adapters.v1.payload import Payload
from adapters.v1.request_schemas import ImageBody, InputImageBody
from adapters.v1.state import launches_of
from engine.catalog import ModelSpec
from gateway.errors import ModelNotFound
from gateway.jobs.resolve import Adjustment, GenerationRequest
from gateway.models.library import Library

BORROWED_NAME = re.compile(r"dall-e-[23]|(chat)?gpt-image(-[A-Za-z0-9._-]{1,64})?")
"""Model names of OpenAI's that clients have built in; they mean the default model."""

B = TypeVar("B", bound=ImageBody)


@dataclass(frozen=True, slots=True)
class Submission:
    """A body with the request that the core gets for it."""

    body: ImageBody
    request: GenerationRequest
    names: frozenset[str] = frozenset()
    """The parameters as the client spelled them."""
    adjustments: tuple[Adjustment, ...] = ()
    """What /v1 itself did not do as the client asked."""


def translate_text(request: Request, body: ImageBody, names: Iterable[str]) -> Submission:
    """The submission of a route that draws from text alone; `names` are the parameters that the client sent."""
    body = _with_model_name(request, body)
    return Submission(body, to_request(body, served_names(core_of(request).library)), frozenset(names))


async def translate_images(request: Request, body: InputImageBody, payload: Payload) -> Submission:
    """The submission of a route that takes images, which are stored.

    Raises: ModelNotFound, ModelNotOnDisk, ModelIsDownloading, InvalidRequest, Unavailable, StorageFull.
    """
    core, body = core_of(request), _with_model_name(request, body)
    core.check_waits()  # a client that will be refused later is refused before its images are opened
    served = served_names(core.library)
    spec = core.library.find(library_name(body.model, served))
    await core.service.downloads.need(spec, owner_of(request))
    with client_param_names(payload.names):
        inputs = await prepare_inputs(request, body, payload, spec)
    payload.release_images()
    let_go(request, payload.fields)
    fields = {
        "width_px": inputs.width_px,
        "height_px": inputs.height_px,
        "init_image": inputs.init_image,
        "denoise": inputs.denoise,
        "mask": inputs.mask,
        "references": inputs.references,
    }
    return Submission(
        body, to_request(body, served).model_copy(update=fields), payload.names, adjustments=inputs.adjustments
    )


def _with_model_name(request: Request, body: B) -> B:
    """The body with the library's name of the model in the place of a uid under which it was launched."""
    if body.model is None:
        return body
    name = launches_of(core_of(request), owner_of(request)).model_of(body.model)
    return body if name == body.model else body.model_copy(update={"model": name})


def to_request(body: ImageBody, served: Container[str]) -> GenerationRequest:
    """The request without the images; `served` holds the names and aliases of the library."""
    width_px, height_px = body.size_px
    return GenerationRequest(
        prompt=body.prompt,
        model=library_name(body.model, served),
        negative_prompt=body.negative_prompt,
        width_px=width_px,
        height_px=height_px,
        steps=body.steps,
        guidance=body.guidance,
        seed=None if isinstance(body.seed, tuple) else body.seed,
        seeds=body.seed if isinstance(body.seed, tuple) else (),
        count=body.n,
        sampling=body.sampling,
        loras=tuple(body.loras),
        previews=body.partial_images if body.stream else None,
        memory=body.memory,
    )


def library_name(name: str | None, served: Container[str]) -> str | None:
    """The name that the library is to look up; None, the default model, for one of OpenAI's that is not served."""
    if name is None or name in served or not BORROWED_NAME.fullmatch(name):
        return name
    return None


def find_model(name: str, library: Library) -> ModelSpec:
    """The model of one exact name, OpenAI's own included. Raises: ModelNotFound."""
    if not name:
        raise ModelNotFound(param="model")
    return library.find(library_name(name, served_names(library)))


def served_names(library: Library) -> frozenset[str]:
    """Every name that the library itself answers to."""
    return frozenset(library.aliases) | {spec.name for spec in library.specs}
