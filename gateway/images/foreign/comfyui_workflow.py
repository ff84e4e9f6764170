"""ComfyUI workflow: the editor's form of a graph as the API's form, for images that contain no other.

A node's values are a list in the order of its widgets, which is known for ComfyUI's own nodes only. Pure.
Source: ComfyUI_frontend workflow schema 0.4 and 1.0; widget order by INPUT_TYPES of ComfyUI nodes.py, comfy_extras.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from gateway.images.foreign.comfyui_graph import MOST_HOPS
from gateway.images.foreign.values import items, mapping

MUTED, BYPASSED = 2, 4
_SEED = ("seed", "")  # the next value says how the seed changes afterwards
_NOISE_SEED = ("noise_seed", "")
_SIZE = ("width", "height", "batch_size")
WIDGETS: Mapping[str, tuple[str, ...]] = {
    "KSampler": (*_SEED, "steps", "cfg", "sampler_name", "scheduler", "denoise"),
    "KSamplerAdvanced": ("add_noise", *_NOISE_SEED, "steps", "cfg", "sampler_name", "scheduler", "start_at_step"),
    "SamplerCustom": ("add_noise", *_NOISE_SEED, "cfg"),
    "RandomNoise": _NOISE_SEED,
    "KSamplerSelect": ("sampler_name",),
    "BasicScheduler": ("scheduler", "steps", "denoise"),
    "CFGGuider": ("cfg",),
    "FluxGuidance": ("guidance",),
    "CLIPTextEncode": ("text",),
    "CLIPTextEncodeFlux": ("clip_l", "t5xxl", "guidance"),
    "EmptyLatentImage": _SIZE,
    "EmptySD3LatentImage": _SIZE,
    "EmptyFlux2LatentImage": _SIZE,
    "CheckpointLoaderSimple": ("ckpt_name",),
    "UNETLoader": ("unet_name",),
    "LoraLoader": ("lora_name", "strength_model", "strength_clip"),
    "LoraLoaderModelOnly": ("lora_name", "strength_model"),
    "PrimitiveInt": ("value",),
    "PrimitiveFloat": ("value",),
    "PrimitiveString": ("value",),
    "PrimitiveStringMultiline": ("value",),
    "StringConcatenate": ("string_a", "string_b", "delimiter"),
}

Row = Mapping[str, Any]


def as_run(workflow: Row) -> dict[str, Any]:
    """Nodes by id for `comfyui_graph.Graph`; empty if there are none."""
    rows = {str(row["id"]): row for row in map(mapping, items(workflow.get("nodes"))) if _is_id(row.get("id"))}
    links = dict(_links(items(workflow.get("links"))))
    return {
        name: {"class_type": row.get("type"), "inputs": dict(_inputs(row, rows, links))}
        for name, row in rows.items()
        if row.get("mode") not in (MUTED, BYPASSED)
    }


def _is_id(value: object) -> bool:
    return isinstance(value, int | str)


def _links(rows: list[Any]) -> Iterator[tuple[Any, tuple[str, int]]]:
    """By link number: the node and output that it comes from."""
    for link in rows:
        match link:
            case [int() as number, int() | str() as origin, int() as slot, *_]:
                yield number, (str(origin), slot)
            case {"id": int() as number, "origin_id": int() | str() as origin, "origin_slot": int() as slot}:
                yield number, (str(origin), slot)


def _inputs(row: Row, rows: Mapping[str, Row], links: Mapping[Any, tuple[str, int]]) -> Iterator[tuple[str, object]]:
    values = row.get("widgets_values")
    if isinstance(values, list):
        names = WIDGETS.get(row["type"], ()) if isinstance(row.get("type"), str) else ()
        yield from ((name, value) for name, value in zip(names, values, strict=False) if name)
    elif isinstance(values, dict):
        yield from values.items()
    for one in map(mapping, items(row.get("inputs"))):
        origin = _origin(one.get("link"), rows, links)
        if origin is not None and isinstance(one.get("name"), str):
            yield one["name"], [origin[0], origin[1]]


def _origin(number: object, rows: Mapping[str, Row], links: Mapping[Any, tuple[str, int]]) -> tuple[str, int] | None:
    """Origin of a link, behind bypassed nodes, which pass on their first input of the same type."""
    for _ in range(MOST_HOPS):
        origin = links.get(number) if isinstance(number, int) else None
        row = None if origin is None else rows.get(origin[0])
        if origin is None or row is None or row.get("mode") != BYPASSED:
            return origin
        outputs = items(row.get("outputs"))
        kind = mapping(outputs[origin[1]]).get("type") if 0 <= origin[1] < len(outputs) else None
        same = (one.get("link") for one in map(mapping, items(row.get("inputs"))) if one.get("type") == kind)
        number = next(same, None)
    return None
