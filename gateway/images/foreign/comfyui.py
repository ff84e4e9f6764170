"""ComfyUI: the graph in the PNG's text `prompt`, followed from its output back to the first sampler.

In a WebP or JPEG the same text is in EXIF, after `prompt:`. Each node is `{class_type, inputs}`; an input is a value or
a link `[node, output]`. The editor's form, `workflow`, is read if there is no other. Pure.
Source: ComfyUI nodes.py, comfy_extras/nodes_custom_sampler.py, nodes_flux.py.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from gateway.images.exif_text import ASCII_TEXTS
from gateway.images.foreign.comfyui_graph import Graph, Node
from gateway.images.foreign.comfyui_workflow import as_run
from gateway.images.foreign.values import DrawingFields, file_name, json_object, loras, mapping, number, text, whole

PROMPT, WORKFLOW = "prompt", "workflow"
SAVERS = ("SaveImage", "Image Save", "SaveAnimatedWEBP", "SaveAnimatedPNG", "SaveImageWebsocket")
PREVIEW = "PreviewImage"
ZEROED = "ConditioningZeroOut"
IMAGE_INPUTS = (
    *("images", "image", "samples", "latent_image", "latent", "pixels", "latents", "upscaled_image", "samples1"),
    *("optional_latent", "input"),
)
"""Inputs that take an image, along which the graph is followed back."""
TEXT_INPUTS = ("text", "prompt", "text_g", "text_l", "clip_g", "clip_l", "t5xxl", "llama", "qwen25_7b", "bert", "mt5xl")
MODEL_INPUTS = ("ckpt_name", "unet_name", "gguf_name", "model_name", "model_path", "base_ckpt_name")
LORA_INPUTS = ("lora_name", "lora")
MOST_TEXTS = 16
MOST_SAMPLERS = 8
MOST_CONDITIONINGS = 256


def read(texts: Mapping[str, str]) -> DrawingFields | None:
    """Fields of the first sampler; None if no graph samples anything."""
    nodes = json_object(_text(texts, PROMPT))
    if nodes is None and (workflow := json_object(_text(texts, WORKFLOW))) is not None:
        nodes = as_run(workflow)
    graph = None if nodes is None else Graph.of(nodes)
    if graph is None:
        return None
    candidates = [_fields(graph, node) for node in _first_samplers(graph)]
    return _agreed(candidates) if candidates else None


def _text(texts: Mapping[str, str], keyword: str) -> str | None:
    mark = f"{keyword}:"
    for name in ASCII_TEXTS.values():
        written = texts.get(name, "")
        if written[: len(mark)].lower() == mark:
            return written[len(mark) :]
    return texts.get(keyword)


def _agreed(candidates: list[dict[str, object]]) -> DrawingFields:
    """Fields with equal values in all candidates: the file does not say which output of the graph it is."""
    first, *others = candidates
    return {name: value for name, value in first.items() if all(other[name] == value for other in others)}


# ---- which node sampled ------------------------------------------------------------------------------


def _first_samplers(graph: Graph) -> list[Node]:
    """Samplers that take no other sampler's image: second passes, refiners and detailers come later."""
    firsts: list[Node] = []
    seen: set[str] = set()
    waiting = _before(graph, _outputs(graph))
    while waiting and len(seen) < MOST_SAMPLERS:
        node = waiting.pop(0)
        if node.id in seen:
            continue
        seen.add(node.id)
        earlier = _before(graph, [node])
        waiting += earlier
        if not earlier:
            firsts.append(node)
    return firsts


def _outputs(graph: Graph) -> list[Node]:
    """The nodes that save images; otherwise those that show them, otherwise those whose result is not used."""
    nodes = list(graph.nodes.values())
    for savers in (
        [node for node in nodes if node.kind in SAVERS],
        [node for node in nodes if "save" in node.kind.lower() and "images" in node.inputs],
        [node for node in nodes if node.kind == PREVIEW],
    ):
        if _before(graph, savers):
            return savers
    linked = {link for node in nodes for link in graph.links(node)}
    return [node for node in nodes if node.id not in linked]


def _before(graph: Graph, nodes: list[Node]) -> list[Node]:
    """The samplers whose images the nodes take, the nearest on each path; a sampler of `nodes` only through others."""
    samplers: list[Node] = []
    starts = {node.id for node in nodes}
    seen, waiting = set(starts), list(reversed(nodes))
    while waiting:
        at = waiting.pop()
        if at.id not in starts and _samples(at):
            samplers.append(at)
            continue
        for name in reversed(IMAGE_INPUTS if _samples(at) else tuple(at.inputs)):
            target = graph.target(at, name)
            if target is not None and target.id not in seen:
                seen.add(target.id)
                waiting.append(target)
    return samplers


def _samples(node: Node) -> bool:
    has = node.inputs.keys()
    seeded = "seed" in has or "noise_seed" in has or "noise" in has
    guided = "positive" in has or "guider" in has or "conditioning" in has or "text_embeds" in has
    return seeded and guided and ("steps" in has or "sigmas" in has or "sampler" in has)


# ---- fields of a sampler -----------------------------------------------------------------------------


def _fields(graph: Graph, sampler: Node) -> dict[str, object]:
    guider = graph.target(sampler, "guider") or sampler
    sigmas = next((node for node in graph.chain(sampler, "sigmas") if "steps" in node.inputs), sampler)
    chooser = graph.target(sampler, "sampler") or sampler
    noise = graph.target(sampler, "noise") or sampler
    positive = graph.target(guider, "positive") or graph.target(guider, "conditioning") or graph.target(guider, "cond1")
    prompt = _texts(graph, positive, "positive")
    negative = _texts(graph, graph.target(guider, "negative"), "negative")
    distilled = _distilled(graph, positive)
    width, height = _size(graph, sampler)
    model, used = _model(graph, guider if "model" in guider.inputs else sampler)
    denoise = number(graph.value(sigmas, "denoise"))
    return {
        "program": "ComfyUI",
        "prompt": text("\n".join(prompt)),
        "negative_prompt": text("\n".join(negative)),
        "model": model,
        "width": width,
        "height": height,
        "steps": whole(graph.value(sigmas, "steps")),
        "guidance": distilled if distilled is not None else number(graph.value(guider, "cfg")),
        "seed": whole(graph.value(noise, "noise_seed", "seed")),
        "sampler": text(graph.value(chooser, "sampler_name")),
        "scheduler": text(graph.value(sigmas, "scheduler")),
        "image_strength": denoise if denoise is not None and 0 <= denoise < 1 else None,
        "loras": loras(used),
    }


def _texts(graph: Graph, node: Node | None, side: str) -> list[str]:
    """The texts of a conditioning in order, each once; `side` selects the input of nodes that have both."""
    parts: list[str] = []
    ways = graph.ways()
    for at in _conditionings(graph, node, side):
        names = [name for name in TEXT_INPUTS if name in at.inputs] or [side]
        for name in names:
            part = text(graph.joined(at, name, ways))
            if part is not None and part not in parts and len(parts) < MOST_TEXTS:
                parts.append(part)
    return parts


def _conditionings(graph: Graph, node: Node | None, side: str) -> Iterator[Node]:
    """The nodes of a conditioning; each path ends at those that contain its text."""
    seen: set[str] = set()
    waiting = [] if node is None else [node]
    while waiting and len(seen) < MOST_CONDITIONINGS:
        at = waiting.pop()
        if at.id in seen or at.kind == ZEROED:
            continue
        seen.add(at.id)
        yield at
        if any(name in at.inputs for name in TEXT_INPUTS):
            continue
        names = [name for name in at.inputs if name.startswith("conditioning")]
        if side in at.inputs:
            names.append(side)
        if not names and len(links := [name for name in at.inputs if graph.target(at, name)]) == 1:
            names = links  # an unknown node that passes on its only input
        waiting += [target for name in reversed(names) if (target := graph.target(at, name)) is not None]


def _distilled(graph: Graph, positive: Node | None) -> float | None:
    """FLUX's own guidance, which is part of its conditioning; ComfyUI's `cfg` is 1 then."""
    for at in _conditionings(graph, positive, "positive"):
        if "guidance" in at.inputs and (guidance := number(graph.value(at, "guidance"))) is not None:
            return guidance
    return None


def _size(graph: Graph, sampler: Node) -> tuple[int | None, int | None]:
    """Size of the empty latent at the start; an input image's own size is not in the graph."""
    start = next((n for name in ("latent_image", "latent", "samples") if (n := graph.target(sampler, name))), None)
    for at in graph.upstream(start):
        if "width" in at.inputs and "height" in at.inputs and "empty" in at.kind.lower():
            return whole(graph.value(at, "width")), whole(graph.value(at, "height"))
        if "empty_latent_width" in at.inputs:  # the Efficient Loader
            return whole(graph.value(at, "empty_latent_width")), whole(graph.value(at, "empty_latent_height"))
    return None, None


def _model(graph: Graph, node: Node) -> tuple[str | None, list[tuple[object, object]]]:
    """Name of the model's file, and the LoRAs between, the first applied one first."""
    used: list[tuple[object, object]] = []
    for at in graph.chain(node, "model", "base_model", "model1"):
        for name in LORA_INPUTS:
            if isinstance(value := graph.value(at, name), str) and value.lower() != "none":
                used.append((value, graph.value(at, "strength_model", "lora_model_strength", "strength")))
        for row in at.inputs.values():  # rgthree's Power Lora Loader
            if (one := mapping(row)).get("on") is True and "lora" in one:
                used.append((one["lora"], one.get("strength")))
        for name in MODEL_INPUTS:
            if isinstance(value := graph.value(at, name), str):
                return file_name(value), _on(reversed(used))
    return None, _on(reversed(used))


def _on(used: Iterator[tuple[object, object]]) -> list[tuple[object, object]]:
    """The LoRAs without those of strength 0, which change nothing."""
    return [one for one in used if number(one[1]) != 0]
