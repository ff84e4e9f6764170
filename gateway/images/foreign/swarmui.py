"""SwarmUI: a JSON with `sui_image_params`, in the PNG's `parameters`, EXIF's UserComment, or before 0.6.2 EXIF's Model.

Source: SwarmUI docs/Image Metadata Format.md, src/Text2Image/T2IParamTypes.cs. Pure.
"""

from __future__ import annotations

from collections.abc import Mapping

from gateway.images.file_texts import USER_COMMENT
from gateway.images.foreign.values import Said, file_name, items, json_object, loras, number, text, whole

KEY = "sui_image_params"


def read(texts: Mapping[str, str]) -> Said | None:
    for name in ("parameters", USER_COMMENT, "Model"):
        written = texts.get(name, "")
        if KEY in written and isinstance(said := (json_object(written) or {}).get(KEY), dict):
            return _said(said)
    return None


def _said(said: Mapping[str, object]) -> Said:
    names, strengths = items(said.get("loras")), items(said.get("loraweights"))
    distilled = number(said.get("fluxguidancescale"))
    has_picture = said.get("initimage") is not None
    return {
        "program": "SwarmUI",
        "prompt": text(said.get("prompt")),
        "negative_prompt": text(said.get("negativeprompt")),
        "model": file_name(said.get("model")),
        "width": whole(said.get("width")),
        "height": whole(said.get("height")),
        "steps": whole(said.get("steps")),
        "guidance": distilled if distilled is not None else number(said.get("cfgscale")),
        "seed": whole(said.get("seed")),
        "sampler": text(said.get("sampler") or said.get("comfyuisampler") or said.get("autowebuisampler")),
        "scheduler": text(said.get("scheduler") or said.get("comfyuischeduler")),
        "image_strength": number(said.get("initimagecreativity")) if has_picture else None,
        "loras": loras(zip(names, strengths, strict=False)),
    }
