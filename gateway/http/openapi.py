"""OpenAPI 3.1 document of all protocols, from the types that adapters declare with their routes. Pure.

Source: OpenAPI Specification 3.1.1; JSON Schema 2020-12, which is what pydantic writes.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal, Protocol

from pydantic import AliasChoices, BaseModel, TypeAdapter, WithJsonSchema
from pydantic.json_schema import GenerateJsonSchema

Mode = Literal["validation", "serialization"]
Schema = dict[str, Any]

File = Annotated[bytes, WithJsonSchema({"type": "string", "format": "binary"})]
"""A file part of a form."""

JSON, FORM, EVENTS = "application/json", "multipart/form-data", "text/event-stream"
REF = "#/components/schemas/{model}"
HEADERS = {
    "Idempotency-Key": "A repeated request with the same key is the same job, for 24 hours.",
    "Last-Event-ID": "The id of the last event that arrived: the stream goes on after it.",
    "If-None-Match": "The ETag of what the client has.",
    "X-Client-Id": "What a client without a key calls itself: jobs and uploads are its own.",
    "Range": "The part that is wanted, in bytes.",
}
SECURITY: Mapping[str, Schema] = {
    "bearer": {"type": "http", "scheme": "bearer"},
    "apiKey": {"type": "apiKey", "in": "header", "name": "X-API-Key"},
    "basic": {"type": "http", "scheme": "basic", "description": "The key is the password; the name does not matter."},
}
_LONG = re.compile(r"(?:adapters__)?([a-z0-9]+(?:_[a-z0-9]+)*)__[a-z0-9_]+__(\w+)")
_PARAMETER = re.compile(r"\{(\w+)(?::(\w+))?\}")
_LEAD = re.compile(r"^(GET|POST|PUT|DELETE) [^:]*: ")


@dataclass(frozen=True, slots=True)
class Operation:
    """Input and output of one method of one route; its description is the docstring of the endpoint."""

    answer: Any = None
    """Type of its JSON response."""
    status: int = 200
    body: type[BaseModel] | None = None
    form: type[BaseModel] | None = None
    """The same as a multipart form."""
    query: type[BaseModel] | None = None
    headers: tuple[str, ...] = ()
    """Request headers from `HEADERS` that it uses."""
    media: tuple[str, ...] = ()
    """Media types of a response that is not JSON."""
    also: Mapping[int, str] = field(default_factory=dict)
    """Responses without a body, and when they are sent."""
    events: Mapping[str, Any] = field(default_factory=dict)
    """Types of the data of its server-sent events."""


class Routed(Protocol):
    """A route, such as Starlette's."""

    @property
    def path(self) -> str: ...
    @property
    def methods(self) -> Collection[str] | None: ...
    @property
    def endpoint(self) -> Callable[..., Any]: ...


class Section(Protocol):
    """A protocol: its routes, their operations under "METHOD /path", and the type of its errors."""

    @property
    def name(self) -> str: ...
    @property
    def routes(self) -> Iterable[Routed]: ...
    @property
    def described(self) -> Mapping[str, Operation]: ...
    @property
    def error(self) -> Any: ...


@dataclass(frozen=True, slots=True)
class Group:
    """Routes that belong to no adapter."""

    name: str
    routes: tuple[Routed, ...]
    described: Mapping[str, Operation]
    error: Any


class _Titleless(GenerateJsonSchema):
    """JSON schema generator without pydantic's titles, which repeat the names."""

    def field_title_should_be_set(self, schema: Any) -> bool:
        return False


class _Types:
    """All named types, each once: `ref` while collecting, `schemas` at the end."""

    def __init__(self) -> None:
        self._known: dict[tuple[Any, Mode], Schema] = {}
        self._schemas: dict[str, Schema] = {}

    def collect(self, kinds: Iterable[tuple[Any, Mode]]) -> None:
        by_key = {key: key[0] for key in kinds}
        adapters = [(key, key[1], TypeAdapter(kind)) for key, kind in by_key.items()]
        schemas, whole = TypeAdapter.json_schemas(adapters, ref_template=REF, schema_generator=_Titleless)
        self._known = {key: _renamed(schema) for (key, _), schema in schemas.items()}
        self._schemas = {
            _short(name): _titled(_short(name), _renamed(schema)) for name, schema in whole.get("$defs", {}).items()
        }
        for kind, mode in by_key:
            if mode == "validation" and isinstance(kind, type) and issubclass(kind, BaseModel):
                self._add_aliases(kind)

    def _add_aliases(self, model: type[BaseModel]) -> None:
        """Add the other spellings of a field, which pydantic omits."""
        properties = self.properties(model)
        for name, info in model.model_fields.items():
            if isinstance(info.validation_alias, AliasChoices):
                first, *others = (choice for choice in info.validation_alias.choices if isinstance(choice, str))
                for other in others:
                    properties.setdefault(other, {**properties[first], "description": f"Another name of `{first}`."})
            assert info.validation_alias or name in properties

    def of(self, kind: Any, mode: Mode) -> Schema:
        return self._known[kind, mode]

    def properties(self, model: type[BaseModel]) -> dict[str, Schema]:
        """Properties of a model that clients send."""
        schema = self._resolved(self.of(model, "validation"))
        properties: dict[str, Schema] = schema.setdefault("properties", {})
        return properties

    def required(self, model: type[BaseModel]) -> list[str]:
        return list(self._resolved(self.of(model, "validation")).get("required", ()))

    def _resolved(self, schema: Schema) -> Schema:
        reference = schema.get("$ref")
        return self._schemas[reference.rpartition("/")[2]] if reference else schema

    def reached_from(self, *roots: Any) -> dict[str, Schema]:
        """Schemas that are referred to from these roots, by name."""
        by_name: dict[str, Schema] = {}
        waiting = list(roots)
        while waiting:
            for name in _references(waiting.pop()):
                if name not in by_name:
                    waiting.append(by_name.setdefault(name, self._schemas[name]))
        return dict(sorted(by_name.items()))


def _short(name: str) -> str:
    """A schema's name. pydantic distinguishes equal names by their modules; the protocol's name is enough.

    It is a class name without a dot: generators drop all but the first of two schemas with equal class names.
    """
    match = _LONG.fullmatch(name)
    if match is None:
        return name
    return "".join(part.capitalize() for part in match[1].split("_")) + match[2]


def _titled(name: str, schema: Schema) -> Schema:
    """The schema with its own name as title, by which generators name a class, so that no class name is used twice."""
    return {**schema, "title": name} if "title" in schema else schema


def _renamed(schema: Any) -> Any:
    if isinstance(schema, list):
        return [_renamed(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    return {key: _renamed_reference(value) if key == "$ref" else _renamed(value) for key, value in schema.items()}


def _renamed_reference(reference: str) -> str:
    prefix, slash, name = reference.rpartition("/")
    return prefix + slash + _short(name)


def _references(schema: Any) -> Iterator[str]:
    if isinstance(schema, list):
        for item in schema:
            yield from _references(item)
    elif isinstance(schema, dict):
        for key, value in schema.items():
            if key == "$ref" and isinstance(value, str) and value.startswith("#/components/schemas/"):
                yield value.rpartition("/")[2]
            else:
                yield from _references(value)


def document(sections: Iterable[Section], *, title: str, version: str) -> dict[str, Any]:
    """The OpenAPI document. Raises: KeyError for a route that its adapter does not describe."""
    sections = tuple(sections)
    types = _Types()
    types.collect(key for section in sections for key in _kinds(section))
    paths: dict[str, dict[str, Any]] = {}
    templates: dict[str, str] = {}
    for section in sections:
        for method, route, operation in _operations(section):
            template = _PARAMETER.sub(r"{\1}", route.path)
            template = templates.setdefault(_PARAMETER.sub("{}", template), template)
            paths.setdefault(template, {})[method.lower()] = _operation(
                section, method, route, operation, template, types
            )
    responses = {f"{section.name}-error": _error(section, types) for section in sections}
    return {
        "openapi": "3.1.1",
        "info": {"title": title, "version": version, "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"}},
        "servers": [{"url": "/"}],
        "tags": [{"name": section.name} for section in sections],
        "security": [{}, *({name: []} for name in SECURITY)],
        "paths": paths,
        "components": {
            "schemas": types.reached_from(paths, responses),
            "securitySchemes": dict(SECURITY),
            "responses": responses,
        },
    }


def _operations(section: Section) -> Iterator[tuple[str, Routed, Operation]]:
    for route in section.routes:
        for method in sorted(set(route.methods or ()) - {"HEAD"}):
            yield method, route, section.described[f"{method} {route.path}"]


def _kinds(section: Section) -> Iterator[tuple[Any, Mode]]:
    yield section.error, "serialization"
    for _, _, operation in _operations(section):
        for model in (operation.body, operation.form, operation.query):
            if model is not None:
                yield model, "validation"
        for answered in (operation.answer, *operation.events.values()):
            if answered is not None:
                yield answered, "serialization"


def _error(section: Section, types: _Types) -> Schema:
    content = {JSON: {"schema": types.of(section.error, "serialization")}}
    return {"description": "What was wrong, in a sentence.", "content": content}


def _operation(
    section: Section, method: str, route: Routed, operation: Operation, template: str, types: _Types
) -> Schema:
    sentence, _, more = (route.endpoint.__doc__ or "").strip().partition("\n")
    sentence = _LEAD.sub("", sentence).strip() or f"The {_PARAMETER.sub('', route.path).rpartition('/')[2]}."
    shown: Schema = {
        "tags": [section.name],
        "operationId": re.sub(r"[^a-z0-9]+", "_", f"{method} {route.path}".lower()).strip("_"),
        "summary": sentence[:1].upper() + sentence[1:],
        "responses": _responses(section, operation, types),
    }
    if more.strip():
        shown["description"] = re.sub(r"\s+", " ", more).strip()
    if parameters := [*_in_path(route, template), *_in_query(operation, types), *_in_headers(operation)]:
        shown["parameters"] = parameters
    if bodies := {JSON: operation.body, FORM: operation.form}:
        content = {kind: {"schema": types.of(body, "validation")} for kind, body in bodies.items() if body is not None}
        if content:
            shown["requestBody"] = {"required": True, "content": content}
    if operation.events:
        shown["x-events"] = {name: types.of(kind, "serialization") for name, kind in operation.events.items()}
    return shown


def _responses(section: Section, operation: Operation, types: _Types) -> Schema:
    good: Schema = {"description": "Done."}
    if operation.answer is not None:
        good["content"] = {JSON: {"schema": types.of(operation.answer, "serialization")}}
    for media in operation.media:
        good.setdefault("content", {})[media] = {"schema": _of_media(media, operation, types)}
    error = {"$ref": f"#/components/responses/{section.name}-error"}
    return {
        str(operation.status): good,
        **{str(status): {"description": when} for status, when in operation.also.items()},
        "default": error,
    }


def _of_media(media: str, operation: Operation, types: _Types) -> Schema:
    if media == EVENTS:
        kinds = [types.of(kind, "serialization") for kind in dict.fromkeys(operation.events.values())]
        data = {"type": "string", "contentMediaType": JSON, "contentSchema": {"anyOf": kinds}}
        event = {"type": "string", "enum": list(operation.events)}
        properties = {"event": event, "id": {"type": "string"}, "data": data}
        return {"type": "object", "description": "Of each event.", "properties": properties, "required": ["data"]}
    return {"type": "string"} if media.startswith("text/") else {"type": "string", "format": "binary"}


def _in_path(route: Routed, template: str) -> Iterator[Schema]:
    kinds = [kind for _, kind in _PARAMETER.findall(route.path)]
    for name, kind in zip(re.findall(r"\{(\w+)\}", template), kinds, strict=True):
        schema: Schema = {"type": "integer", "minimum": 0} if kind == "int" else {"type": "string", "minLength": 1}
        yield {"name": name, "in": "path", "required": True, "schema": schema}


def _in_query(operation: Operation, types: _Types) -> Iterator[Schema]:
    if operation.query is None:
        return
    required = types.required(operation.query)
    for name, schema in types.properties(operation.query).items():
        schema = dict(schema)
        described = {"description": schema.pop("description")} if "description" in schema else {}
        yield {"name": name, "in": "query", "required": name in required, "schema": schema, **described}


def _in_headers(operation: Operation) -> Iterator[Schema]:
    for name in operation.headers:
        schema = {"type": "string", "minLength": 1, "maxLength": 255}
        yield {"name": name, "in": "header", "description": HEADERS[name], "schema": schema}
