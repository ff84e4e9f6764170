"""A graph of nodes as ComfyUI's API has it: links followed within bounds, cycles once. Pure."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

MOST_NODES = 5_000
MOST_HOPS = 64
"""Along one value's or model's links."""
MOST_WAYS = 96
"""Links that are followed for the texts of one prompt, each some four calls deeper."""

MOST_CHARS = 65_536
"""Of a text that is put together."""
MOST_CHAIN = 256

_VALUE_INPUTS = ("value", "int", "float", "number", "string", "text", "Value")
"""Where nodes that only hold a value have it."""
_JOINED = (("string_a", "string_b"), ("text_a", "text_b", "text_c", "text_d"), ("text1", "text2"))
"""Nodes that put texts together, with `delimiter` between. Source: ComfyUI StringConcatenate; WAS, pysssss."""


@dataclass(frozen=True, slots=True, eq=False)
class Node:
    id: str
    kind: str
    inputs: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Graph:
    nodes: Mapping[str, Node]

    @classmethod
    def of(cls, value: Mapping[str, Any]) -> Graph | None:
        """None for what is no graph, or too large a one."""
        if len(value) > MOST_NODES:
            return None
        nodes = {
            name: Node(name, node["class_type"], node["inputs"])
            for name, node in value.items()
            if isinstance(node, dict)
            and isinstance(node.get("class_type"), str)
            and isinstance(node.get("inputs"), dict)
        }
        return cls(nodes) if nodes else None

    def linked(self, value: object) -> Node | None:
        """The node that a link leads to; None for what is none."""
        match value:
            case [str() | int() as name, int()] if not isinstance(name, bool):
                return self.nodes.get(str(name))
            case _:
                return None

    def target(self, node: Node, name: str) -> Node | None:
        """The node linked to an input, through nodes that only hand on."""
        found = self.linked(node.inputs.get(name))
        for _ in range(MOST_HOPS):
            if found is None or not _is_reroute(found):
                return found
            found = self.linked(next(iter(found.inputs.values()), None))
        return None

    def links(self, node: Node) -> Iterator[str]:
        """The ids of all nodes that its inputs are linked to."""
        for value in node.inputs.values():
            if (found := self.linked(value)) is not None:
                yield found.id

    def value(self, node: Node, *names: str) -> object:
        """The first of the inputs that is there, or what the node that it is linked to holds; None: not said."""
        wanted, at = names, node
        for _ in range(MOST_HOPS):
            name = next((name for name in wanted if name in at.inputs), None)
            if name is None:
                return None
            said = at.inputs[name]
            if not isinstance(said, list):
                return said
            linked = self.target(at, name)
            if linked is None:
                return None
            wanted, at = (*names, *_VALUE_INPUTS), linked
        return None

    @staticmethod
    def ways() -> list[int]:
        """How many links `joined` may still follow, for several calls together."""
        return [MOST_WAYS]

    def joined(self, node: Node, name: str, ways: list[int]) -> str | None:
        """A text as `value`, also where nodes put it together from several; None where one of them is not known."""
        ways[0] -= 1
        said = node.inputs.get(name)
        if isinstance(said, str):
            return said
        linked = self.target(node, name) if ways[0] >= 0 else None
        return None if linked is None else self._made(linked, name, ways)

    def _made(self, node: Node, name: str, ways: list[int]) -> str | None:
        """The text that a node makes; each step takes one of the ways, so that cycles end."""
        for parts in _JOINED:
            if parts[0] in node.inputs:
                return self._put_together(node, [part for part in parts if part in node.inputs], ways)
        held = next((held for held in (name, *_VALUE_INPUTS) if held in node.inputs), None)
        return None if held is None else self.joined(node, held, ways)

    def _put_together(self, node: Node, parts: list[str], ways: list[int]) -> str | None:
        between = node.inputs.get("delimiter", "")
        texts = [self.joined(node, part, ways) for part in parts]
        if not isinstance(between, str) or None in texts:
            return None
        said = [text for text in texts if text]
        is_short = sum(map(len, said)) + len(said) * len(between) <= MOST_CHARS
        return between.join(said) if is_short else None

    def upstream(self, node: Node | None) -> Iterator[Node]:
        """The node and all that it comes from, the nearest first, each once."""
        waiting = deque([] if node is None else [node])
        seen = {one.id for one in waiting}
        while waiting:
            at = waiting.popleft()
            yield at
            for name in at.inputs:
                found = self.target(at, name)
                if found is not None and found.id not in seen:
                    seen.add(found.id)
                    waiting.append(found)

    def chain(self, node: Node, *names: str) -> Iterator[Node]:
        """The nodes along one kind of input, each once, `MOST_CHAIN` at most."""
        seen: set[str] = set()
        at: Node | None = node
        while at is not None and at.id not in seen and len(seen) <= MOST_CHAIN:
            seen.add(at.id)
            if at is not node:
                yield at
            here = at
            at = next((found for name in names if (found := self.target(here, name)) is not None), None)


def _is_reroute(node: Node) -> bool:
    return "reroute" in node.kind.lower() and len(node.inputs) == 1
