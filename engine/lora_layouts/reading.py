"""Changes of a LoRA file: for each layer the parts of its delta, checked against the sizes of the model's modules.

Only names and shapes are used, so the gateway can report before queueing what the engine will do.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Container, Mapping
from dataclasses import dataclass
from typing import Literal

from engine.lora_layouts.keys import Key, embedding_of, is_of_text_encoder, key_of, names_of
from engine.lora_layouts.rows import Row
from engine.lora_layouts.sheets import Module, Table

Shape = tuple[int, ...]
Method = Literal["lora", "loha", "lokr", "ia3", "plain"]
LISTED = 60
"""Characters of a layer's name that are shown in a sentence."""
CORE_RANK_MOST = 2048
"""Largest rank of a core, which is multiplied by a factor: a few kilobytes must not become gigabytes."""
LATENTS, INPAINTING_INPUTS = 4, 9
"""Inputs of a UNet's first layer, and those of an inpainting UNet, whose further ones a LoRA for the former leaves
unchanged, as in A1111 1.10.1 extensions-builtin/Lora/networks.py.
"""

_ALPHA = {"alpha", "dora_scale", "magnitude", "diff_b"}
_LOHA = {"hada_w1_a", "hada_w1_b", "hada_w2_a", "hada_w2_b"}
_PARTS: Mapping[Method, tuple[frozenset[str], frozenset[str]]] = {
    "lora": (frozenset({"down", "up"}), frozenset({"mid", "up_bias", *_ALPHA})),
    "loha": (frozenset(_LOHA), frozenset({"hada_t1", "hada_t2", *_ALPHA})),
    "lokr": (frozenset(), frozenset({"lokr_t2", *_ALPHA})),
    "ia3": (frozenset({"ia3", "on_input"}), frozenset({"alpha"})),
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
        if (key := key_of(name) or _ia3_key(name, shapes)) is None:
            continue
        if (names := layers.get(key.layer)) is None:
            names = layers[key.layer] = tuple(pair for pair in names_of(key.layer) if pair[0] in known)
        found[name] = key, names
    return found


def _ia3_key(name: str, shapes: Mapping[str, Shape]) -> Key | None:
    """Key of the factors of an IA3, which have the name of an ordinary weight."""
    layer = name.removesuffix(".weight")
    return Key(layer, "ia3") if layer != name and f"{layer}.on_input" in shapes else None


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
    return Reading(changes, used, len(shapes), max(ranks, default=None), _rest_message(rest, table))


def _rest_message(rest: list[str], table: Table) -> str | None:
    """End of a sentence about the tensors left out; None without any."""
    bundled = [name for name in rest if embedding_of(name) is not None]
    foreign = [] if table.has_text_encoders else [name for name in rest if is_of_text_encoder(name)]
    if rest and len(foreign) == len(rest):
        return "the others are for the text encoder, which LoRAs do not change here"
    groups = []
    if foreign:
        groups.append(f"{len(foreign)} are for the text encoder")
    if bundled:
        names = list(dict.fromkeys(embedding_of(name) or "" for name in bundled))
        groups.append(f"{len(bundled)} are of embeddings in the file, such as '{short(names[0])}'")
    known = {*foreign, *bundled}
    if others := [name for name in rest if name not in known]:
        groups.append(f"{len(others)} belong to no layer of this model, such as {short(others[0])}")
    return " and ".join(groups) or None


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
    where = row.modules[0]
    if missing := sorted(needs - parts.keys()):
        raise Unfit(f"lacks {missing[0]} of {short(where)}")
    if over := sorted(parts.keys() - needs - takes):
        raise Unfit(f"has {over[0]} of {short(where)}, which cannot be applied with the rest")
    sizes = _Sizes({part: shapes[name] for part, name in parts.items()}, modules, where)
    sizes.check(method)
    return Change(row.modules, row.swapped, method, parts)


def _method(parts: Mapping[str, str]) -> Method:
    if any(part.startswith("lokr") for part in parts):
        return "lokr"
    if any(part.startswith("hada") for part in parts):
        return "loha"
    if parts.keys() & {"ia3", "on_input"}:
        return "ia3"
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
        if any(module.inputs != inputs or module.kernel != self._kernel for module in self.modules):
            raise self._unfit()
        if method == "plain":
            self._plain(outputs, inputs)
            return
        if inputs is None:
            raise Unfit(f"has matrices for {short(self.where)}, which is a norm")
        if method == "ia3":
            self._ia3(outputs, inputs)
            return
        if "dora_scale" in self.shapes and "magnitude" in self.shapes:
            raise Unfit(f"has two magnitudes for {short(self.where)}")
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
        decomposed = self.shapes.keys() & {"dora_scale", "magnitude"}
        if delta[0] != outputs or delta[1] not in self._columns(inputs, padded=not decomposed):
            raise self._unfit()
        self._scales(outputs, inputs)

    @property
    def _kernel(self) -> int:
        return self.modules[0].kernel

    def _columns(self, inputs: int, *, padded: bool = True) -> set[int]:
        """Columns that a delta may have: one for each input and point of the kernel."""
        area = self._kernel**2
        fewer = {LATENTS * area} if padded and area > 1 and inputs == INPAINTING_INPUTS else set()
        return {inputs * area, *fewer}

    def _unfit(self) -> Unfit:
        return Unfit(f"has other sizes at {short(self.where)}")

    def _matrix(self, part: str) -> tuple[int, int]:
        """Rows and columns of a part. A 1x1 kernel counts as a matrix; one of the layer's size has a column for each
        input and point.
        """
        shape = self.shapes[part]
        points = shape[2:]
        if len(shape) < 2 or (any(size != 1 for size in points) and points != (self._kernel, self._kernel)):
            raise self._unfit()
        return shape[0], _elements(shape[1:])

    def _small(self, part: str) -> tuple[int, int]:
        """Rows and columns of a part without a kernel."""
        shape = self.shapes[part]
        if any(size != 1 for size in shape[2:]):
            raise self._unfit()
        return self._matrix(part)

    def _core(self, part: str, before: int, after: int) -> int:
        """Points of a core between two factors of these ranks."""
        rows, columns = self._matrix(part)
        if self.shapes[part][:2] != (before, after) or rows * columns == 0:
            raise self._unfit()
        if max(before, after) > CORE_RANK_MOST:
            raise Unfit(f"has a core of rank {max(before, after)} at {short(self.where)}, above {CORE_RANK_MOST}")
        return columns // after

    def _lora(self) -> tuple[int, int]:
        outputs, rank = self._small("up")
        if "mid" in self.shapes:
            same, inputs = self._small("down")
            inputs *= self._core("mid", rank, same)
        else:
            same, inputs = self._matrix("down")
        if rank != same or rank == 0:
            raise self._unfit()
        return outputs, inputs

    def _product(self, number: str) -> tuple[int, int]:
        """Shape of one half of a Hadamard product."""
        return self._product_of(f"hada_w{number}", f"hada_t{number}")

    def _factor(self, factor: str) -> tuple[int, int]:
        """Shape of a Kronecker factor."""
        if factor not in self.shapes:
            return self._product_of(factor, "lokr_t2" if factor == "lokr_w2" else None)
        return self._matrix(factor) if factor == "lokr_w2" else self._small(factor)

    def _product_of(self, name: str, core: str | None) -> tuple[int, int]:
        """Shape of a product of two factors; with a core between them, the first is transposed."""
        first = self._small(f"{name}_a")
        if core is not None and core in self.shapes:
            second = self._small(f"{name}_b")
            return first[1], second[1] * self._core(core, first[0], second[0])
        second = self._matrix(f"{name}_b")
        if first[1] != second[0] or second[0] == 0:
            raise self._unfit()
        return first[0], second[1]

    def _ia3(self, outputs: int, inputs: int) -> None:
        """Whether the factors are for the inputs or the outputs is a value, which the engine reads."""
        if self._elements("on_input") != 1 or self._elements("ia3") not in (outputs, inputs):
            raise self._unfit()

    def _elements(self, part: str) -> int:
        return _elements(self.shapes[part])

    def _plain(self, outputs: int, inputs: int | None) -> None:
        if (shape := self.shapes.get("diff")) is not None:
            if inputs is None:
                fits = shape[:1] == (outputs,) and all(size == 1 for size in shape[1:])
            else:
                rows, columns = self._matrix("diff")
                fits = rows == outputs and columns in self._columns(inputs)
            if not fits:
                raise self._unfit()
        if (shape := self.shapes.get("diff_b")) is not None and (
            shape != (outputs,) or (inputs is None and not self.modules[0].bias)
        ):
            raise self._unfit()

    def _scales(self, outputs: int, inputs: int) -> None:
        allowed = {"dora_scale": (outputs, inputs), "magnitude": (outputs,), "up_bias": (outputs,), "alpha": (1,)}
        for part, widths in allowed.items():
            if part in self.shapes and self._elements(part) not in widths:
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
