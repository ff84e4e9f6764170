"""SwarmUI: a JSON with `sui_image_params`, in the PNG's `parameters`, EXIF's UserComment, or before 0.6.2 EXIF's Model.

Source: SwarmUI docs/Image Metadata Format.md, src/Text2Image/T2IParamTypes.cs. Pure.
"""

from __future__ import annotations

from collections.abc import Mapping

from gateway.images.file_texts import USER_COMMENT
from gateway.images.foreign.values import DrawingFields, file_name, items, json_object, loras, number, text, whole

KEY = "sui_image_params"


def read(texts: Mapping[str, str]) -> DrawingFields | None:
    for name in ("parameters", USER_COMMENT, "Model"):
        written = texts.get(name, "")
        if KEY in written and isinstance(metadata := (json_object(written) or {}).get(KEY), dict):
            return _fields(metadata)
    return None


def _fields(metadata: Mapping[str, object]) -> DrawingFields:
    names, strengths = items(metadata.get("loras")), items(metadata.get("loraweights"))
    distilled = number(metadata.get("fluxguidancescale"))
    has_image = metadata.get("initimage") is not None
    return {
        "program": "SwarmUI",
        "prompt": text(metadata.get("prompt")),
        "negative_prompt": text(metadata.get("negativeprompt")),
        "model": file_name(metadata.get("model")),
        "width": whole(metadata.get("width")),
        "height": whole(metadata.get("height")),
        "steps": whole(metadata.get("steps")),
        "guidance": distilled if distilled is not None else number(metadata.get("cfgscale")),
        "seed": whole(metadata.get("seed")),
        "sampler": text(metadata.get("sampler") or metadata.get("comfyuisampler") or metadata.get("autowebuisampler")),
        "scheduler": text(metadata.get("scheduler") or metadata.get("comfyuischeduler")),
        "image_strength": number(metadata.get("initimagecreativity")) if has_image else None,
        "loras": loras(zip(names, strengths, strict=False)),
    }
