"""Images of a request in the roles that a model supports: start, mask, references, control. Pure."""

from __future__ import annotations

from engine.catalog import ModelSpec
from engine.protocol import Control
from gateway.errors import InvalidRequest
from gateway.jobs.adjustments import Adjust, Leniency, lacks
from gateway.jobs.request import GenerationRequest

CONTROL_STRENGTH_MAX = 2


def with_usable_images(
    request: GenerationRequest, spec: ModelSpec, leniency: Leniency, adjust: Adjust
) -> GenerationRequest:
    """The request with the images that the model can use, in the roles that it supports.

    Raises: InvalidRequest for a missing image, or one that cannot be left out.
    """
    update: dict[str, object] = {}
    if request.mask is not None and request.init_image is None:
        raise InvalidRequest("A mask needs a picture that it belongs to.", param="mask")
    if request.mask is not None and not spec.masks:
        lacks(leniency, adjust, "mask", "a mask", f"{spec.name} cannot repaint a part of a picture")
        update |= {"mask": None, "paste": None}
    masked = request.mask is not None and spec.masks
    if spec.needs_mask and not masked:
        raise InvalidRequest(f"{spec.name} repaints a part of a picture: send one with a mask.", param="mask")
    references = _references(request.references, spec, leniency, adjust)
    if request.init_image is not None and not references and spec.needs_reference:
        references = (request.init_image,)
        if not masked:
            update |= {"init_image": None, "further_init_images": ()}
        elif request.denoise is None:
            update |= {"denoise": 1.0}
        adjust("init_image", "a start", "a reference", f"{spec.name} follows a picture rather than begin from it")
    elif request.init_image is not None and not spec.init_image:
        lacks(leniency, adjust, "init_image", "a start", f"{spec.name} cannot begin from a picture")
        update |= {"init_image": None, "further_init_images": ()}
    if spec.needs_reference and not references:
        raise InvalidRequest(f"{spec.name} follows a picture: send a reference.", param="references")
    control = _control(request.control, spec, leniency, adjust)
    return request.model_copy(update={**update, "references": references, "control": control})


def _references(requested: tuple[str, ...], spec: ModelSpec, leniency: Leniency, adjust: Adjust) -> tuple[str, ...]:
    if len(requested) <= spec.max_references:
        return requested
    if spec.max_references:
        raise InvalidRequest(f"{spec.name} takes at most {spec.max_references} reference pictures.", param="references")
    lacks(leniency, adjust, "references", len(requested), f"{spec.name} cannot edit pictures")
    return ()


def _control(requested: Control | None, spec: ModelSpec, leniency: Leniency, adjust: Adjust) -> Control | None:
    if spec.control is None:
        if requested is not None:
            lacks(leniency, adjust, "control", requested.kind, f"{spec.name} has no ControlNet")
        return None
    if requested is None:
        what = "outlines" if spec.control == "canny" else "depth map"
        raise InvalidRequest(f"{spec.name} follows the {what} of a picture: send a control picture.", param="control")
    if requested.kind != spec.control:
        raise InvalidRequest(f"{spec.name} follows {spec.control}, not {requested.kind}.", param="control")
    if not 0.0 <= requested.strength <= CONTROL_STRENGTH_MAX:
        raise InvalidRequest(f"A control's strength must be between 0 and {CONTROL_STRENGTH_MAX}.", param="control")
    return requested
