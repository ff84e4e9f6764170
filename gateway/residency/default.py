"""Default model: the best one that fits, chosen once at the start, and sentences about it. Pure, except that sizes are
read from disk.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from engine.catalog import CATALOG, EMBEDDED, ModelSpec
from engine.protocol import Generate, Load
from gateway.residency.admission import LADDER, Admission, LimitSource
from gateway.residency.device import Device, Kind
from gateway.residency.footprint import GB, guess


def usual(spec: ModelSpec, *, quantize: int | None = None, low_ram: bool = False) -> Generate | Load:
    """The plan of a request with only a prompt; `quantize` and `low_ram` as in the settings."""
    bits = spec.quantize or quantize
    if spec.task == "upscale":
        return Load(model=spec.name, quantize=bits)
    return Generate(
        model=spec.name,
        prompt="",
        width_px=spec.default_px,
        height_px=spec.default_px,
        steps=spec.default_steps,
        guidance=spec.default_guidance,
        seeds=(0,),
        quantize=bits,
        references=("",) if spec.needs_reference else (),
        low_ram=low_ram,
    )


def best_that_fits(device: Device, *, quantize: int | None = None, low_ram: bool = False) -> str:
    """The first model of `LADDER` that fits into the device's memory at its own size, otherwise the first that fits
    with low_ram; on a CPU, and if nothing fits, the embedded model.
    """

    def fits(spec: ModelSpec, sparing: bool) -> bool:
        plan = usual(spec, quantize=quantize, low_ram=sparing)
        return guess(plan, spec, disk_bytes=None, is_float32=False).peak <= device.limit_bytes

    return EMBEDDED if device.kind == "cpu" else _best(fits, low_ram=low_ram) or EMBEDDED


@dataclass(frozen=True, slots=True)
class DefaultModel:
    """`is_set`: the operator named it. Bytes are those of one image at the model's own size, and of the device."""

    name: str
    is_set: bool
    kind: Kind
    """Kind of the device."""
    size_px: int
    needed_bytes: int
    limit_bytes: int
    source: LimitSource
    """Where `limit_bytes` comes from."""
    suggestion: str | None = None
    """What would fit if the model itself does not."""
    instead: str | None = None
    """A model that would fit."""
    any_prompt: str | None = None
    """The best fitting model that draws more than a list of things."""
    low_ram: bool = False
    """It fits only with low_ram, or the settings ask for that; `needed_bytes` are with low_ram then."""

    @property
    def fits(self) -> bool:
        return self.needed_bytes <= self.limit_bytes

    @property
    def limit(self) -> str:
        by = {"setting": "by engine.memory_gb", "device": "as the device says", "estimate": "as estimated"}
        return f"{self.limit_bytes / GB:.1f} GB, {by[self.source]}"

    @property
    def sentence(self) -> str:
        """Why this is the default model, and whether it fits."""
        needs = f"A picture of {self.size_px}x{self.size_px} takes about {self.needed_bytes / GB:.1f} GB"
        thrift = "; drawn with low_ram, so that each new prompt loads the model again" if self.low_ram else ""
        if not self.fits:
            return (
                f"{needs}, more than models and pictures may take here ({self.limit}): such requests are refused. "
                f'{self.suggestion}; or let them be tried (memory: "try").'
            )
        if self.is_set:
            return f"Set by the operator. {needs} of {self.limit}{thrift}."
        if self.kind == "cpu":
            return "There is neither Metal nor CUDA here."
        return f"The best that fits: {needs[0].lower()}{needs[1:]} of {self.limit}{thrift}."


def describe(
    admission: Admission, spec: ModelSpec, kind: Kind, *, is_set: bool, quantize: int | None, low_ram: bool
) -> DefaultModel:
    """The default model with its memory. Reads sizes from disk: milliseconds."""

    def fits(row: ModelSpec, sparing: bool) -> bool:
        return admission.fits(usual(row, quantize=quantize, low_ram=sparing), row)

    plan = usual(spec, quantize=quantize, low_ram=low_ram)
    if isinstance(plan, Generate):
        plan = admission.spared(plan, spec)
    shortage = admission.shortage(plan, spec)
    return DefaultModel(
        name=spec.name,
        is_set=is_set,
        kind=kind,
        size_px=spec.default_px,
        needed_bytes=admission.footprint(plan, spec).peak,
        limit_bytes=admission.limit_bytes,
        source=admission.limit_source,
        suggestion=None if shortage is None else shortage.suggestion,
        instead=None if shortage is None else shortage.model,
        any_prompt=_best(fits, low_ram=low_ram),
        low_ram=isinstance(plan, Generate) and plan.low_ram,
    )


def _best(fits: Callable[[ModelSpec, bool], bool], *, low_ram: bool) -> str | None:
    """The first model of `LADDER` for any prompt that fits with these settings, otherwise with low_ram."""
    specs = {spec.name: spec for spec in CATALOG}
    rows = [specs[name] for name in LADDER if not specs[name].draws]
    return next((row.name for sparing in (low_ram, True) for row in rows if fits(row, sparing)), None)
