"""Writes the table of docs/models.md from the catalogue: `python -m tools.write_models`."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import groupby
from pathlib import Path

from engine.catalog import CATALOG, ModelSpec
from engine.catalog.spec import STABLE_DIFFUSION

PAGE = Path(__file__).parent.parent / "docs" / "models.md"
BEGIN = "<!-- Written by python -m tools.write_models -->\n"
END = "<!-- The end of what it writes -->\n"
HUB = "https://huggingface.co"


def with_tables(page: str) -> str:
    """The page with the text between its marks replaced."""
    before, _, rest = page.partition(BEGIN)
    _, _, after = rest.partition(END)
    return before + BEGIN + "\n".join(_tables()) + "\n" + END + after


def _tables() -> Iterator[str]:
    rows = [spec for spec in CATALOG if spec.unavailable is None]
    drawing = [spec for spec in rows if spec.task == "generate"]
    yield "| model | what it is | can | steps, guidance | disk | memory | licence |"
    yield "|---|---|---|---|---|---|---|"
    yield from (_row(list(group)) for _, group in groupby(drawing, key=_weights))
    yield ""
    yield "To enlarge pictures: " + ", ".join(f"`{spec.name}`" for spec in rows if spec.task == "upscale") + "."
    yield ""
    yield "Listed, and refused when they are asked for:"
    yield ""
    for reason, group in groupby((spec for spec in CATALOG if spec.unavailable), key=lambda spec: spec.unavailable):
        yield f"- {', '.join(f'`{spec.name}`' for spec in group)}: {reason}"
    yield ""


def _weights(spec: ModelSpec) -> tuple[str, str, str]:
    geometry = (spec.repo or spec.name) if spec.family in STABLE_DIFFUSION else spec.geometry
    return (spec.family, geometry, spec.control or "")


def _row(specs: list[ModelSpec]) -> str:
    whole = specs[0]
    more = [spec.name.removeprefix(whole.name) for spec in specs[1:]]
    names = f"`{whole.name}`" + (f"<br>also {', '.join(f'`{name}`' for name in more)}" if more else "")
    low, high = whole.guidance_range
    guidance = f"{low:g}" if low == high else f"{whole.default_guidance:g} ({low:g} to {high:g})"
    gate = "; gated" if whole.gated else ""
    source = f"[{whole.licence}]({HUB}/{whole.repo})" if whole.repo else whole.licence
    columns = (
        names,
        whole.description,
        ", ".join(_abilities(whole)),
        f"{whole.default_steps} steps, {guidance}",
        f"{whole.size_gb:g} GB",
        _memory(whole),
        source + gate,
    )
    return "| " + " | ".join(columns) + " |"


def _abilities(spec: ModelSpec) -> Iterator[str]:
    needs = spec.needs_reference or spec.needs_mask or spec.control is not None
    if not needs:
        yield "draw"
    if spec.control is not None:
        yield f"follow a {spec.control} map (needed)" if spec.control == "depth" else "follow outlines (needed)"
    if spec.init_image:
        yield "img2img"
    if spec.masks:
        yield "masks (needed)" if spec.needs_mask else "masks"
    if spec.max_references:
        many = "one picture" if spec.max_references == 1 else f"up to {spec.max_references} pictures"
        yield f"edit {many}" + (" (needed)" if spec.needs_reference else "")
    if spec.negative_prompt:
        yield "negative prompt"
    if spec.lora:
        yield "LoRA"


def _memory(spec: ModelSpec) -> str:
    return ", ".join(f"{spec.loaded_gb(bits):.3g}" for bits in (None, 8, 4)) + " GB"


if __name__ == "__main__":
    PAGE.write_text(with_tables(PAGE.read_text("utf-8")), "utf-8")
