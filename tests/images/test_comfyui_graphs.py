"""ComfyUI's graphs: walked from the output back to the sampler that drew, and to all that it was told."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from gateway.images.provenance import drawing_in
from tests.support.foreign_pictures import INFOTEXT, PROMPT, comfy, comfy_graph, node, png


def graph_says(graph: Mapping[str, Any]) -> dict[str, Any]:
    found = drawing_in(comfy_only(graph))
    return {} if found is None else found.model_dump(exclude_defaults=True)


def comfy_only(graph: Mapping[str, Any]) -> bytes:
    return png({"prompt": json.dumps(graph)}, packed=True)


def flux_graph() -> dict[str, Any]:
    """ComfyUI's FLUX template with a custom sampler, a joined prompt and a zeroed negative."""
    return {
        "1": node("UNETLoader", unet_name="flux1-dev-fp8.safetensors", weight_dtype="default"),
        "2": node("ModelSamplingFlux", max_shift=1.15, base_shift=0.5, width=1024, height=768, model=["1", 0]),
        "3": node("PrimitiveStringMultiline", value="a fox"),
        "4": node("StringConcatenate", string_a=["3", 0], string_b="in the snow", delimiter=" "),
        "5": node("CLIPTextEncodeFlux", clip_l=["4", 0], t5xxl=["4", 0], guidance=1, clip=["99", 0]),
        "6": node("FluxGuidance", guidance=3.5, conditioning=["5", 0]),
        "7": node("BasicGuider", model=["2", 0], conditioning=["6", 0]),
        "8": node("RandomNoise", noise_seed=["9", 0]),
        "9": node("PrimitiveInt", value=77),
        "10": node("KSamplerSelect", sampler_name="euler"),
        "11": node("BasicScheduler", scheduler="beta", steps=28, denoise=1, model=["2", 0]),
        "12": node("EmptySD3LatentImage", width=["14", 0], height=768, batch_size=1),
        "13": node(
            "SamplerCustomAdvanced",
            **{"noise": ["8", 0], "guider": ["7", 0], "sampler": ["10", 0], "sigmas": ["11", 0]},
            latent_image=["12", 0],
        ),
        "14": node("PrimitiveInt", value=1024),
        "15": node("VAEDecode", samples=["13", 0], vae=["98", 0]),
        "16": node("SaveImage", images=["15", 0]),
    }


def test_metadata_comfyui_custom_sampling_graph_is_traversed() -> None:
    assert graph_says(flux_graph()) == {
        **{"program": "ComfyUI", "prompt": "a fox in the snow", "model": "flux1-dev-fp8", "guidance": 3.5, "seed": 77},
        **{"width": 1024, "height": 768, "steps": 28, "sampler": "euler", "scheduler": "beta"},
    }


def test_metadata_comfyui_guider_with_two_conditionings_and_zeroed_negative() -> None:
    graph = flux_graph()
    graph["7"] = node("CFGGuider", model=["2", 0], positive=["6", 0], negative=["20", 0], cfg=4)
    graph["20"] = node("ConditioningZeroOut", conditioning=["6", 0])
    assert "negative_prompt" not in graph_says(graph)
    graph["20"] = node("ControlNetApplyAdvanced", positive=["6", 0], negative=["21", 0], strength=1, image=["30", 0])
    graph["21"] = node("CLIPTextEncode", text="blurry", clip=["99", 0])
    graph["7"]["inputs"]["positive"] = ["20", 0]
    graph["7"]["inputs"]["negative"] = ["20", 1]
    found = graph_says(graph)
    assert (found["prompt"], found["negative_prompt"]) == ("a fox in the snow", "blurry")


def test_metadata_comfyui_two_stage_sampling_reports_first_stage() -> None:
    graph = comfy_graph()
    stage = {"add_noise": "enable", "noise_seed": 5, "steps": 25, "cfg": 8, "sampler_name": "euler"}
    links = {"model": ["4", 0], "positive": ["6", 0], "negative": ["7", 0]}
    graph["3"] = node("KSamplerAdvanced", **stage, **links, scheduler="normal", start_at_step=0, latent_image=["5", 0])
    graph["21"] = node("KSamplerAdvanced", **stage | {"noise_seed": 6}, **links, latent_image=["3", 0])
    found = graph_says(graph)
    assert (found["seed"], found["steps"], found["width"]) == (5, 25, 512)
    assert "loras" not in found


def test_metadata_comfyui_image_to_image_graph_has_no_size() -> None:
    graph = comfy_graph()
    graph["3"]["inputs"] |= {"latent_image": ["40", 0], "denoise": 0.55}
    graph |= {"40": node("VAEEncode", pixels=["41", 0], vae=["4", 2]), "41": node("LoadImage", image="cat.png")}
    found = graph_says(graph)
    assert found["image_strength"] == 0.55
    assert not found.keys() & {"width", "height"}


def test_metadata_of_several_outputs_contains_only_shared_values() -> None:
    graph = comfy_graph()
    other = graph["3"]["inputs"] | {"seed": 4, "positive": ["7", 0]}
    graph |= {"50": node("KSampler", **other), "51": node("VAEDecode", samples=["50", 0], vae=["4", 2])}
    graph["52"] = node("SaveImage", images=["51", 0])
    found = graph_says(graph)
    assert not found.keys() & {"seed", "prompt"}
    assert found["steps"] == 20


def test_loras_at_scale_zero_are_not_reported() -> None:
    graph = comfy_graph()
    graph["10"] = node(
        "Power Lora Loader (rgthree)",
        **{"lora_1": {"on": True, "lora": "a/x.safetensors", "strength": 0.5}, "model": ["4", 0]},
        **{"lora_2": {"on": False, "lora": "y.safetensors", "strength": 1}, "PowerLoraLoaderHeaderWidget": {}},
    )
    assert graph_says(graph)["loras"] == ({"name": "x", "scale": 0.5},)
    graph["10"] = node("LoraLoaderModelOnly", lora_name="z.safetensors", strength_model=0, model=["4", 0])
    assert "loras" not in graph_says(graph)


def test_metadata_comfyui_all_in_one_node_graphs_are_read() -> None:
    found = graph_says(
        {
            "1": node(
                "Efficient Loader",
                **{"ckpt_name": "x.safetensors", "lora_name": "None", "positive": "a fox", "negative": "blurry"},
                **{"empty_latent_width": 640, "empty_latent_height": 480},
            ),
            "2": node(
                "KSampler (Efficient)",
                **{"seed": 1, "steps": 9, "cfg": 3, "sampler_name": "euler", "scheduler": "normal", "denoise": 1.0},
                **{"model": ["1", 0], "positive": ["1", 1], "negative": ["1", 2], "latent_image": ["1", 3]},
            ),
            "3": node("PreviewImage", images=["2", 5]),
        }
    )
    assert (found["prompt"], found["negative_prompt"], found["model"]) == ("a fox", "blurry", "x")
    assert (found["width"], found["height"]) == (640, 480)


def editor(kind: str, number: int, *values: object, mode: int = 0, **inputs: int) -> dict[str, Any]:
    """A node of the editor's form; inputs by the numbers of their links, typed by their first letter."""
    rows = [{"name": name, "type": name[0], "link": link} for name, link in inputs.items()]
    outputs = [{"name": "x", "type": "m"}, {"name": "y", "type": "c"}]
    return {"id": number, "type": kind, "mode": mode, "widgets_values": [*values], "inputs": rows, "outputs": outputs}


def test_metadata_comfyui_editor_format_is_read_when_alone() -> None:
    """Its nodes have their values in the order of their widgets; a bypassed LoRA is none."""
    sampler = (9, "randomize", 20, 7.5, "dpmpp_2m", "karras", 1)
    workflow = {
        "nodes": [
            editor("KSampler", 3, *sampler, model=3, positive=4, negative=5, latent_image=6),
            editor("CheckpointLoaderSimple", 4, "x.safetensors"),
            editor("EmptyLatentImage", 5, 512, 768, 1),
            editor("CLIPTextEncode", 6, PROMPT, clip=2),
            editor("CLIPTextEncode", 7, "blurry", clip=2),
            editor("LoraLoader", 8, "on.safetensors", 0.5, 1, model=1, clip=9),
            editor("LoraLoader", 9, "off.safetensors", 1, 1, mode=4, model=7, clip=8),
            editor("VAEDecode", 10, samples=10),
            editor("SaveImage", 11, "ComfyUI", images=11),
        ],
        "links": [
            *([1, 4, 0, 8, 0, "MODEL"], [2, 9, 1, 6, 0, "CLIP"], [3, 9, 0, 3, 0, "MODEL"], [4, 6, 0, 3, 1, "C"]),
            *([5, 7, 0, 3, 2, "C"], [6, 5, 0, 3, 3, "LATENT"], [7, 8, 0, 9, 0, "MODEL"], [8, 8, 1, 9, 1, "CLIP"]),
            *([9, 4, 1, 8, 1, "CLIP"], [10, 3, 0, 10, 0, "LATENT"], [11, 10, 0, 11, 0, "IMAGE"]),
        ],
        "version": 0.4,
    }
    found = drawing_in(png({"workflow": json.dumps(workflow)}))
    assert found is not None
    assert found.model_dump(exclude_defaults=True) == {
        **{
            "program": "ComfyUI",
            "prompt": PROMPT,
            "negative_prompt": "blurry",
            "model": "x",
            "guidance": 7.5,
            "seed": 9,
        },
        **{"width": 512, "height": 768, "steps": 20, "sampler": "dpmpp_2m", "scheduler": "karras"},
        "loras": ({"name": "on", "scale": 0.5},),
    }


def test_metadata_comfyui_graph_with_nan_is_still_read() -> None:
    """ComfyUI writes it where a node always runs again."""
    graph = comfy_graph()
    graph["5"]["is_changed"] = [float("nan")]
    assert graph_says(graph)["width"] == 512


def test_metadata_comfyui_graphs_of_both_layouts_are_reported_once() -> None:
    both = png({"parameters": INFOTEXT.replace("a red fox", "a blue fox"), "prompt": json.dumps(comfy_graph())})
    found = drawing_in(both)
    assert found is not None
    assert found.prompt == PROMPT.replace("red", "blue")
    assert drawing_in(comfy()) == drawing_in(comfy_only(comfy_graph()))
