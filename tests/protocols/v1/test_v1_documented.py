"""docs/openai.md decides every parameter: of openai's client, and of all the dialects that are read here."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, get_type_hints

import pytest
from openai.types import image_create_variation_params, image_edit_params, image_generate_params

from adapters.v1 import ADAPTER
from adapters.v1.payload import IMAGE_NAMES, IMAGE_ROLES, IN_KWARGS
from adapters.v1.request_schemas import NAMES, Edit, ImageBody, InputImageBody

TEXT = (Path(__file__).parents[3] / "docs" / "openai.md").read_text()
ROWS = [line for line in TEXT.partition("\n## The request\n")[2].partition("\n## ")[0].splitlines() if line[:1] == "|"]
DECIDED = {
    name.removesuffix("[]"): decision.strip()
    for _, first, decision, *_ in (row.split("|") for row in ROWS)
    for name in re.findall(r"`([a-z_]+(?:\[\])?)`", first)
}
"""What stands in the second column beside each name of the first."""

OPENAIS = [
    image_generate_params.ImageGenerateParamsNonStreaming,
    image_generate_params.ImageGenerateParamsStreaming,
    image_edit_params.ImageEditParamsNonStreaming,
    image_edit_params.ImageEditParamsStreaming,
    image_create_variation_params.ImageCreateVariationParams,
]


@pytest.mark.parametrize("params", OPENAIS, ids=lambda params: params.__name__)
def test_documented_decisions_cover_every_parameter_of_the_openai_client(params: Any) -> None:
    for name in get_type_hints(params):
        assert DECIDED.get(name) in ("honoured", "mapped", "told", "ignored", "refused"), name


def test_documented_decisions_cover_every_request_field_that_is_read() -> None:
    spelled = {name for names in NAMES.values() for name in names}
    fields = {name for model in (ImageBody, InputImageBody, Edit) for name in model.model_fields if name not in NAMES}
    known = spelled | fields | IN_KWARGS | set(IMAGE_ROLES) | {"kwargs", "url"}
    assert sorted(known - set(DECIDED)) == []
    assert set(IMAGE_NAMES) - {"file", "files"} <= set(DECIDED)


def test_every_route_is_in_the_table_of_routes() -> None:
    listed = re.findall(r"`(?:GET|POST|DELETE) (/v1[^`]*|/token)`", TEXT)
    shown = {re.sub(r"\{[^}]*\}", "{}", path) for path in listed}
    for route in ADAPTER.routes:
        assert re.sub(r"\{[^}]*\}", "{}", route.path) in shown, route.path
