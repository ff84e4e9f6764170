"""The picture of rooms in docs/architecture.md, drawn from the import statements: `python -m tools.draw_rooms`.

A room is a folder; modules that lie beside the folders of `gateway` count as one room. An arrow is left out where the
room is reached by others as well (transitive reduction), and where every room has it: the shared modules.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping
from pathlib import Path

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "architecture.md"
BEGIN, END = "<!-- rooms: python -m tools.draw_rooms -->\n", "<!-- end of rooms -->\n"
TOPS = ("adapters", "gateway", "engine")
WIRING = {
    "api_main": "api_main",
    "gateway.app": "app",
    "gateway.context": "context",
    "gateway.findings": "context",
    "gateway.startup_app": "app",
    "gateway.startup": "app",
}
"""Modules that put the rooms together, and the rooms that these are."""

Graph = dict[str, set[str]]


def modules() -> dict[str, Path]:
    """Every module of the product by its dotted name; a package is its `__init__`."""
    files = [file for top in TOPS for file in sorted((ROOT / top).rglob("*.py"))] + [ROOT / "api_main.py"]
    names = (".".join(file.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__") for file in files)
    return dict(zip(names, files, strict=True))


def imports(file: Path, known: Mapping[str, Path]) -> Iterator[str]:
    """The modules of the product that a file imports, wherever in it."""
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module and not node.level:
            for alias in node.names:
                inner = f"{node.module}.{alias.name}"
                yield from [name for name in (inner, node.module) if name in known][:1]
        elif isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name in known)


def module_graph() -> Graph:
    """Which module imports which."""
    known = modules()
    return {name: set(imports(file, known)) - {name} for name, file in known.items()}


def room_of(module: str) -> str | None:
    """The room of a module; None for shared modules, which every room may import."""
    parts = module.split(".")
    if module in WIRING:
        return WIRING[module]
    if parts[0] == "adapters":
        return "adapters"
    if len(parts) == 1 or not (ROOT / parts[0] / parts[1]).is_dir():
        return "engine process" if parts[0] == "engine" and parts[-1] in ("worker", "__main__") else None
    return "/".join(parts[:2])


def room_graph() -> Graph:
    """Which room imports which."""
    graph: Graph = {}
    for module, others in module_graph().items():
        if (room := room_of(module)) is not None:
            graph.setdefault(room, set()).update(
                other for name in others if (other := room_of(name)) not in (None, room) and other is not None
            )
    return graph


def circles(graph: Graph) -> list[list[str]]:
    """Groups of nodes that reach each other (Tarjan's strongly connected components), larger than one."""
    order: dict[str, int] = {}
    low: dict[str, int] = {}
    stack: list[str] = []
    found: list[list[str]] = []

    def visit(node: str) -> None:
        order[node] = low[node] = len(order)
        stack.append(node)
        for other in sorted(graph[node]):
            if other not in order:
                visit(other)
            if other in stack:
                low[node] = min(low[node], low[other])
        if low[node] == order[node]:
            group = stack[stack.index(node) :]
            del stack[stack.index(node) :]
            if len(group) > 1:
                found.append(sorted(group))

    for node in sorted(graph):
        if node not in order:
            visit(node)
    return found


def reduced(graph: Graph) -> Graph:
    """Without the arrows that a longer way says as well; rooms that reach each other keep the arrows among them."""
    group = {room: room for room in graph}
    group |= {room: rooms[0] for rooms in circles(graph) for room in rooms}
    groups: Graph = {group[room]: set() for room in graph}
    for room, others in graph.items():
        groups[group[room]] |= {group[other] for other in others} - {group[room]}

    def reach(node: str, seen: set[str]) -> set[str]:
        for other in groups[node] - seen:
            seen.add(other)
            reach(other, seen)
        return seen

    def says(node: str, other: str) -> bool:
        return not any(other in reach(via, set()) for via in groups[node] - {other})

    return {
        room: {other for other in others if group[other] == group[room] or says(group[room], group[other])}
        for room, others in graph.items()
    }


def mermaid(graph: Graph) -> str:
    """The flowchart, from those who import to those who are imported."""
    ids = {room: room.replace("/", "_").replace(" ", "_") for room in sorted(graph)}
    lines = ["flowchart TD"]
    lines += [f'  {ids[room]}["{room}"]' for room in sorted(graph)]
    lines += [f"  {ids[room]} --> {ids[other]}" for room in sorted(graph) for other in sorted(graph[room])]
    return "```mermaid\n" + "\n".join(lines) + "\n```\n"


def page(text: str) -> str:
    """The page with the picture as it is now."""
    before, rest = text.split(BEGIN)
    _, after = rest.split(END)
    return before + BEGIN + mermaid(reduced(room_graph())) + END + after


if __name__ == "__main__":
    PAGE.write_text(page(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
