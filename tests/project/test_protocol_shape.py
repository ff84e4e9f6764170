"""Every protocol has one table of rows, from which its routes and their descriptions are read."""

from __future__ import annotations

import ast
from importlib import import_module
from pathlib import Path

import pytest

from adapters.shared.table import described

ADAPTERS = Path(__file__).parents[2] / "adapters"
PROTOCOLS = ("docs", "mflux_server", "native", "sdapi", "v1", "web")
FILES = ("routes", "requests", "responses", "errors", "state")


@pytest.mark.parametrize("name", PROTOCOLS)
def test_protocol_routes_and_descriptions_are_those_of_the_route_table(name: str) -> None:
    table, adapter = import_module(f"adapters.{name}.routes").TABLE, import_module(f"adapters.{name}").ADAPTER
    assert [(route.path, route.endpoint) for route in adapter.routes] == [(row.path, row.endpoint) for row in table]
    assert [route.methods - {"HEAD"} for route in adapter.routes] == [{row.method} for row in table]
    assert adapter.described == described(table)


@pytest.mark.parametrize("name", PROTOCOLS)
def test_protocol_routes_and_descriptions_are_made_only_in_the_route_table(name: str) -> None:
    for file in sorted((ADAPTERS / name).glob("*.py")):
        calls = [node.func for node in ast.walk(ast.parse(file.read_text())) if isinstance(node, ast.Call)]
        names = {call.id for call in calls if isinstance(call, ast.Name)}
        assert "Route" not in names, file
        assert file.name == "routes.py" or not names & {"Row", "Operation"}, file


@pytest.mark.parametrize("name", sorted(set(PROTOCOLS) - {"docs", "web"}))
def test_protocol_folder_has_the_files_that_every_protocol_has(name: str) -> None:
    """What clients send and what they are answered are one file, or one each."""
    there = {file.stem for file in (ADAPTERS / name).glob("*.py")}
    assert there >= set(FILES)
    assert "schemas" in there or there >= {"request_schemas", "response_schemas"}
