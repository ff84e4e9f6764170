"""/sdapi/v1 under bad input: a 4xx in A1111's shape each time, and the next request works."""

from __future__ import annotations

import base64
import json
from typing import Any

import httpx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from adapters.sdapi.errors import AsA1111, render_error
from adapters.sdapi.infotext_field import completed
from adapters.sdapi.request_schemas import Img2Img, Txt2Img
from adapters.sdapi.responses import RenderInput, to_body
from adapters.shared.body import validated
from gateway.errors import GatewayError
from gateway.jobs.resolve import resolve
from tests.support.live import Live
from tests.support.sdapi import INIT, LIMITS, SMALL, TINY, an_image, begun, ended, fixtures, to_request
from tests.support.sdapi_mutations import ANYTHING, VALID, Sent, changed, outcome, send

gateway, client = fixtures()


# ---- bad input -------------------------------------------------------------------------------------

DEEP = "[" * 200_000
BOMB = base64.b64encode(b"\x89PNG\r\n\x1a\n" + bytes(64)).decode()
BAD_BODIES: dict[str, str | bytes] = {
    "deep nesting": DEEP,
    "an integer of 5000 digits": '{"steps": ' + "9" * 5000 + "}",
    "bytes that are no UTF-8": b'{"prompt": "\xff\xfe"}',
    "NaN": '{"cfg_scale": NaN}',
    "1e999": '{"cfg_scale": 1e999}',
    "a lone surrogate": '{"prompt": "\\ud800"}',
    "a NUL": '{"prompt": "\\u0000"}',
    "a key twice": '{"steps": 1, "steps": 2}',
    "half a body": '{"prompt": ',
    "nothing": "",
    "a list": "[]",
    "a string": '"text"',
    "null": "null",
}
BAD_FIELDS = [
    {"steps": "many"},
    {"steps": 0},
    {"steps": -5},
    {"steps": 151},
    {"steps": 10**18},
    {"width": 0},
    {"width": 63},
    {"width": -512},
    {"width": 8193},
    {"height": 10**9},
    {"width": 4096, "height": 4096},
    {"cfg_scale": "nan"},
    {"cfg_scale": -1},
    {"cfg_scale": 31},
    {"seed": -(2**63) - 1},
    {"seed": 2**64},
    {"batch_size": 0},
    {"batch_size": 11},
    {"batch_size": 4, "n_iter": 4},
    {"prompt": "x" * 40_000},
    {"prompt": {"text": "x"}},
    {"styles": {}},
    {"alwayson_scripts": {"ADetailer": {}}},
    {"script_name": "__class__"},
    {"enable_hr": True, "hr_scale": 100},
    {"enable_hr": True, "hr_resize_x": 5000},
    {"enable_hr": True, "denoising_strength": 2},
    {"subseed_strength": 1.5},
    {"override_settings": "x"},
]
BAD_PICTURES = [
    "http://169.254.169.254/latest/meta-data",
    "https://example.com/a.png",
    "file:///etc/passwd",
    "/etc/passwd",
    "not base64!",
    "",
    "aGVsbG8=",
    "data:image/svg+xml;base64,PHN2Zz48L3N2Zz4=",
    "data:text/html;base64,PGI+",
    BOMB,
]


def check_refusal(response: httpx.Response, statuses: tuple[int, ...] = (422,)) -> None:
    assert response.status_code in statuses, response.text[:500]
    assert len(response.content) <= 4096
    body = response.json()
    assert body["detail"]
    for item in body["detail"] if isinstance(body["detail"], list) else ():
        assert set(item) == {"loc", "msg", "type"}
        assert item["loc"][0] == "body"
    assert "Traceback" not in response.text


def check_next_works(client: httpx.Client) -> None:
    assert client.post("txt2img", json=SMALL).status_code == 200


@pytest.mark.parametrize("name", BAD_BODIES)
def test_a_body_that_is_not_a_strict_json_object_is_refused(client: httpx.Client, name: str) -> None:
    headers = {"content-type": "application/json"}
    for path in ("txt2img", "img2img", "options"):
        check_refusal(client.post(path, content=BAD_BODIES[name], headers=headers))
    check_next_works(client)


@pytest.mark.parametrize("fields", BAD_FIELDS, ids=str)
def test_a_field_that_cannot_be_honoured_is_refused(client: httpx.Client, fields: dict[str, Any]) -> None:
    response = client.post("txt2img", json={**SMALL, **fields})
    check_refusal(response)
    named = response.json()["detail"][0]["loc"][1]
    assert named in fields or named == "prompt"
    check_next_works(client)


@pytest.mark.parametrize("picture", BAD_PICTURES, ids=lambda text: text[:24])
def test_an_invalid_init_image_is_refused(client: httpx.Client, picture: str) -> None:
    response = client.post("img2img", json={**SMALL, "init_images": [picture]})
    check_refusal(response)
    assert response.json()["detail"][0]["loc"] == ["body", "init_images"]
    check_next_works(client)


def test_a_remote_image_has_its_own_error_code(client: httpx.Client) -> None:
    answer = client.post("img2img", json={**SMALL, "init_images": ["http://localhost/a.png"]}).json()
    assert answer["code"] == "REMOTE_IMAGES_DISABLED"


@pytest.mark.parametrize("body", [{}, {"init_images": []}, {"init_images": None}])
def test_img2img_without_an_image_has_a1111s_error_message(client: httpx.Client, body: dict[str, Any]) -> None:
    response = client.post("img2img", json={**SMALL, **body})
    assert response.status_code == 404
    assert response.json()["detail"] == "Init image not found"


def test_a_wrong_content_type_is_a_422_and_none_is_json(client: httpx.Client) -> None:
    body = json.dumps(SMALL)
    check_refusal(client.post("txt2img", content=body, headers={"content-type": "text/plain"}))
    assert client.post("txt2img", content=body).status_code == 200


def test_unknown_routes_and_wrong_methods_answer_as_fastapi_does(client: httpx.Client) -> None:
    for path in ("nothing", "txt2img/x", "controlnet/detect", "server-kill", "server-stop", "server-restart"):
        response = client.post(path, json={})
        assert (response.status_code, response.json()) == (404, {"detail": "Not Found"})
    for method, path in (("GET", "txt2img"), ("DELETE", "options"), ("PUT", "progress"), ("GET", "interrupt")):
        response = client.request(method, path)
        assert (response.status_code, response.json()) == (405, {"detail": "Method Not Allowed"})
    assert client.head("options").status_code == 204  # a probe


# ---- anything at all -------------------------------------------------------------------------------


@settings(max_examples=300, deadline=None)
@given(st.sampled_from([Txt2Img, Img2Img]), st.data())
def test_any_value_of_a_field_is_drawn_or_refused_by_name(model: type[Txt2Img | Img2Img], data: st.DataObject) -> None:
    fields = st.dictionaries(st.sampled_from(sorted(model.model_fields)), ANYTHING, max_size=4)
    init: dict[str, Any] = {"init_images": [INIT]} if model is Img2Img else {}
    try:
        asked = validated(model, {**SMALL, **init, **data.draw(fields)})
        asked, _ = completed(asked, lambda name: None)
        found = to_request(asked, checkpoint=None, limits=LIMITS, images=begun(model))
        plan = resolve(found.request, TINY, LIMITS, random_seed=lambda: 1, leniency="drop")
    except GatewayError as error:
        refused: GatewayError | None = error
        status = render_error(error).status_code
    else:
        status = 200
    assert status in (200, 404, 422) or isinstance(refused, AsA1111)
    if status != 200:
        return
    job = ended(plan.plan, adjustments=plan.adjustments)
    reply = json.loads(
        to_body(RenderInput(asked, job, plan.plan, found.adjustments), [an_image()] * len(plan.plan.seeds))
    )
    assert len(json.loads(reply["info"])["infotexts"]) == len(reply["images"])


# ---- valid requests, changed at random ---------------------------------------------------------------


@pytest.mark.parametrize(("path", "body"), VALID, ids=lambda value: value if isinstance(value, str) else "")
def test_the_payloads_that_are_mutated_are_valid(client: httpx.Client, path: str, body: dict[str, Any]) -> None:
    assert client.post(path, json=body).status_code == 200


@settings(max_examples=360, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(request_=changed())
def test_a_randomly_mutated_request_succeeds_or_is_refused_and_is_never_a_500(gateway: Live, request_: Sent) -> None:
    """benchmarks/soak.py sends 4,000 of them."""
    with httpx.Client(base_url=f"{gateway.url}/sdapi/v1/") as client:
        outcome(send(client, request_))
