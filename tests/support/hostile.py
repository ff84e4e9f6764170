"""Hostile texts for every field of every route: where they can stand is read from /openapi.json."""

from __future__ import annotations

import base64
import random
import string
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote

import httpx

from tests.support.sdapi import an_image

SIZE = 1_000_000
"""Characters of a hostile text in a body."""
URL_SIZE = 2000
"""Before it is quoted, which makes three of one."""
MARKER = "".join(random.Random(7).choices(string.ascii_letters + string.digits, k=97))
REPEATS = (
    *("<a:", "<lora:", "<", " [", ' ["', "[", "{", '": "', ':"', '"', "\\", ",", ":", "a: b, ", "\n", "\r\n"),
    *(" ", "1_", "1", ".lora_A", "%", "%_", ";charset", "=", "((", "é", "\U0001f600", "a=", "&ticket=", "\t", MARKER),
)
PICTURE = base64.b64encode(an_image()).decode()
PICTURES = ("image", "images", "init_images", "mask", "mask_image", "init_image", "data")
SMALL = {"width": 64, "height": 64, "steps": 1, "n": 1, "size": "64x64", "init_images": PICTURE, "image": PICTURE}
SMALL |= {"model": "flux2-tiny", "model_name": "flux2-tiny"}
HEADERS = (
    *("Idempotency-Key", "X-Client-Id", "Accept", "Accept-Encoding", "Range", "If-None-Match", "If-Modified-Since"),
    *("Last-Event-ID", "Cookie", "If-Range", "X-Forwarded-Host", "X-Forwarded-Proto", "Content-Type"),
)
HEEDING = ("/v1/images/content/{name}", "/metrics", "/api/v1/events", "/sdapi/v1/options", "/docs", "/api/v1/images")
"""Routes of GET that look at headers, and some that do not."""
Schema = Mapping[str, Any]


def hostile(unit: str, size: int = SIZE) -> str:
    return (unit * (size // len(unit) + 1))[:size]


@dataclass(frozen=True, slots=True)
class Case:
    """One place of one route; `sent` makes the request's arguments of a hostile text."""

    method: str
    path: str
    where: str
    sent: Callable[[str], dict[str, Any]]
    size: int = SIZE

    def __str__(self) -> str:
        return f"{self.method} {self.path} {self.where}"


def cases(document: Schema) -> Iterator[Case]:
    """Every text that a request can hold: in its path, query, headers, JSON and form, keys and file names included."""
    for path, operations in document["paths"].items():
        for method, operation in operations.items():
            yield from _of(document, method.upper(), path, operation)


def _of(document: Schema, method: str, path: str, operation: Schema) -> Iterator[Case]:
    parameters = operation.get("parameters", ())
    plain = path
    for parameter in parameters:
        if parameter["in"] == "path":
            plain = plain.replace(f"{{{parameter['name']}}}", "0" if "index" in parameter["name"] else "x")

    def url(text: str, name: str) -> dict[str, Any]:
        return {"url": _filled(path, name, quote(text, safe=""))}

    for parameter in parameters:
        name = parameter["name"]
        if parameter["in"] == "path" and parameter["schema"]["type"] == "string":
            yield Case(method, path, f"path {name}", lambda text, name=name: url(text, name), URL_SIZE)
        if parameter["in"] == "query":
            sent = lambda text, name=name: {"url": f"{plain}?{name}={quote(text, safe='')}"}  # noqa: E731
            yield Case(method, path, f"query {name}", sent, URL_SIZE)
    yield Case(method, path, "query string", lambda text: {"url": f"{plain}?{quote(text, safe='=&%')}"}, URL_SIZE)
    for header in HEADERS if method == "GET" and path in HEEDING else ("Idempotency-Key", "Content-Type"):
        value = lambda text, header=header: {"url": plain, "headers": {header: _header(text)}}  # noqa: E731
        yield Case(method, path, f"header {header}", value, 7000)
    content = operation.get("requestBody", {}).get("content", {})
    if (body := content.get("application/json")) is not None:
        yield from _json_cases(document, method, path, plain, body["schema"])
    if (form := content.get("multipart/form-data")) is not None:
        yield from _form_cases(document, method, path, plain, form["schema"])


def _json_cases(document: Schema, method: str, path: str, plain: str, schema: Schema) -> Iterator[Case]:
    whole = sample(document, schema)
    for place, put in places(document, schema, whole):
        yield Case(method, path, place, lambda text, put=put: {"url": plain, "json": put(text)})
    yield Case(method, path, "a key", lambda text: {"url": plain, "json": {**whole, text: 1}})
    yield Case(method, path, "the whole body", lambda text: {"url": plain, "content": text, "headers": JSON})


def _form_cases(document: Schema, method: str, path: str, plain: str, schema: Schema) -> Iterator[Case]:
    picture = ("a.png", an_image(), "image/png")
    for name in resolved(document, schema).get("properties", {}):
        yield Case(
            method,
            path,
            f"form {name}",
            lambda text, name=name: {"url": plain, "files": {"image": picture}, "data": {"prompt": "x", name: text}},
        )
    yield Case(method, path, "form name", lambda text: {"url": plain, "files": {"image": picture, text: (None, "x")}})
    yield Case(
        method, path, "file name", lambda text: {"url": plain, "files": {"image": (text, an_image(), "image/png")}}
    )
    yield Case(
        method, path, "file", lambda text: {"url": plain, "files": {"image": ("a.png", text.encode(), "image/png")}}
    )


JSON = {"Content-Type": "application/json"}


def _filled(path: str, name: str, text: str) -> str:
    for part in set(path.split("{")[1:]):
        other = part.partition("}")[0]
        path = path.replace(f"{{{other}}}", text if other == name else "0" if "index" in other else "x")
    return path


def _header(text: str) -> str:
    return text.encode("ascii", "replace").decode().replace("\n", " ").replace("\r", " ").strip() or "x"


def resolved(document: Schema, schema: Schema) -> Schema:
    while "$ref" in schema:
        schema = document["components"]["schemas"][schema["$ref"].rpartition("/")[2]]
    return schema


def _choices(document: Schema, schema: Schema) -> Iterator[Schema]:
    schema = resolved(document, schema)
    for choice in schema.get("anyOf", (schema,)):
        yield resolved(document, choice)


def sample(document: Schema, schema: Schema, name: str = "") -> Any:
    """A small value that the schema lets in."""
    schema = next(iter(_choices(document, schema)))
    match schema.get("type"):
        case "object":
            names = {*schema.get("required", ()), *(SMALL.keys() & schema.get("properties", {}).keys())}
            return {key: sample(document, schema["properties"][key], key) for key in sorted(names)}
        case "array":
            return [sample(document, schema.get("items", {}), name)]
        case "integer" | "number":
            return SMALL.get(name, schema.get("minimum", 1))
        case "boolean":
            return False
        case _:
            return PICTURE if name in PICTURES else SMALL.get(name, schema.get("enum", ["x"])[0])


def places(
    document: Schema, schema: Schema, whole: Any, name: str = "", depth: int = 0
) -> Iterator[tuple[str, Callable[[str], Any]]]:
    """Where a text can stand at and below a value, and what makes the whole value with it; `whole` is one without."""
    for choice in _choices(document, schema):
        kind = choice.get("type")
        if kind == "string" or (kind is None and "enum" not in choice):
            yield name, lambda text: text
        if kind in ("object", None) and depth < 5:
            properties = choice.get("properties", {})
            for key, inner in properties.items():
                for place, put in places(document, inner, sample(document, inner, key), key, depth + 1):
                    here = whole if isinstance(whole, dict) else {}
                    yield (
                        f"{name}.{place}".strip("."),
                        lambda text, key=key, put=put, here=here: {**here, key: put(text)},
                    )
            if not properties:
                yield from _of_any(name)
        if kind == "array":
            items = choice.get("items", {})
            for place, put in places(document, items, sample(document, items, name), name, depth + 1):
                yield f"{place}[]", lambda text, put=put: [put(text)]


def _of_any(name: str) -> Iterator[tuple[str, Callable[[str], Any]]]:
    """An object of whatever."""
    yield f"{name}.x", lambda text: {"x": text}
    yield f"{name} key", lambda text: {text: "x"}
    yield f"{name}.x.y[]", lambda text: {"sd_vae": {"y": [text]}}
    if name == "override_settings":
        yield f"{name}.sd_model_checkpoint", lambda text: {"sd_model_checkpoint": text}
    if name != "alwayson_scripts":
        return
    for key in ("model", "module", "image", "resize_mode", "control_mode", "mask"):
        unit = lambda text, key=key: {"controlnet": {"args": [{"image": PICTURE, "module": "canny", key: text}]}}  # noqa: E731
        yield f"{name}.controlnet.{key}", unit
    yield f"{name}.controlnet.image.image", lambda text: {"ControlNet": {"args": [{"image": {"image": text}}]}}


def repeated(answer: Any, unit: str) -> bool:
    """Whether any text of an answer holds more than 64 characters of what was sent."""
    if isinstance(answer, str):
        runs = {hostile(unit[at:] + unit[:at], 65) for at in range(len(unit))}
        return any(run in answer for run in runs)
    if isinstance(answer, dict):
        return any(repeated(item, unit) for pair in answer.items() for item in pair)
    return isinstance(answer, list) and any(repeated(item, unit) for item in answer)


def read(answer: httpx.Response) -> Any:
    try:
        return answer.json()
    except ValueError:
        return answer.text


@dataclass
class Probe:
    """What /health/live took, seconds."""

    url: str
    every_s: float = 0.005
    slowest_s: float = 0.0
    taken_s: list[float] = field(default_factory=list)

    @contextmanager
    def running(self) -> Iterator[Probe]:
        stop = threading.Event()

        def ask() -> None:
            with httpx.Client(base_url=self.url, timeout=60, verify=False) as client:
                while not stop.wait(self.every_s):
                    began = time.perf_counter()
                    assert client.get("/health/live").status_code == 200
                    self.taken_s.append(time.perf_counter() - began)
                    self.slowest_s = max(self.slowest_s, self.taken_s[-1])

        thread = threading.Thread(target=ask)
        thread.start()
        try:
            yield self
        finally:
            stop.set()
            thread.join()


def asked(client: httpx.Client, case: Case, unit: str, size: int = SIZE) -> tuple[httpx.Response | None, float]:
    """The answer, of a stream only its head, and the seconds it took; None where the client itself refuses to ask."""
    try:
        arguments = case.sent(hostile(unit, min(size, case.size)))
        request = client.build_request(case.method, **arguments)
    except (httpx.InvalidURL, UnicodeEncodeError, ValueError):
        return None, 0.0
    began = time.perf_counter()
    answer = client.send(request, stream=True)
    if not answer.headers.get("content-type", "").startswith("text/event-stream"):
        answer.read()
    answer.close()
    return answer, time.perf_counter() - began
