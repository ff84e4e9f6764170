"""Rows of the processes that use a shared store: their reports, and which of them are asked to drain."""

from __future__ import annotations

from pydantic import TypeAdapter

from gateway.fleet.node import Node, SeenNode
from gateway.store.postgres.database import PostgresDatabase

_node: TypeAdapter[Node] = TypeAdapter(Node)
NOW = "extract(epoch FROM clock_timestamp())::float8"
ANNOUNCE = (
    f"INSERT INTO nodes (id, name, version, report, seen) VALUES (?, ?, ?, ?, {NOW}) ON CONFLICT (id) DO UPDATE"
    " SET name = excluded.name, version = excluded.version, report = excluded.report, seen = excluded.seen"
)
DRAINS = "drain "
"""Begin of the name of a stored text: it is followed by the name of the nodes that take no jobs."""


async def announce(database: PostgresDatabase, node: Node) -> bool:
    """Store the report of a process; whether it is asked to drain."""
    report = _node.dump_json(node).decode()
    await database.run(ANNOUNCE, (node.id, node.name, node.version, report))
    return bool(await database.run("SELECT 1 FROM kept WHERE name = ?", (DRAINS + node.name,)))


async def withdraw(database: PostgresDatabase, node_id: str) -> None:
    await database.run("DELETE FROM nodes WHERE id = ?", (node_id,))


async def listed(database: PostgresDatabase, within_s: float) -> list[SeenNode]:
    """The processes that reported within the last seconds, by name."""
    found = await database.run(
        f"SELECT report, {NOW} - seen AS seen_s, EXISTS (SELECT 1 FROM kept WHERE kept.name = ? || nodes.name)"
        f" AS is_draining FROM nodes WHERE seen > {NOW} - ? ORDER BY name, id",
        (DRAINS, within_s),
    )
    return [SeenNode(_node.validate_json(row["report"]), max(0.0, row["seen_s"]), row["is_draining"]) for row in found]
