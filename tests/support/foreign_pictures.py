"""Pictures as other programs write them, made by Pillow and piexif from the documented layouts."""

from __future__ import annotations

import base64
import gzip
import io
import json
from collections.abc import Mapping
from typing import Any

import httpx
import piexif
import piexif.helper
from PIL import Image, PngImagePlugin

PROMPT, NEGATIVE = "a red fox in the snow, Käse, 猫", "blurry, ugly"
SIZE = (64, 48)
"""Of the files; no program says it."""


def picture(mode: str = "RGB") -> Image.Image:
    return Image.linear_gradient("L").resize(SIZE).convert(mode)


def png(texts: Mapping[str, str], *, packed: bool = False, exif: bytes | None = None) -> bytes:
    chunks = PngImagePlugin.PngInfo()
    for keyword, text in texts.items():
        chunks.add_text(keyword, text, zip=packed)
    out = io.BytesIO()
    picture().save(out, "PNG", pnginfo=chunks, **({} if exif is None else {"exif": exif}))
    return out.getvalue()


def exif_picture(kind: str, exif: bytes, **options: object) -> bytes:
    out = io.BytesIO()
    picture().save(out, kind, exif=exif, **options)
    return out.getvalue()


def comment_exif(comment: bytes, order: str = "MM") -> bytes:
    """EXIF with this UserComment, in either byte order; piexif writes big-endian only."""
    block = piexif.dump({"Exif": {piexif.ExifIFD.UserComment: comment}})
    if order == "MM":
        return block
    exif = Image.Exif()
    exif.endian = "<"
    exif.get_ifd(0x8769)[0x9286] = comment
    return exif.tobytes()


INFOTEXT = f"""{PROMPT} <lora:snow:0.75>
Negative prompt: {NEGATIVE}
Steps: 20, Sampler: DPM++ 2M, Schedule type: Karras, CFG scale: 7.5, Seed: 1234567890123, Size: 512x768, \
Model hash: abcdef1234, Model: juggernautXL_v9, Version: v1.10.1"""

TOLD: dict[str, Any] = {
    "prompt": PROMPT,
    "negative_prompt": NEGATIVE,
    "seed": 1234567890123,
    "steps": 20,
    "guidance": 7.5,
    "width": 512,
    "height": 768,
}
"""What every program below says of its picture."""

# ---- ComfyUI -----------------------------------------------------------------------------------------


def node(kind: str, **inputs: object) -> dict[str, Any]:
    return {"class_type": kind, "inputs": inputs, "_meta": {"title": kind}}


def comfy_graph() -> dict[str, Any]:
    """ComfyUI's first template with a LoRA, a second pass and the reroutes that some nodes leave."""
    return {
        "3": node(
            "KSampler",
            **{"seed": 1234567890123, "steps": 20, "cfg": 7.5, "sampler_name": "dpmpp_2m", "scheduler": "karras"},
            **{"denoise": 1, "model": ["10", 0], "positive": ["12", 0], "negative": ["7", 0], "latent_image": ["5", 0]},
        ),
        "4": node("CheckpointLoaderSimple", ckpt_name="SDXL\\juggernautXL_v9.safetensors"),
        "5": node("EmptyLatentImage", width=512, height=768, batch_size=1),
        "6": node("CLIPTextEncode", text=PROMPT, clip=["10", 1]),
        "7": node("CLIPTextEncode", text=NEGATIVE, clip=["10", 1]),
        "10": node(
            "LoraLoader",
            **{"lora_name": "snow.safetensors", "strength_model": 0.75, "strength_clip": 1},
            **{"model": ["4", 0], "clip": ["4", 1]},
        ),
        "12": node("Reroute", input=["6", 0]),
        "20": node("LatentUpscale", samples=["3", 0], width=1024, height=1536, upscale_method="bislerp"),
        "21": node(
            "KSampler",
            **{"seed": 99, "steps": 8, "cfg": 5, "sampler_name": "euler", "scheduler": "normal", "denoise": 0.4},
            **{"model": ["10", 0], "positive": ["12", 0], "negative": ["7", 0], "latent_image": ["20", 0]},
        ),
        "8": node("VAEDecode", samples=["21", 0], vae=["4", 2]),
        "9": node("SaveImage", filename_prefix="ComfyUI", images=["8", 0]),
    }


def comfy_workflow(graph: Mapping[str, Any]) -> dict[str, Any]:
    """The editor's form of the graph, as far as readers look at it: its links."""
    links, number = [], 0
    for target, one in graph.items():
        for name, value in one["inputs"].items():
            if isinstance(value, list):
                number += 1
                kind = {"model": "MODEL", "clip": "CLIP"}.get(name, "CONDITIONING")
                links.append([number, int(value[0]), value[1], int(target), 0, kind])
    return {"nodes": [], "links": links, "version": 0.4}


def comfy(graph: Mapping[str, Any] | None = None) -> bytes:
    graph = comfy_graph() if graph is None else graph
    return png({"prompt": json.dumps(graph), "workflow": json.dumps(comfy_workflow(graph))})


def comfy_webp(tag: int = piexif.ImageIFD.Model, mark: str = "prompt:") -> bytes:
    texts = {tag: f"{mark}{json.dumps(comfy_graph())}".encode(), piexif.ImageIFD.Software: b"x"}
    return exif_picture("WEBP", piexif.dump({"0th": texts}))


# ---- the others --------------------------------------------------------------------------------------

INVOKEAI: dict[str, Any] = {
    "app_version": "5.6.0",
    "generation_mode": "sdxl_txt2img",
    "positive_prompt": PROMPT,
    "negative_prompt": NEGATIVE,
    "width": 512,
    "height": 768,
    "seed": 1234567890123,
    "rand_device": "cpu",
    "cfg_scale": 7.5,
    "steps": 20,
    "scheduler": "dpmpp_2m_k",
    "model": {"key": "1", "hash": "blake3:1", "name": "juggernautXL_v9", "base": "sdxl", "type": "main"},
    "loras": [{"model": {"key": "2", "name": "snow", "base": "sdxl", "type": "lora"}, "weight": 0.75}],
    "strength": 0.6,
}
INVOKEAI_2: dict[str, Any] = {
    "model": "stable diffusion",
    "model_weights": "juggernautXL_v9",
    "app_id": "invoke-ai/InvokeAI",
    "app_version": "2.3.5",
    "image": {
        "prompt": [{"prompt": f"{PROMPT} [{NEGATIVE}]", "weight": 1.0}],
        **{"steps": 20, "cfg_scale": 7.5, "sampler": "k_dpmpp_2m", "seed": 1234567890123, "width": 512, "height": 768},
        **{"type": "txt2img", "postprocessing": None, "variations": []},
    },
}
DREAM = f'"{PROMPT} [{NEGATIVE}]" -s 20 -S 1234567890123 -W 512 -H 768 -C 7.5 -A k_dpmpp_2m'
NOVELAI_COMMENT: dict[str, Any] = {
    **{"prompt": PROMPT, "uc": NEGATIVE, "steps": 20, "width": 512, "height": 768, "scale": 7.5, "seed": 1234567890123},
    **{"sampler": "k_dpmpp_2m", "noise_schedule": "karras", "request_type": "PromptGenerateRequest", "n_samples": 1},
    "strength": 0.7,
}
NOVELAI = {
    "Title": "NovelAI generated image",
    "Description": PROMPT,
    "Software": "NovelAI",
    "Source": "NovelAI Diffusion V4 37442FCA",
    "Comment": json.dumps(NOVELAI_COMMENT),
}
SWARMUI: dict[str, Any] = {
    "sui_image_params": {
        **{"prompt": PROMPT, "negativeprompt": NEGATIVE, "model": "SDXL/juggernautXL_v9.safetensors", "images": 1},
        **{"seed": 1234567890123, "steps": 20, "cfgscale": 7.5, "width": 512, "height": 768, "aspectratio": "Custom"},
        **{"sampler": "dpmpp_2m", "scheduler": "karras", "loras": ["snow"], "loraweights": ["0.75"]},
        "swarm_version": "0.9.7.0",
    },
    "sui_extra_data": {"date": "2026-01-01", "generation_time": "1 (prep) and 2 (gen) seconds"},
    "sui_models": [{"name": "juggernautXL_v9.safetensors", "param": "model", "hash": "0x1"}],
}
FOOOCUS: dict[str, Any] = {
    **{"prompt": PROMPT, "negative_prompt": NEGATIVE, "full_prompt": [PROMPT, "cinematic"], "styles": "[]"},
    **{"performance": "Speed", "steps": 20, "resolution": "(512, 768)", "guidance_scale": 7.5, "sharpness": 2.0},
    **{"base_model": "juggernautXL_v9", "base_model_hash": "1", "sampler": "dpmpp_2m", "scheduler": "karras"},
    **{"seed": "1234567890123", "loras": [["snow", 0.75, "1"]], "metadata_scheme": "fooocus"},
    "version": "Fooocus v2.5.5",
}
DRAW_THINGS: dict[str, Any] = {
    **{"c": PROMPT, "uc": NEGATIVE, "seed": 1234567890123, "seed_mode": "Scale Alike", "steps": 20, "scale": 7.5},
    **{"size": "512x768", "sampler": "DPM++ 2M Karras", "model": "juggernautXL_v9.ckpt", "strength": 1},
    "lora": [{"model": "snow.ckpt", "weight": 0.75}],
}


def draw_things() -> bytes:
    out = io.BytesIO()
    packet = xmp(json.dumps(DRAW_THINGS, ensure_ascii=False))
    chunks = PngImagePlugin.PngInfo()
    chunks.add_itxt("XML:com.adobe.xmp", packet)
    picture().save(out, "PNG", pnginfo=chunks)
    return out.getvalue()


def xmp(comment: str) -> str:
    said = comment.replace("&", "&amp;").replace("<", "&lt;").replace('"', "&quot;")
    return f"""<x:xmpmeta xmlns:x="adobe:ns:meta/" x:xmptk="XMP Core 6.0.0">
   <rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">
      <rdf:Description rdf:about="" xmlns:exif="http://ns.adobe.com/exif/1.0/" xmlns:xmp="http://ns.adobe.com/xap/1.0/">
         <xmp:CreatorTool>Draw Things</xmp:CreatorTool>
         <exif:UserComment>
            <rdf:Alt>
               <rdf:li xml:lang="x-default">{said}</rdf:li>
            </rdf:Alt>
         </exif:UserComment>
      </rdf:Description>
   </rdf:RDF>
</x:xmpmeta>"""


def jpeg_with_xmp(packet: str) -> bytes:
    out = io.BytesIO()
    picture().save(out, "JPEG", xmp=packet.encode())
    return out.getvalue()


def fooocus_jpeg() -> bytes:
    """Its texts stand in the first directory, as Pillow's `Exif` puts them there."""
    exif = Image.Exif()
    exif[0x9286] = json.dumps(FOOOCUS)
    exif[0x0131] = FOOOCUS["version"]
    exif[0x927C] = "fooocus"
    return exif_picture("JPEG", exif.tobytes())


def stealth(text: str, name: str = "stealth_pngcomp", kind: str = "PNG") -> bytes:
    """A text in the lowest bits of alpha, or of red, green and blue, column by column."""
    image = Image.linear_gradient("L").convert("RGBA" if "png" in name else "RGB")
    body = gzip.compress(text.encode()) if name.endswith("comp") else text.encode()
    data = name.encode() + (len(body) * 8).to_bytes(4) + body
    bits = [byte >> (7 - i) & 1 for byte in data for i in range(8)]
    pixels = image.load()
    assert pixels is not None
    each = 1 if "png" in name else 3
    for at in range(-(-len(bits) // each)):
        x, y = divmod(at, image.height)
        values = list(pixels[x, y])  # type: ignore[arg-type]
        for i, bit in enumerate(bits[at * each : at * each + each]):
            channel = 3 if each == 1 else i
            values[channel] = values[channel] & 0xFE | bit
        pixels[x, y] = tuple(values)
    out = io.BytesIO()
    image.save(out, kind, **({"lossless": True, "exact": True} if kind == "WEBP" else {}))
    return out.getvalue()


UNICODE = b"UNICODE\0"
FILES: dict[str, tuple[str | None, bytes]] = {
    "a1111": ("AUTOMATIC1111", png({"parameters": INFOTEXT})),
    "a1111, packed": ("AUTOMATIC1111", png({"parameters": INFOTEXT}, packed=True)),
    "a1111, jpeg": (
        "AUTOMATIC1111",
        exif_picture("JPEG", comment_exif(piexif.helper.UserComment.dump(INFOTEXT, encoding="unicode"))),
    ),
    "a1111, webp": (
        "AUTOMATIC1111",
        exif_picture("WEBP", comment_exif(piexif.helper.UserComment.dump(INFOTEXT, encoding="unicode"))),
    ),
    "a1111, little-endian": (
        "AUTOMATIC1111",
        exif_picture("JPEG", comment_exif(UNICODE + INFOTEXT.encode("utf-16-le"), "II")),
    ),
    "a1111, eXIf": ("AUTOMATIC1111", png({}, exif=comment_exif(UNICODE + INFOTEXT.encode("utf-16-be")))),
    "comfyui": ("ComfyUI", comfy()),
    "comfyui, webp": ("ComfyUI", comfy_webp()),
    "comfyui, webp, make": ("ComfyUI", comfy_webp(piexif.ImageIFD.Make, "Prompt: ")),
    "comfyui, webp, description": ("ComfyUI", comfy_webp(piexif.ImageIFD.ImageDescription)),
    "invokeai": ("InvokeAI", png({"invokeai_metadata": json.dumps(INVOKEAI)})),
    "invokeai 2": ("InvokeAI", png({"sd-metadata": json.dumps(INVOKEAI_2), "Dream": DREAM})),
    "invokeai 1": ("InvokeAI", png({"Dream": DREAM})),
    "novelai": ("NovelAI", png(NOVELAI)),
    "novelai, hidden": ("NovelAI", stealth(json.dumps(NOVELAI))),
    "novelai, hidden, webp": ("NovelAI", stealth(json.dumps(NOVELAI), kind="WEBP")),
    "swarmui": ("SwarmUI", png({"parameters": json.dumps(SWARMUI, indent=2)})),
    "swarmui, jpeg": (
        "SwarmUI",
        exif_picture("JPEG", comment_exif(UNICODE + json.dumps(SWARMUI).encode("utf-16-le"), "II")),
    ),
    "swarmui, before 0.6.2": (
        "SwarmUI",
        png({}, exif=piexif.dump({"0th": {piexif.ImageIFD.Model: json.dumps(SWARMUI).encode()}})),
    ),
    "fooocus": ("Fooocus", png({"parameters": json.dumps(FOOOCUS), "fooocus_scheme": "fooocus"})),
    "fooocus, jpeg": ("Fooocus", fooocus_jpeg()),
    "draw things": ("Draw Things", draw_things()),
    "draw things, jpeg": ("Draw Things", jpeg_with_xmp(xmp(json.dumps(DRAW_THINGS)))),
    **{
        f"a1111, {name}": ("AUTOMATIC1111", stealth(INFOTEXT, name))
        for name in ("stealth_pnginfo", "stealth_pngcomp", "stealth_rgbinfo", "stealth_rgbcomp")
    },
}
"""Name to the program that is told, and the file."""
NO_LORAS = ("invokeai 2", "invokeai 1", "novelai", "novelai, hidden", "novelai, hidden, webp")
"""Those whose layout has no place for them."""


def drawing_of(client: httpx.Client, data: bytes) -> dict[str, Any] | None:
    answer = client.post("/api/v1/images/drawing", files={"image": ("a", data)})
    assert answer.status_code == 200, answer.text
    found = answer.json()["drawing"]
    assert found is None or isinstance(found, dict)
    return found


def png_info(client: httpx.Client, data: bytes) -> dict[str, Any]:
    answer = client.post("/sdapi/v1/png-info", json={"image": base64.b64encode(data).decode()})
    assert answer.status_code == 200, answer.text
    return dict(answer.json())
