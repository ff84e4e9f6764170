"""Modules of a model that LoRAs can change, with their sizes, and the table that finds them by layer names."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from engine.lora_layouts.keys import names_of
from engine.lora_layouts.rows import Row


@dataclass(frozen=True, slots=True)
class Module:
    """Outputs and inputs of a linear layer or a convolution, or width of a norm where `inputs` is None. `kernel` is the
    side of a convolution's kernel.
    """

    outputs: int
    inputs: int | None
    bias: bool = False
    kernel: int = 1


class Sheet:
    """Modules of a model by path, with `#` for the number of a block, and the blocks that have the module."""

    def __init__(self, modules: Mapping[str, tuple[Module, frozenset[int] | None]]) -> None:
        self._modules = modules

    @classmethod
    def of(cls, modules: Mapping[str, Module]) -> Sheet:
        """Sheet of a model's modules, given by their whole paths."""
        blocks: dict[tuple[str, Module], set[int]] = {}
        plain: dict[str, tuple[Module, frozenset[int] | None]] = {}
        for path, module in modules.items():
            pattern, block = block_pattern(path)
            if block is None:
                plain[path] = (module, None)
            else:
                blocks.setdefault((pattern, module), set()).add(block)
        counts: dict[str, int] = {}
        for pattern, _ in blocks:
            counts[pattern] = counts.get(pattern, 0) + 1
        for (pattern, module), numbers in blocks.items():
            if counts[pattern] == 1:
                plain[pattern] = (module, frozenset(numbers))
            else:  # blocks of different sizes
                plain |= {pattern.replace("#", str(number), 1): (module, None) for number in numbers}
        return cls(plain)

    def __iter__(self) -> Iterator[str]:
        return iter(self._modules)

    def find(self, path: str) -> Module | None:
        """Module at a whole path."""
        if (found := self._modules.get(path)) is not None:
            return found[0]
        pattern, block = block_pattern(path)
        there = self._modules.get(pattern)
        return there[0] if there is not None and there[1] is not None and block in there[1] else None

    def pack(self) -> dict[str, list[Any]]:
        """JSON form of the sheet: outputs, inputs, bias, the number of blocks, or their list, and the side of a kernel
        that is not 1.
        """
        found = {}
        for path, (module, blocks) in sorted(self._modules.items()):
            numbers = None if blocks is None else sorted(blocks)
            stored = len(numbers) if numbers and numbers == list(range(len(numbers))) else numbers
            kernel = [] if module.kernel == 1 else [module.kernel]
            found[path] = [module.outputs, module.inputs, int(module.bias), stored, *kernel]
        return found

    @classmethod
    def unpack(cls, stored: Mapping[str, list[Any]]) -> Sheet:
        found = {}
        for path, (outputs, inputs, bias, blocks, *kernel) in stored.items():
            numbers = None if blocks is None else frozenset(range(blocks) if isinstance(blocks, int) else blocks)
            found[path] = (Module(outputs, inputs, bool(bias), *kernel), numbers)
        return cls(found)


def block_pattern(path: str) -> tuple[str, int | None]:
    """A module's path with `#` for its first number that is followed by something; and that number."""
    segments = path.split(".")
    for at, segment in enumerate(segments[:-1]):
        if segment.isdecimal():
            return ".".join((*segments[:at], "#", *segments[at + 1 :])), int(segment)
    return path, None


class Table:
    """Rows of an architecture for one model. The model's own module names are layer names too.

    `has_text_encoders`: the model's text encoders are among its modules.
    """

    def __init__(self, rows: Mapping[str, Row], sheet: Sheet, *, has_text_encoders: bool = False) -> None:
        own = {
            pattern.replace(".", "_"): Row((pattern,)) for path in sheet for pattern in {path, block_pattern(path)[0]}
        }
        self._rows = {**own, **rows}
        self.sheet = sheet
        self.has_text_encoders = has_text_encoders

    def __contains__(self, name: object) -> bool:
        return name in self._rows

    def __iter__(self) -> Iterator[str]:
        """Names of layers: dots as underscores, `#` for the number of a block."""
        return iter(self._rows)

    def find(self, names: Iterable[tuple[str, int | None]]) -> Row | None:
        """Row of a layer, with whole paths of modules; `names` is the result of `names_of`."""
        for name, block in names:
            if (row := self._rows.get(name)) is None:
                continue
            if block is None:
                return row
            return Row(tuple(module.replace("#", str(block), 1) for module in row.modules), row.swapped)
        return None

    def row_of(self, layer: str) -> Row | None:
        return self.find(names_of(layer))
