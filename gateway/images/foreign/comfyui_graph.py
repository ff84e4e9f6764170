"""Graph of nodes as in ComfyUI's API: links are followed within bounds, cycles once. Pure."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

MOST_NODES = 5_000
MOST_HOPS = 64
"""Links followed for one value or model."""
MOST_WAYS = 96
"""Links followed for the texts of one prompt; each is about four calls deep."""

MOST_CHARS = 65_536
"""Characters of a joined text."""
MOST_CHAIN = 256

_VALUE_INPUTS = ("value", "int", "float", "number", "string", "text", "Value")
"""Inputs of nodes that only hold a value."""
_JOINED = (("string_a", "string_b"), ("text_a", "text_b", "text_c", "text_d"), ("text1", "text2"))
"""Inputs of nodes that join texts, with `delimiter` between. Source: ComfyUI StringConcatenate; WAS, pysssss."""


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
        """The graph; None if it is not one, or too large."""
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
        """The node of a link; None if the value is not a link."""
        match value:
            case [str() | int() as name, int()] if not isinstance(name, bool):
                return self.nodes.get(str(name))
            case _:
                return None

    def target(self, node: Node, name: str) -> Node | None:
        """The node linked to an input, behind nodes that only pass it on."""
        linked = self.linked(node.inputs.get(name))
        for _ in range(MOST_HOPS):
            if linked is None or not _is_reroute(linked):
                return linked
            linked = self.linked(next(iter(linked.inputs.values()), None))
        return None

    def links(self, node: Node) -> Iterator[str]:
        """Ids of all nodes that its inputs are linked to."""
        for value in node.inputs.values():
            if (linked := self.linked(value)) is not None:
                yield linked.id

    def value(self, node: Node, *names: str) -> object:
        """Value of the first of these inputs, or of the node linked to it; None if there is none."""
        candidates, at = names, node
        for _ in range(MOST_HOPS):
            name = next((name for name in candidates if name in at.inputs), None)
            if name is None:
                return None
            content = at.inputs[name]
            if not isinstance(content, list):
                return content
            linked = self.target(at, name)
            if linked is None:
                return None
            candidates, at = (*names, *_VALUE_INPUTS), linked
        return None

    @staticmethod
    def ways() -> list[int]:
        """Budget of links for several calls of `joined`."""
        return [MOST_WAYS]

    def joined(self, node: Node, name: str, ways: list[int]) -> str | None:
        """A text like `value`, also joined from several nodes; None if a part is unknown."""
        ways[0] -= 1
        content = node.inputs.get(name)
        if isinstance(content, str):
            return content
        linked = self.target(node, name) if ways[0] >= 0 else None
        return None if linked is None else self._made(linked, name, ways)

    def _made(self, node: Node, name: str, ways: list[int]) -> str | None:
        """The text that a node produces; each step uses up a link of the budget, so that cycles end."""
        for parts in _JOINED:
            if parts[0] in node.inputs:
                return self._put_together(node, [part for part in parts if part in node.inputs], ways)
        holder = next((holder for holder in (name, *_VALUE_INPUTS) if holder in node.inputs), None)
        return None if holder is None else self.joined(node, holder, ways)

    def _put_together(self, node: Node, parts: list[str], ways: list[int]) -> str | None:
        between = node.inputs.get("delimiter", "")
        texts = [self.joined(node, part, ways) for part in parts]
        if not isinstance(between, str) or None in texts:
            return None
        present = [text for text in texts if text]
        is_short = sum(map(len, present)) + len(present) * len(between) <= MOST_CHARS
        return between.join(present) if is_short else None

    def upstream(self, node: Node | None) -> Iterator[Node]:
        """The node and all nodes before it, the nearest first, each once."""
        waiting = deque([] if node is None else [node])
        seen = {one.id for one in waiting}
        while waiting:
            at = waiting.popleft()
            yield at
            for name in at.inputs:
                source = self.target(at, name)
                if source is not None and source.id not in seen:
                    seen.add(source.id)
                    waiting.append(source)

    def chain(self, node: Node, *names: str) -> Iterator[Node]:
        """The nodes along one kind of input, each once, at most `MOST_CHAIN`."""
        seen: set[str] = set()
        at: Node | None = node
        while at is not None and at.id not in seen and len(seen) <= MOST_CHAIN:
            seen.add(at.id)
            if at is not node:
                yield at
            here = at
            at = next((target for name in names if (target := self.target(here, name)) is not None), None)


def _is_reroute(node: Node) -> bool:
    return "reroute" in node.kind.lower() and len(node.inputs) == 1
