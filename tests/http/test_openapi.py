"""/openapi.json: every route and every field is in it, and it is what the standard says."""

from __future__ import annotations

import ast
import importlib
import inspect
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from pydantic import AliasChoices, BaseModel

from adapters import ADAPTERS
from gateway.app import HEALTH, HEALTH_DESCRIBED
from gateway.http.openapi import Group, document
from tests.support.live import Live, live

ROOT = Path(__file__).parents[2]
PARSERS = {"parse", "validated", "query", "body_of"}
"""What makes a model of what a client sent."""


@pytest.fixture(scope="module")
def described() -> dict[str, Any]:
    sections = (*ADAPTERS, Group("health", HEALTH, HEALTH_DESCRIBED, dict[str, Any]))
    return document(sections, title="mflux-gateway", version="0")


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Live]:
    with live(tmp_path_factory.mktemp("docs")) as gateway:
        yield gateway


def template(path: str) -> str:
    return re.sub(r"\{\w+(:\w+)?\}", "{}", path)


def test_openapi_describes_every_route_and_method_and_nothing_else(described: dict[str, Any]) -> None:
    routes = {
        (template(route.path), method.lower())
        for adapter in ADAPTERS
        for route in adapter.routes
        for method in set(route.methods or ()) - {"HEAD"}
    }
    routes |= {("/health/live", "get"), ("/health/ready", "get"), ("/metrics", "get")}
    there = {(template(path), method) for path, methods in described["paths"].items() for method in methods}
    assert there == routes
    for adapter in ADAPTERS:
        own = {f"{m} {r.path}" for r in adapter.routes for m in set(r.methods or ()) - {"HEAD"}}
        assert set(adapter.described) == own, "a description without a route"


def parsed_models() -> Iterator[type[BaseModel]]:
    """Every model that an adapter parses what came from a client with, by reading its code."""
    for file in sorted((ROOT / "adapters").rglob("*.py")):
        module = importlib.import_module(file.relative_to(ROOT).with_suffix("").as_posix().replace("/", "."))
        for node in ast.walk(ast.parse(file.read_text())):
            if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in PARSERS):
                continue
            if node.args and isinstance(node.args[0], ast.Name):
                model = getattr(module, node.args[0].id, None)
                if inspect.isclass(model) and issubclass(model, BaseModel):
                    yield model


def names_in(schema: Any) -> Iterator[str]:
    """Every property and every parameter of a schema."""
    if isinstance(schema, list):
        for item in schema:
            yield from names_in(item)
    elif isinstance(schema, dict):
        yield from schema.get("properties", {}) if isinstance(schema.get("properties"), dict) else ()
        for item in schema.values():
            yield from names_in(item)


def taken_by(described: dict[str, Any]) -> dict[str, set[str]]:
    """The fields of each operation's body and query."""
    fields: dict[str, set[str]] = {}
    for path, methods in described["paths"].items():
        for method, operation in methods.items():
            found = {parameter["name"] for parameter in operation.get("parameters", ())}
            for content in operation.get("requestBody", {}).get("content", {}).values():
                reference = content["schema"]["$ref"].rpartition("/")[2]
                found |= set(described["components"]["schemas"][reference]["properties"])
            fields[f"{method} {path}"] = found
    return fields


def spellings(model: type[BaseModel]) -> set[str]:
    found = set()
    for name, field in model.model_fields.items():
        alias = field.validation_alias
        found |= {str(choice) for choice in alias.choices} if isinstance(alias, AliasChoices) else {name}
    return found


def test_every_field_that_a_client_may_send_is_described(described: dict[str, Any]) -> None:
    models = set(parsed_models())
    assert len(models) > 20
    taken = taken_by(described).values()
    for model in models:
        assert any(spellings(model) <= fields for fields in taken), f"{model.__module__}.{model.__name__}"


def test_openapi_references_resolve_and_every_schema_is_used(described: dict[str, Any]) -> None:
    text = str(described)
    for kind in ("schemas", "responses"):
        used = set(re.findall(rf"'#/components/{kind}/([^']+)'", text))
        assert used == set(described["components"][kind])
    ids = [operation["operationId"] for methods in described["paths"].values() for operation in methods.values()]
    assert len(ids) == len(set(ids))
    for path, methods in described["paths"].items():
        for operation in methods.values():
            named = {p["name"] for p in operation.get("parameters", ()) if p["in"] == "path"}
            assert named == set(re.findall(r"\{(\w+)\}", path))
            assert operation["summary"].strip()


def test_openapi_has_a_name_for_each_schema_and_a_type_for_each_field(described: dict[str, Any]) -> None:
    """They name classes by title, drop all but the first of two alike, and stop at a type that is only null."""
    schemas = described["components"]["schemas"]
    assert all(re.fullmatch(r"[A-Za-z][A-Za-z0-9]*", name) for name in schemas)
    assert all(schema.get("title", name) == name for name, schema in schemas.items())
    for name, schema in schemas.items():
        for field, kind in schema.get("properties", {}).items():
            assert kind.get("type") != "null", f"{name}.{field}"
    for methods in described["paths"].values():
        assert all("default" in operation["responses"] for operation in methods.values())


def test_openapi_reveals_no_local_path_and_no_module_name(described: dict[str, Any]) -> None:
    """No path of this machine, no name of a module."""
    text = str(described)
    assert str(ROOT) not in text
    assert "adapters__" not in text


def test_openapi_is_served_with_an_etag_and_the_mflux_server_part_at_swagger_json(gateway: Live) -> None:
    whole = httpx.get(f"{gateway.url}/openapi.json")
    assert (whole.status_code, whole.json()["openapi"]) == (200, "3.1.1")
    again = httpx.get(f"{gateway.url}/openapi.json", headers={"If-None-Match": whole.headers["etag"]})
    assert (again.status_code, again.content) == (304, b"")
    for path in ("/swagger.json", "/api/swagger.json"):
        part = httpx.get(gateway.url + path).json()
        assert [tag["name"] for tag in part["tags"]] == ["mflux-server"]
        assert {"/generate", "/api/generate", "/api/load"} <= set(part["paths"])
        assert "/api/v1/generate" not in part["paths"]


def test_openapi_documentation_page_loads_files_only_from_this_server(gateway: Live) -> None:
    """S-15: the strict policy holds for it, too."""
    for path in ("/docs", "/swagger"):
        page = httpx.get(gateway.url + path)
        assert page.headers["content-type"].startswith("text/html")
        assert "default-src 'none'" in page.headers["content-security-policy"]
        assert "unsafe" not in page.headers["content-security-policy"]
        parts = re.findall(r'(?:src|href)="([^"]+)"', page.text)
        assert len(parts) >= 4
        for part in parts:
            assert part.startswith("/"), "nothing comes from elsewhere"
            assert httpx.get(gateway.url + part).status_code == 200
    missing = httpx.get(f"{gateway.url}/docs/assets/../../../pyproject.toml")
    assert missing.status_code == 404
    assert httpx.get(f"{gateway.url}/docs/assets/%2e%2e%2fpage.html").status_code == 404
    assert httpx.get(f"{gateway.url}/docs/nothing").json()["code"] == "not_found"


def test_key_is_required_where_keys_are_configured(tmp_path: Path) -> None:
    """S-43."""
    keys = tmp_path / "keys"
    keys.write_text("me 0123456789abcdef\n")
    keys.chmod(0o600)
    gateway = Live(tmp_path, config={"access": {"keys_file": str(keys)}}).start(ready=False)
    try:
        for path in ("/docs", "/swagger", "/openapi.json", "/swagger.json"):
            refused = httpx.get(gateway.url + path)
            assert (refused.status_code, refused.json()["code"]) == (401, "unauthorized")
            assert httpx.get(gateway.url + path, auth=("any", "0123456789abcdef")).status_code == 200
    finally:
        gateway.stop()
