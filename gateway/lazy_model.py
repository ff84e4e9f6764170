"""Bases of pydantic models that cost nothing until they are used: the schemas of all took a third of a start."""

from __future__ import annotations

import ast
import inspect
import sys
from collections.abc import Iterator
from functools import cache
from itertools import zip_longest
from typing import Any

from pydantic import AliasChoices, BaseModel, ConfigDict, GetJsonSchemaHandler


class LazyModel(BaseModel):
    """A model whose schema is built when it first validates or writes a value."""

    model_config = ConfigDict(defer_build=True)


class DocumentedModel(LazyModel):
    """A model whose JSON schema describes each field by the string under it, unless the field has a description.

    pydantic's `use_attribute_docstrings` parses the source of each class at every start; here it is parsed when a JSON
    schema is requested.
    """

    @classmethod
    def __get_pydantic_json_schema__(cls, core_schema: Any, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        schema = handler(core_schema)
        properties = handler.resolve_ref_schema(schema).get("properties", {})
        for name in cls.model_fields:
            text = next((texts[name] for texts in map(_texts, cls.__mro__) if name in texts), None)
            if text and (key := _key(cls, name)) in properties:
                properties[key].setdefault("description", text)
        return schema


def _key(model: type[BaseModel], name: str) -> str:
    """The name of a field in the JSON schema: the first one that clients may send."""
    alias = model.model_fields[name].validation_alias
    first = alias.choices[0] if isinstance(alias, AliasChoices) else alias
    return first if isinstance(first, str) else name


def _texts(model: type) -> dict[str, str | None]:
    """The attributes that a class itself declares, each with the text under it."""
    is_documented = issubclass(model, DocumentedModel) and model is not DocumentedModel
    return _of_module(model.__module__).get(model.__name__, {}) if is_documented else {}


@cache
def _of_module(name: str) -> dict[str, dict[str, str | None]]:
    """The texts of each class at the top of a module, by its name; none where there is no source."""
    try:
        tree = ast.parse(inspect.getsource(sys.modules[name]))
    except OSError:
        return {}
    return {node.name: dict(_of_class(node)) for node in tree.body if isinstance(node, ast.ClassDef)}


def _of_class(node: ast.ClassDef) -> Iterator[tuple[str, str | None]]:
    for attribute, below in zip_longest(node.body, node.body[1:]):
        if isinstance(attribute, ast.AnnAssign) and isinstance(attribute.target, ast.Name):
            yield attribute.target.id, _text(below)


def _text(node: ast.stmt | None) -> str | None:
    """The string that a statement consists of."""
    if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str):
        return inspect.cleandoc(node.value.value)
    return None
