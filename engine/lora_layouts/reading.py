"""Changes of a LoRA file: for each layer the parts of its delta, checked against the sizes of the model's modules.

Only names and shapes are used, so the gateway can report before queueing what the engine will do.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Container, Mapping
from dataclasses import dataclass
from typing import Literal

from engine.lora_layouts.keys import Key, is_of_text_encoder, key_of, names_of
from engine.lora_layouts.rows import Row
from engine.lora_layouts.sheets import Module, Table

Shape = tuple[int, ...]
Method = Literal["lora", "loha", "lokr", "plain"]
LISTED = 60
"""Characters of a layer's name that are shown in a sentence."""

_ALPHA = {"alpha", "dora_scale", "diff_b"}
_LOHA = {"hada_w1_a", "hada_w1_b", "hada_w2_a", "hada_w2_b"}
_PARTS: Mapping[Method, tuple[frozenset[str], frozenset[str]]] = {
    "lora": (frozenset({"down", "up"}), frozenset({"mid", "up_bias", *_ALPHA})),
    "loha": (frozenset(_LOHA), frozenset({"hada_t1", "hada_t2", *_ALPHA})),
    "lokr": (frozenset(), frozenset({"lokr_t2", *_ALPHA})),
    "plain": (frozenset(), frozenset({"diff", "diff_b"})),
}
"""Parts that a method requires, and optional ones."""


class Unfit(Exception):
    """The file cannot be applied as a whole. `reason` continues a sentence after "it"."""

    def __init__(self, reason: str) -> None:
        self.reason = reason
        super().__init__(reason)


@dataclass(frozen=True, slots=True)
class Change:
    """Change of `modules`, which are rows of one matrix. `parts` maps parts to the names of the file's tensors."""

    modules: tuple[str, ...]
    swapped: bool
    method: Method
    parts: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Reading:
    """Result of reading a file: `used` of `total` tensors apply. `unfit` says why none can be applied, after "it";
    `rest` describes the tensors left out.
    """

    changes: tuple[Change, ...] = ()
    used: int = 0
    total: int = 0
    rank: int | None = None
    rest: str | None = None
    unfit: str | None = None


Named = tuple[Key, tuple[tuple[str, int | None], ...]]
"""Key of a tensor, and the names by which tables may know its layer."""


def named(shapes: Mapping[str, Shape], known: Container[str]) -> dict[str, Named]:
    """Keys of the tensors that belong to a LoRA, with those names of their layers that are known."""
    found: dict[str, Named] = {}
    layers: dict[str, tuple[tuple[str, int | None], ...]] = {}
    for name in shapes:
        if (key := key_of(name)) is None:
            continue
        if (names := layers.get(key.layer)) is None:
            names = layers[key.layer] = tuple(pair for pair in names_of(key.layer) if pair[0] in known)
        found[name] = key, names
    return found


def read(shapes: Mapping[str, Shape], table: Table, names: Mapping[str, Named] | None = None) -> Reading:
    """Changes made by tensors of these names and shapes. `names` is the result of `named`, where it is known."""
    names = named(shapes, table) if names is None else names
    layers: dict[Row, dict[str, str]] = {}
    rest: list[str] = []
    try:
        for name in shapes:
            key, spelled = names.get(name, (None, ()))
            row = table.find(spelled)
            if key is None or row is None or any(table.sheet.find(path) is None for path in row.modules):
                rest.append(name)
                continue
            if key.method is not None:
                raise Unfit(f"uses {key.method}, which cannot be applied here")
            if layers.setdefault(row, {}).setdefault(key.part, name) != name:
                raise Unfit(f"names {short(row.modules[0])} twice")
        changes = tuple(_change(row, parts, shapes, table) for row, parts in layers.items())
        _check_overlap(changes)
    except Unfit as unfit:
        return Reading(total=len(shapes), unfit=unfit.reason)
    used = sum(len(change.parts) for change in changes)
    if used == 0:
        return Reading(total=len(shapes), unfit="changes none of its layers")
    ranks = [rank for change in changes if (rank := _rank(change, shapes)) is not None]
    return Reading(changes, used, len(shapes), max(ranks, default=None), _rest_message(rest))


def _rest_message(rest: list[str]) -> str | None:
    if not rest:
        return None
    foreign = sum(map(is_of_text_encoder, rest))
    if foreign == len(rest):
        return "the others are for the text encoder, which LoRAs do not change here"
    example = next(name for name in rest if not is_of_text_encoder(name))
    text = f"{foreign} are for the text encoder and " if foreign else ""
    return f"{text}{len(rest) - foreign} belong to no layer of this model, such as {short(example)}"


def _check_overlap(changes: tuple[Change, ...]) -> None:
    """Raises: Unfit where a fused layer and a part of it both change, of which other programs would leave one out."""
    count = Counter(path for change in changes if change.method != "plain" for path in change.modules)
    if twice := next((path for path, often in count.items() if often > 1), None):
        raise Unfit(f"names {short(twice)} twice")


def _change(row: Row, parts: dict[str, str], shapes: Mapping[str, Shape], table: Table) -> Change:
    """Raises: Unfit."""
    modules = [module for path in row.modules if (module := table.sheet.find(path)) is not None]
    method = _method(parts)
    needs, takes = _PARTS[method]
    if method == "lokr":
        needs, takes = _factors(parts), takes
    where = short(row.modules[0])
    if missing := sorted(needs - parts.keys()):
        raise Unfit(f"lacks {missing[0]} of {where}")
    if over := sorted(parts.keys() - needs - takes):
        raise Unfit(f"has {over[0]} of {where}, which cannot be applied with the rest")
    sizes = _Sizes({part: shapes[name] for part, name in parts.items()}, modules, where)
    sizes.check(method)
    return Change(row.modules, row.swapped, method, parts)


def _method(parts: Mapping[str, str]) -> Method:
    if any(part.startswith("lokr") for part in parts):
        return "lokr"
    if any(part.startswith("hada") for part in parts):
        return "loha"
    return "plain" if parts.keys() & {"diff", "diff_b"} and not parts.keys() & {"down", "up"} else "lora"


def _factors(parts: Mapping[str, str]) -> frozenset[str]:
    """Tensors of two Kronecker factors, each stored whole or as two."""
    found = set()
    for factor in ("lokr_w1", "lokr_w2"):
        found |= {factor} if factor in parts else {f"{factor}_a", f"{factor}_b"}
    return frozenset(found)


@dataclass(frozen=True, slots=True)
class _Sizes:
    """Shapes of a layer's parts, checked against its modules. Raises: Unfit."""

    shapes: Mapping[str, Shape]
    modules: list[Module]
    where: str

    def check(self, method: Method) -> None:
        outputs, inputs = sum(module.outputs for module in self.modules), self.modules[0].inputs
        if any(module.inputs != inputs for module in self.modules):
            raise self._unfit()
        if method == "plain":
            self._plain(outputs, inputs)
            return
        if inputs is None:
            raise Unfit(f"has matrices for {self.where}, which is a norm")
        match method:
            case "lora":
                delta = self._lora()
            case "loha":
                delta = self._product("1")
                if delta != self._product("2"):
                    raise self._unfit()
            case _:
                one, other = self._factor("lokr_w1"), self._factor("lokr_w2")
                delta = one[0] * other[0], one[1] * other[1]
        if delta != (outputs, inputs):
            raise self._unfit()
        self._scales(outputs, inputs)

    def _unfit(self) -> Unfit:
        return Unfit(f"has other sizes at {self.where}")

    def _matrix(self, part: str) -> tuple[int, int]:
        """Rows and columns of a part; a 1x1 convolution kernel counts as a matrix."""
        shape = self.shapes[part]
        if len(shape) < 2 or any(size != 1 for size in shape[2:]):
            raise self._unfit()
        return shape[0], shape[1]

    def _lora(self) -> tuple[int, int]:
        rank, inputs = self._matrix("down")
        outputs, same = self._matrix("up")
        if rank != same or rank == 0 or ("mid" in self.shapes and self._matrix("mid") != (rank, rank)):
            raise self._unfit()
        return outputs, inputs

    def _product(self, number: str) -> tuple[int, int]:
        """Shape of one half of a Hadamard product; with a core, its first factor is transposed."""
        first, second = self._matrix(f"hada_w{number}_a"), self._matrix(f"hada_w{number}_b")
        if (core := f"hada_t{number}") in self.shapes:
            if self._matrix(core) != (first[0], second[0]):
                raise self._unfit()
            return first[1], second[1]
        if first[1] != second[0] or second[0] == 0:
            raise self._unfit()
        return first[0], second[1]

    def _factor(self, factor: str) -> tuple[int, int]:
        if factor in self.shapes:
            return self._matrix(factor)
        first, second = self._matrix(f"{factor}_a"), self._matrix(f"{factor}_b")
        if factor == "lokr_w2" and "lokr_t2" in self.shapes:
            if self._matrix("lokr_t2") != (first[0], second[0]):
                raise self._unfit()
            return first[1], second[1]
        if first[1] != second[0] or second[0] == 0:
            raise self._unfit()
        return first[0], second[1]

    def _plain(self, outputs: int, inputs: int | None) -> None:
        if (shape := self.shapes.get("diff")) is not None:
            expected: tuple[int, ...] = (outputs,) if inputs is None else (outputs, inputs)
            if shape[: len(expected)] != expected or any(size != 1 for size in shape[len(expected) :]):
                raise self._unfit()
        if (shape := self.shapes.get("diff_b")) is not None and (
            shape != (outputs,) or (inputs is None and not self.modules[0].bias)
        ):
            raise self._unfit()

    def _scales(self, outputs: int, inputs: int) -> None:
        for part, widths in (("dora_scale", (outputs, inputs)), ("up_bias", (outputs,)), ("alpha", (1,))):
            shape = self.shapes.get(part)
            if shape is not None and _elements(shape) not in widths:
                raise self._unfit()
        scale_shape = self.shapes.get("dora_scale", (outputs,))
        if scale_shape[:1] != (outputs,) and scale_shape[:2] != (1, inputs):
            raise self._unfit()
        if self.shapes.get("diff_b", (outputs,)) != (outputs,):
            raise self._unfit()


def _elements(shape: Shape) -> int:
    found = 1
    for size in shape:
        found *= size
    return found


def _rank(change: Change, shapes: Mapping[str, Shape]) -> int | None:
    for part in ("down", "hada_w1_b", "lokr_w1_b", "lokr_w2_b"):
        if part in change.parts:
            return shapes[change.parts[part]][0]
    return None


def short(text: str) -> str:
    """A file's own text, shortened and printable for use in a sentence."""
    plain = "".join(letter if letter.isprintable() else "?" for letter in text[: LISTED + 1])
    return plain if len(text) <= LISTED else f"{plain[: LISTED - 3]}..."
