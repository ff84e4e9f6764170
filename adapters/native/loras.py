"""Endpoints of LoRAs: all of them, one of them, the image beside it."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from adapters.native.model_schemas import LoraDetail, Loras, LoraShown
from adapters.native.responses import PREFIX
from adapters.shared.context import core_of, share_of
from engine.catalog import CATALOG
from gateway.disk import read_file
from gateway.errors import InvalidRequest, LoraNotFound, NotFound
from gateway.images.codec import check_image
from gateway.models.library import Library
from gateway.models.lora_layers import names_of
from gateway.models.loras import LoraFile, preview_of

_GEOMETRIES = {spec.name: spec.geometry for spec in CATALOG}
PREVIEW_MOST_BYTES = 16 * 1024 * 1024


async def list_loras(request: Request) -> Response:
    """GET loras: List the LoRAs, those that cannot be used included; no file is read for its hash."""
    library = core_of(request).library

    def rows() -> list[LoraShown]:
        aliases = library.loras.calls()
        return [to_lora(library, lora, aliases.get(lora.name, []), read=False) for lora in library.loras.all()]

    answer: Loras = {"loras": await library.loras.off_loop(rows)}
    return JSONResponse(answer)


async def get_lora(request: Request) -> Response:
    """GET loras/{name}: Show a LoRA, by its name or an alias, with its hashes and what is written about it."""
    library, lora = core_of(request).library, await _find(request)

    def detail() -> LoraDetail:
        row = to_lora(library, lora, library.loras.calls().get(lora.name, []), read=True)
        return {**row, "description": lora.notes.description, "metadata": dict(lora.notes.metadata)}

    return JSONResponse(await core_of(request).files.run(share_of(request), detail))


async def get_preview(request: Request) -> Response:
    """GET loras/{name}/preview: Fetch the picture that lies beside a LoRA, as PNG."""
    lora = await _find(request)
    data = await core_of(request).files.run(share_of(request), _read_preview, lora)
    if data is None:
        raise NotFound("There is no picture of this LoRA.")
    try:
        checked = await check_image(data, core_of(request).decoder, share=share_of(request))
    except InvalidRequest:
        raise NotFound("The picture of this LoRA cannot be read.") from None
    return Response(checked.png, media_type="image/png", headers={"Cache-Control": "private, max-age=3600"})


async def _find(request: Request) -> LoraFile:
    """Raises: LoraNotFound."""
    library = core_of(request).library.loras
    lora = await library.off_loop(library.find, request.path_params["name"])
    if lora is None:
        raise LoraNotFound
    return lora


def to_lora(library: Library, lora: LoraFile, aliases: list[str], *, read: bool) -> LoraShown:
    """One LoRA. Blocks; where `read` is set, reads the file for its hashes if they are not known yet."""
    hashes = library.loras.hashes(lora, read=read)
    models = [lora.hub.like] if lora.hub and lora.file is None else names_of(lora.fit.models)
    if lora.fit.known:
        models = [*models, *_fitting_checkpoints(library, lora)]
    return {
        "name": lora.name,
        "aliases": aliases,
        "title": lora.notes.title or None,
        "trigger_words": list(lora.notes.trigger_words),
        "activation_text": lora.notes.activation_text or None,
        "preferred_scale": lora.notes.preferred_scale,
        "base_model": lora.notes.base_model or None,
        "models": models,
        "rank": lora.fit.rank,
        "tensors": lora.fit.total if lora.fit.total else None,
        "tensors_used": {
            name: use.used for name in models if (use := lora.fit.uses.get(_GEOMETRIES.get(name, ""))) is not None
        },
        "size_bytes": lora.size_bytes,
        "sha256": hashes.sha256 if hashes else None,
        "hash": hashes.short if hashes else None,
        "preview_url": f"{PREFIX}/loras/{lora.name}/preview" if preview_of(lora) else None,
        "downloaded": lora.file is not None,
        "repo": lora.hub.repo if lora.hub else None,
        "trouble": lora.trouble or (f"It is for {lora.fit.family}." if lora.fit.family else None),
    }


def _fitting_checkpoints(library: Library, lora: LoraFile) -> list[str]:
    """Checkpoints that a LoRA fits, those of sizes where only a try can tell included."""
    specs = [library.find(one.name) for one in library.checkpoints.all()]
    return [spec.name for spec in specs if lora.fit.of(spec) is not False]


def _read_preview(lora: LoraFile) -> bytes | None:
    file = preview_of(lora)
    try:
        return read_file(file, PREVIEW_MOST_BYTES) if file else None
    except OSError:
        return None
