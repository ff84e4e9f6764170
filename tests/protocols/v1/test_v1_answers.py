"""What /v1 says back: answers, events and errors, without a connection."""

from __future__ import annotations

import base64
import io
import json
from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest
from PIL import Image
from starlette.requests import Request

from adapters.shared.body import validated
from adapters.v1 import ADAPTER
from adapters.v1.errors import error_frame, render_error, to_error
from adapters.v1.image_formats import from_png, from_preview
from adapters.v1.images import failure_of, to_frame
from adapters.v1.payload import flatten
from adapters.v1.request_schemas import Edit, Generation
from adapters.v1.requests import Submission
from adapters.v1.responses import ImageRow, completed_frame, partial_frame, to_response, to_url
from adapters.v1.values import ImageFormat
from engine.protocol import Cancelled, Failed, Generate, Preview, StepDone, Succeeded
from gateway.errors import ClientGone, GatewayError, GenerationFailed, InvalidRequest, ModelNotFound, QueueFull
from gateway.events.bus import ProgressEvent
from gateway.jobs.facts import ImageDone, Queued, Started
from gateway.jobs.job import Job, NewJob, Outcome, Progress, StateFacts
from gateway.jobs.resolve import Adjustment, GenerationRequest

ID = "0123456789abcdef" * 2
NO_REQUEST = Request({"type": "http"})
PLAN = Generate(
    model="flux2-tiny", prompt="an apple", width_px=128, height_px=64, steps=4, guidance=1.0, seeds=(7, 8), previews=2
)


def asked(**body: Any) -> Generation:
    return validated(Generation, flatten({"prompt": "an apple", **body}))


def order(**body: Any) -> Submission:
    return Submission(asked(**body), GenerationRequest(prompt="an apple"))


def done(image: int = 0) -> ImageDone:
    name = f"{ID}.1.{image}.png"
    return ImageDone(
        image=image, seed=7 + image, file=name, width_px=128, height_px=64, drawn_px=(128, 128), seconds=1.0
    )


def job(*facts: StateFacts, adjustments: tuple[Adjustment, ...] = ()) -> Job:
    new = NewJob(id=ID, owner="local", protocol="openai", plan=PLAN, attached=True, adjustments=adjustments)
    made = Job.of(new, 1)
    happened: tuple[StateFacts, ...] = (Queued(), Started(attempt=1), *facts)
    for at, fact in enumerate(happened):
        made = made.apply(fact, 1_763_000_000.5 + at)
    return made


def frames(raw: bytes) -> list[dict[str, str]]:
    """Server-sent events as fields, by the letter of the specification."""
    events = []
    for block in raw.decode().split("\n\n"):
        fields = dict(line.split(": ", 1) for line in block.splitlines())
        if fields:
            events.append(fields)
    return events


# ---- answers ---------------------------------------------------------------------------------------


def test_openai_response_is_an_images_response_with_our_extra_keys() -> None:
    ended = job(done(0), done(1), Succeeded())
    rows = [ImageRow(done(0), b"PNG", "http://h/u"), ImageRow(done(1), None, "http://h/v")]
    answer = json.loads(to_response(ended, asked(), rows))
    assert answer == {
        "created": 1_763_000_004,
        "background": "opaque",
        "output_format": "png",
        "quality": None,
        "size": "128x64",
        "data": [
            {"b64_json": "UE5H", "url": "http://h/u", "revised_prompt": None, "seed": 7},
            {"b64_json": None, "url": "http://h/v", "revised_prompt": None, "seed": 8},
        ],
        "usage": {
            "input_tokens": 0,
            "output_tokens": 0,
            "total_tokens": 0,
            "input_tokens_details": {"image_tokens": 0, "text_tokens": 0},
            "output_tokens_details": {"image_tokens": 0, "text_tokens": 0},
        },
        "safety_identifier": None,
        "model": "flux2-tiny",
        "job_id": ID,
        "adjustments": [
            {
                "param": "size",
                "asked": "128x64",
                "used": "128x128",
                "reason": "flux2-tiny draws at its own size; the picture was scaled to 128x64",
            }
        ],
    }


def test_adjustments_report_what_was_changed_from_the_request() -> None:
    rounded = Adjustment(param="width", asked=130, used=128, reason="sizes are multiples of 16, rounded down")
    ended = job(done(0), done(1), Succeeded(), adjustments=(rounded,))
    ours = Adjustment(param="image", asked="edit", used="image-to-image", reason="the model cannot edit")
    answer = json.loads(to_response(ended, asked(output_compression=50), [ImageRow(done(), b"", None)], [ours]))
    assert [told["param"] for told in answer["adjustments"]] == ["image", "width", "size", "output_compression"]
    assert answer["adjustments"][1]["used"] == 128


@pytest.mark.parametrize(
    ("body", "url"),
    [
        ({}, f"http://h:1/v1/images/content/{ID}.1.0.png"),
        ({"output_format": "jpeg"}, f"http://h:1/v1/images/content/{ID}.1.0.jpeg"),
        (
            {"output_format": "webp", "output_compression": 40},
            f"http://h:1/v1/images/content/{ID}.1.0.webp?output_compression=40",
        ),
    ],
)
def test_a_url_names_the_picture_and_its_format(body: dict[str, Any], url: str) -> None:
    assert to_url("http://h:1", done(), asked(**body)) == url


# ---- events ----------------------------------------------------------------------------------------


def test_a_partial_image_event_has_every_field_the_client_knows() -> None:
    raw = partial_frame(asked(output_format="jpeg", quality="hd"), (128, 64), 1, 0, 1_763_000_000.9, b"JPG")
    (event,) = frames(raw)
    assert event["event"] == "image_generation.partial_image"
    assert json.loads(event["data"]) == {
        "type": "image_generation.partial_image",
        "b64_json": "SlBH",
        "created_at": 1_763_000_000,
        "size": "128x64",
        "quality": "high",
        "background": "opaque",
        "output_format": "jpeg",
        "image_index": 1,
        "partial_image_index": 0,
    }


def test_a_completed_event_has_every_field_the_client_knows() -> None:
    (event,) = frames(completed_frame(job(), asked(), done(1), 1_763_000_000.9, b"PNG"))
    data = json.loads(event["data"])
    assert event["event"] == data["type"] == "image_generation.completed"
    assert (data["b64_json"], data["size"], data["image_index"], data["seed"]) == ("UE5H", "128x64", 1, 8)
    assert data["usage"]["total_tokens"] == 0


def test_the_events_of_an_edit_have_names_of_their_own() -> None:
    edit = validated(Edit, {"prompt": "an apple"})
    (partial,) = frames(partial_frame(edit, (128, 64), 0, 0, 0.0, b"JPG"))
    (completed,) = frames(completed_frame(job(), edit, done(), 0.0, b"PNG"))
    assert partial["event"] == json.loads(partial["data"])["type"] == "image_edit.partial_image"
    assert completed["event"] == json.loads(completed["data"])["type"] == "image_edit.completed"


def test_stream_error_event_has_the_form_that_makes_clients_raise() -> None:
    (event,) = frames(error_frame(GenerationFailed("No memory.", code="engine_oom")))
    assert list(event) == ["data"]
    shown = {"message": "No memory.", "type": "server_error", "param": None, "code": "engine_oom"}
    assert json.loads(event["data"]) == {"error": shown}


def test_stream_frames_never_carry_an_id() -> None:
    raw = partial_frame(asked(), (8, 8), 0, 0, 0.0, b"") + completed_frame(job(), asked(), done(), 0.0, b"")
    assert b"\nid:" not in raw
    assert not raw.startswith(b"id:")


@pytest.mark.parametrize(
    ("end", "code"),
    [
        (Succeeded(), None),
        (Failed(code="engine_oom", message="No memory."), "engine_oom"),
        (Cancelled(), "cancelled"),
        (Cancelled(reason="shutdown"), "cancelled"),
    ],
    ids=str,
)
def test_job_end_without_pictures_is_an_error_in_answer_and_stream_alike(end: Outcome, code: str | None) -> None:
    ended = job(done(0), end)
    for source in (ended, ended.events[-1]):
        failure = failure_of(source)
        assert (failure.code if failure else None) == code


async def test_previews_are_counted_for_each_picture_and_never_more_than_asked() -> None:
    """Also where a picture is drawn again because the engine died: its previews are not asked for twice."""
    jpeg = base64.b64encode(picture("JPEG")).decode()
    progress = Progress(job_id=ID, images=2)
    counts: Counter[int] = Counter()
    shown: list[tuple[int, int] | None] = []
    for image in (0, 1, 0, 0, 1):
        event = ProgressEvent(ID, progress, Preview(image=image, step=1, jpeg_base64=jpeg))
        frame = await to_frame(NO_REQUEST, job(), order(stream=True, partial_images=2), event, counts)
        data = json.loads(frames(frame)[0]["data"]) if frame else None
        shown.append((data["image_index"], data["partial_image_index"]) if data else None)
    assert shown == [(0, 0), (1, 0), (0, 1), None, (1, 1)]


async def test_stream_of_openai_sends_no_frame_for_progress_without_a_preview() -> None:
    step = StepDone(image=0, step=1, steps=4, seconds=1.0)
    event = ProgressEvent(ID, Progress(job_id=ID, images=2), step)
    assert await to_frame(NO_REQUEST, job(), order(), event, Counter()) is None


# ---- pictures --------------------------------------------------------------------------------------


def picture(picture_format: str, size: tuple[int, int] = (96, 64), **options: Any) -> bytes:
    out = io.BytesIO()
    Image.radial_gradient("L").resize(size).convert("RGB").save(out, picture_format, **options)
    return out.getvalue()


@pytest.mark.parametrize("picture_format", ["png", "jpeg", "webp"])
def test_a_stored_picture_is_given_in_the_format_asked_for(picture_format: ImageFormat) -> None:
    made = Image.open(io.BytesIO(from_png(picture("PNG"), picture_format)))
    assert (made.format, made.size) == (picture_format.upper(), (96, 64))
    assert not made.getexif()


def test_picture_as_png_is_the_stored_file_itself() -> None:
    png = picture("PNG")
    assert from_png(png, "png", 10) == png


@pytest.mark.parametrize("picture_format", ["jpeg", "webp"])
def test_output_compression_of_lower_quality_gives_a_smaller_file(picture_format: ImageFormat) -> None:
    sizes = [len(from_png(picture("PNG", (256, 256)), picture_format, quality)) for quality in (0, 50, 100)]
    assert sizes == sorted(set(sizes))


@pytest.mark.parametrize("picture_format", ["png", "jpeg", "webp"])
def test_a_preview_gets_the_size_and_format_of_its_picture(picture_format: ImageFormat) -> None:
    made = Image.open(io.BytesIO(from_preview(picture("JPEG"), (192, 128), picture_format)))
    assert (made.format, made.size) == (picture_format.upper(), (192, 128))


# ---- errors ----------------------------------------------------------------------------------------


def every_error(root: type[GatewayError] = GatewayError) -> Iterator[type[GatewayError]]:
    yield root
    for kind in root.__subclasses__():
        yield from every_error(kind)


EVERY_ERROR = [kind for kind in every_error() if kind.__module__ == "gateway.errors"]


@pytest.mark.parametrize("kind", EVERY_ERROR, ids=lambda kind: kind.__name__)
def test_error_form_is_readable_by_both_clients(kind: type[GatewayError]) -> None:
    response = ADAPTER.render_error(kind(param="size", retry_after_s=600))
    body = json.loads(bytes(response.body))
    assert set(body["error"]) >= {"message", "type", "param", "code"}
    assert body["detail"] == body["error"]["message"] != ""
    assert body["error"]["param"] == "size"
    assert response.status_code == kind.status
    assert response.headers["retry-after"] == "60"
    assert response.headers["x-request-id"]


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (400, "invalid_request_error"),
        (401, "authentication_error"),
        (403, "permission_error"),
        (404, "invalid_request_error"),
        (405, "invalid_request_error"),
        (409, "invalid_request_error"),
        (413, "invalid_request_error"),
        (415, "invalid_request_error"),
        (429, "rate_limit_error"),
        (499, "invalid_request_error"),
        (500, "server_error"),
        (503, "server_error"),
        (507, "server_error"),
    ],
)
def test_error_status_has_its_error_type(status: int, kind: str) -> None:
    found = {error.status: to_error(error())["type"] for error in EVERY_ERROR}
    assert found[status] == kind


@pytest.mark.parametrize("kind", EVERY_ERROR, ids=lambda kind: kind.__name__)
def test_response_tells_clients_not_to_retry_what_would_fail_again(kind: type[GatewayError]) -> None:
    told = render_error(kind()).headers.get("x-should-retry")
    assert told == ("false" if kind.status in (409, 500, 501, 507) else None)


def test_missing_field_has_the_error_message_of_openai() -> None:
    with pytest.raises(InvalidRequest) as caught:
        validated(Generation, {})
    shown = to_error(caught.value)
    assert shown["message"] == "Missing required parameter: 'prompt'."
    assert (shown["param"], shown["code"]) == ("prompt", "missing_required_parameter")


def test_unknown_model_error_lists_the_available_models() -> None:
    shown = to_error(ModelNotFound(param="model", details={"available_models": [f"m{i}" for i in range(99)]}))
    assert shown["code"] == "model_not_found"
    assert len(shown["available_models"]) == 99


def test_a_list_of_models_that_is_too_long_for_an_error_says_how_many_more_there_are() -> None:
    names = [f"model-{i}" for i in range(99)]
    answer = render_error(ModelNotFound(param="model", details={"available_models": names}))
    *told, more = json.loads(bytes(answer.body))["error"]["available_models"]
    assert told == names[: len(told)]
    assert len(told) > 50
    assert more == f"and {99 - len(told)} more"
    assert 960 < len(bytes(answer.body)) <= 1024


def test_job_answers_carry_the_job_id() -> None:
    assert render_error(ClientGone(), ID).headers["x-request-id"] == ID
    assert render_error(QueueFull()).headers["x-request-id"].startswith("req_")


@pytest.mark.parametrize(
    ("body", "effective"),
    [
        ({}, None),
        ({"user": "me"}, "me"),
        ({"user": "me", "safety_identifier": "hash"}, "hash"),
        ({"user": "me", "safety_identifier": ""}, "me"),
        ({"safety_identifier": 7}, None),
    ],
)
def test_the_last_event_repeats_the_effective_safety_identifier(body: dict[str, Any], effective: str | None) -> None:
    """Source: openai 3.52, `ImageGenCompletedEvent`."""
    (event,) = frames(completed_frame(job(), asked(**body), done(), 0.0, b"PNG"))
    assert json.loads(event["data"])["safety_identifier"] == effective
    answer = json.loads(to_response(job(), asked(**body), [ImageRow(done(), b"PNG", None)]))
    assert answer["safety_identifier"] == effective
