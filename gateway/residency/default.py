"""The model of requests that name none: the best that fits, chosen once a start; what is said of it. Pure but for sizes
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
    """What a request asks of the model that says nothing but a prompt; `quantize` and `low_ram` as the settings say."""
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
    """The first of `LADDER` that draws at its own size within the device's memory, where none does with low_ram; on a
    CPU, and where nothing fits, the embedded model.
    """

    def fits(spec: ModelSpec, sparing: bool) -> bool:
        plan = usual(spec, quantize=quantize, low_ram=sparing)
        return guess(plan, spec, disk_bytes=None, is_float32=False).peak <= device.limit_bytes

    return EMBEDDED if device.kind == "cpu" else _best(fits, low_ram=low_ram) or EMBEDDED


@dataclass(frozen=True, slots=True)
class DefaultModel:
    """`is_set`: the operator named it. Bytes are of one picture at its own size, and of what the device gives."""

    name: str
    is_set: bool
    kind: Kind
    """Of the device."""
    size_px: int
    needed_bytes: int
    limit_bytes: int
    source: LimitSource
    """Where `limit_bytes` is known from."""
    suggestion: str | None = None
    """What would fit, where the model itself does not."""
    instead: str | None = None
    """The model among that."""
    any_prompt: str | None = None
    """The best that fits of those that draw more than a list of things."""
    low_ram: bool = False
    """It fits only so, or the settings say it: `needed_bytes` are those that it takes then."""

    @property
    def fits(self) -> bool:
        return self.needed_bytes <= self.limit_bytes

    @property
    def limit(self) -> str:
        by = {"setting": "by engine.memory_gb", "device": "as the device says", "estimate": "as estimated"}
        return f"{self.limit_bytes / GB:.1f} GB, {by[self.source]}"

    @property
    def sentence(self) -> str:
        """Why it is this one, and whether it fits."""
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
    """Reads sizes from disk: milliseconds."""

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
    """The first of `LADDER` of any prompt that fits as the settings say; where none does, that fits with low_ram."""
    specs = {spec.name: spec for spec in CATALOG}
    rows = [specs[name] for name in LADDER if not specs[name].draws]
    return next((row.name for sparing in (low_ram, True) for row in rows if fits(row, sparing)), None)
