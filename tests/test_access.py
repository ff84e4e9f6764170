"""The guard's rules: hosts, origins, keys, content types. Driven as ASGI; sockets are test_http_guard's."""

from __future__ import annotations

import asyncio
import base64
import json
import statistics
import time
from pathlib import Path
from typing import Any

import pytest

from gateway.access import Guard, Keys
from gateway.access.keys import Guesses
from gateway.errors import GatewayError
from gateway.settings import AccessSettings, ServerSettings, Settings, SettingsError

Headers = dict[str, str]


class Answer:
    """What came back of one request."""

    def __init__(self, messages: list[Any]) -> None:
        self.status: int = messages[0]["status"]
        self.fields: list[tuple[str, str]] = [(n.decode(), v.decode()) for n, v in messages[0]["headers"]]
        self.headers = dict(self.fields)
        self.text = b"".join(m.get("body", b"") for m in messages[1:]).decode()

    @property
    def code(self) -> str:
        return str(json.loads(self.text)["code"])


def a_guard(*, server: Headers | None = None, **access: Any) -> Guard:
    settings = Settings(
        server=ServerSettings.model_validate(server or {}), access=AccessSettings.model_validate(access)
    )

    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["path"] == "/boom":
            raise RuntimeError("CANARY")
        if scope["path"] == "/known":
            raise GatewayError("A known one.")
        body = (await receive()).get("body", b"")
        headers = [(b"vary", b"Accept"), (b"Content-Security-Policy", b"mine")] if scope["path"] == "/own" else []
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": f"{scope['state']['owner']} {len(body)}".encode()})

    return Guard(
        app,
        settings,
        is_picture_path=lambda path: path.startswith("/pictures/"),
        is_open_path=lambda path: path == "/open",
    )


def ask(
    guard: Guard,
    path: str = "/x",
    method: str = "GET",
    *,
    host: str | None = "localhost:7861",
    body: bytes = b"",
    client: str = "127.0.0.1",
    raw: list[tuple[bytes, bytes]] | None = None,
    **fields: str,
) -> Answer:
    headers = [] if host is None else [(b"host", host.encode())]
    headers += [(name.replace("_", "-").encode(), value.encode()) for name, value in fields.items()] + (raw or [])
    if body:
        headers.append((b"content-length", str(len(body)).encode()))
    scope = {"type": "http", "method": method, "path": path, "headers": headers, "client": (client, 1), "state": {}}
    sent: list[Any] = []

    async def receive() -> Any:
        return {"type": "http.request", "body": body, "more_body": False}

    async def send(message: Any) -> None:
        sent.append(message)

    asyncio.run(guard(scope, receive, send))
    return Answer(sent)


OPEN = a_guard()
METHODS = ("GET", "HEAD", "POST", "OPTIONS", "DELETE")

# ---- hosts ---------------------------------------------------------------------------------------

GOOD_HOSTS = [
    "localhost",
    "LOCALHOST:80",
    "127.0.0.1",
    "127.0.0.1:7861",
    "127.8.9.1",
    "[::1]",
    "[::1]:7861",
    "host.docker.internal:7861",
]
BAD_HOSTS = [
    "evil.example",
    "127.0.0.1.evil.example",
    "localhost.evil.example",
    "localhost@evil.example",
    "evil.example#localhost",
    "localhost evil.example",
    "localhost,evil.example",
    "localhost:80:80",
    "localhost:port",
    "localhost.",
    "[::1].evil.example",
    "[::1",
    "::1",
    "192.168.1.5",
    "0.0.0.0",
    "2130706433",
    "",
    "lоcalhost",
]


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("path", ["/x", "/open", "/pictures/1", "/"])
def test_a_foreign_host_is_refused_before_all_else(method: str, path: str) -> None:
    """S-02: every method, every route, with or without an Origin."""
    for host in BAD_HOSTS:
        for fields in ({}, {"origin": f"http://{host}"}, {"access_control_request_method": "GET", "origin": "null"}):
            answer = ask(OPEN, path, method, host=host, **fields)
            assert (answer.status, answer.code) == (400, "bad_host"), host
            assert "access-control-allow-origin" not in answer.headers
    assert ask(OPEN, path, method, host=None).code == "bad_host"
    assert ask(OPEN, path, method, raw=[(b"host", b"evil.example")]).code == "bad_host"


@pytest.mark.parametrize("host", GOOD_HOSTS)
def test_loopback_names_are_good_hosts(host: str) -> None:
    """S-02: the port does not matter."""
    assert ask(OPEN, host=host).status == 200


def test_configured_names_are_good_hosts() -> None:
    """S-02."""
    guard = a_guard(hosts=["Mac.local"], server={"public_url": "https://pictures.example/x"})
    assert ask(guard, host="mac.local:80").status == 200
    assert ask(guard, host="pictures.example").status == 200
    assert ask(guard, host="other.local").code == "bad_host"


def test_beyond_loopback_any_address_is_good_but_no_name() -> None:
    """S-02: rebinding needs a name."""
    guard = a_guard(allow_open=True, server={"host": "0.0.0.0"})
    assert ask(guard, host="192.168.1.5:7861").status == 200
    assert ask(guard, host="[fe80::1]").status == 200
    assert ask(guard, host="evil.example").code == "bad_host"


# ---- origins -------------------------------------------------------------------------------------

BAD_ORIGINS = [
    "https://evil.example",
    "http://localhost.evil.example",
    "http://localhost:80.evil.example",
    "http://127.0.0.1.evil.example",
    "http://localhost@evil.example",
    "http://evil.example/localhost",
    "http://localhost/",
    "http://192.168.1.5",
    "file://",
    "null",
    "",
    "chrome-extension://abc",
    "localhost",
]


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("origin", BAD_ORIGINS)
def test_a_foreign_origin_is_refused_and_never_named_in_an_answer(method: str, origin: str) -> None:
    """S-03, S-04."""
    answer = ask(OPEN, "/x", method, origin=origin, access_control_request_method="POST")
    assert (answer.status, answer.code) == (403, "bad_origin")
    assert "access-control-allow-origin" not in answer.headers


@pytest.mark.parametrize(
    "origin", ["http://localhost", "http://localhost:3000", "https://127.0.0.1:1", "http://[::1]:5173"]
)
def test_a_loopback_origin_may_call_and_is_told_so(origin: str) -> None:
    """S-03: named exactly, never with credentials."""
    answer = ask(OPEN, origin=origin, sec_fetch_site="cross-site")
    assert answer.status == 200
    assert answer.headers["access-control-allow-origin"] == origin
    assert answer.headers["vary"] == "Origin"
    assert "access-control-allow-credentials" not in answer.headers


def test_origins_in_the_settings_may_call_exactly() -> None:
    """S-03."""
    guard = a_guard(origins=["https://ui.example"])
    assert ask(guard, origin="https://ui.example").headers["access-control-allow-origin"] == "https://ui.example"
    for other in ("http://ui.example", "https://ui.example:444", "https://ui.example.evil", "https://x.ui.example"):
        assert ask(guard, origin=other).status == 403


def test_a_star_is_sent_only_when_it_is_written() -> None:
    """S-03."""
    guard = a_guard(origins=["*"])
    for origin in ("https://evil.example", "null"):
        answer = ask(guard, origin=origin, sec_fetch_site="cross-site")
        assert answer.headers["access-control-allow-origin"] == "*"
    assert ask(guard, sec_fetch_site="cross-site").status == 200


def test_a_page_of_our_own_may_call_under_its_own_name() -> None:
    guard = a_guard(hosts=["mac.local"])
    assert ask(guard, host="mac.local:7861", origin="http://mac.local:7861").status == 200
    assert ask(guard, host="mac.local:7861", origin="http://mac.local:8000").status == 403


def test_requests_from_other_sites_are_refused_even_without_an_origin() -> None:
    """S-04: an <img> or a form of a page elsewhere; mflux-server's GETs change state."""
    for method in ("GET", "POST", "HEAD"):
        assert ask(OPEN, "/api/clear", method, sec_fetch_site="cross-site").code == "cross_site"
    fields = {"sec_fetch_site": "cross-site", "sec_fetch_mode": "navigate", "sec_fetch_dest": "document"}
    assert ask(OPEN, "/api/clear", **fields).code == "cross_site"
    assert ask(OPEN, "/", **fields).status == 200
    assert ask(OPEN, "/", "POST", **fields).code == "cross_site"
    for site in ("same-origin", "same-site", "none"):
        assert ask(OPEN, sec_fetch_site=site).status == 200


def test_picture_urls_may_be_shown_by_any_site_but_only_read() -> None:
    """DECISIONS 19."""
    answer = ask(OPEN, "/pictures/1", sec_fetch_site="cross-site", origin="https://evil.example")
    assert answer.status == 200
    assert answer.headers["cross-origin-resource-policy"] == "cross-origin"
    assert "access-control-allow-origin" not in answer.headers
    assert ask(OPEN, "/pictures/1", "DELETE", origin="https://evil.example").status == 403


def test_a_preflight_is_answered_for_what_clients_send() -> None:
    """S-03: the openai package in a browser asks for x-stainless headers."""
    answer = ask(
        a_guard(keys_file=None),
        "/v1/images/generations",
        "OPTIONS",
        origin="http://localhost:3000",
        access_control_request_method="POST",
        access_control_request_headers="authorization, content-type, x-stainless-os, x-evil, x-stainless-\r\nx: y",
        access_control_request_private_network="true",
    )
    assert answer.status == 204
    assert answer.text == ""
    allowed = answer.headers["access-control-allow-headers"].split(", ")
    assert {"authorization", "content-type", "x-stainless-os", "idempotency-key", "last-event-id"} <= set(allowed)
    assert "x-evil" not in allowed
    assert "POST" in answer.headers["access-control-allow-methods"]
    assert answer.headers["access-control-allow-private-network"] == "true"


def test_options_without_an_origin_goes_to_the_app() -> None:
    assert ask(OPEN, method="OPTIONS").status == 200


# ---- content types -------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["application/json", "Application/JSON; charset=utf-8", "application/x+json"])
def test_json_and_multipart_are_taken(kind: str) -> None:
    """S-05."""
    assert ask(OPEN, method="POST", body=b"{}", content_type=kind).status == 200
    assert ask(OPEN, method="POST", body=b"--x", content_type="multipart/form-data; boundary=x").status == 200


@pytest.mark.parametrize(
    "kind", ["text/plain", "text/plain;application/json", "application/x-www-form-urlencoded", "x"]
)
@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE"])
def test_what_a_page_can_send_without_preflight_is_not_taken(kind: str, method: str) -> None:
    """S-05: JSON as text/plain is the classic."""
    assert ask(OPEN, method=method, body=b"{}", content_type=kind).status == 415


def test_a_missing_content_type_is_json_for_programs_and_not_for_pages() -> None:
    """S-05, DECISIONS 20: Dify sends none."""
    assert ask(OPEN, method="POST", body=b"{}").status == 200
    assert ask(OPEN, method="POST", body=b"{}", origin="http://localhost:3000").status == 415
    assert ask(OPEN, method="POST", body=b"{}", sec_fetch_site="same-origin").status == 415


def test_an_empty_body_has_no_type() -> None:
    assert ask(OPEN, "/interrupt", "POST", content_type="text/plain").status == 200
    assert ask(OPEN, "/interrupt", "POST", content_type="text/plain", content_length="0").status == 200


@pytest.mark.parametrize("encoding", ["gzip", "deflate", "br", "identity, gzip"])
def test_compressed_bodies_are_not_taken(encoding: str) -> None:
    """S-11."""
    fields = {"content_type": "application/json", "content_encoding": encoding}
    assert ask(OPEN, method="POST", body=b"{}", **fields).status == 415
    assert ask(OPEN, method="GET", body=b"{}", **fields).status == 415


# ---- keys and owners -----------------------------------------------------------------------------

KEY = "k" * 15 + "1"
OTHER = "k" * 15 + "2"


@pytest.fixture
def keys_file(tmp_path: Path) -> Path:
    file = tmp_path / "keys"
    file.write_text(f"# who may\n\nalice {KEY}\n  bob\t{OTHER}\n")
    file.chmod(0o600)
    return file


def basic(user: str, password: str) -> str:
    return "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()


def test_a_key_opens_in_all_three_ways_and_names_the_owner(keys_file: Path) -> None:
    """S-07."""
    guard = a_guard(keys_file=keys_file)
    for fields in (
        {"authorization": f"Bearer {KEY}"},
        {"authorization": f"bearer  {KEY} "},
        {"authorization": basic("anybody", KEY)},
        {"x_api_key": KEY},
        {"authorization": "Basic ", "x_api_key": KEY},
    ):
        assert ask(guard, x_client_id="mallory", **fields).text == "key:alice 0"
    assert ask(guard, authorization=f"Bearer {OTHER}").text == "key:bob 0"


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"authorization": ""},
        {"authorization": "Basic "},
        {"authorization": "Bearer"},
        {"authorization": "Bearer wrong"},
        {"authorization": f"Bearer {KEY}x"},
        {"authorization": f"Digest {KEY}"},
        {"authorization": "Basic !!!"},
        {"authorization": basic(KEY, "")},
        {"x_api_key": "ü"},
    ],
)
def test_without_a_right_key_it_is_401_and_says_how(keys_file: Path, fields: Headers) -> None:
    """S-07: and the body is not looked at."""
    answer = ask(a_guard(keys_file=keys_file), method="POST", body=b"x", content_type="text/plain", **fields)
    assert answer.status == 401
    schemes = [value.split()[0] for name, value in answer.fields if name == "www-authenticate"]
    assert schemes == ["Bearer", "Basic"]


def test_a_script_of_a_page_is_not_asked_for_a_password_by_the_browser(keys_file: Path) -> None:
    answer = ask(a_guard(keys_file=keys_file), sec_fetch_mode="cors", sec_fetch_site="same-origin")
    assert [value.split()[0] for name, value in answer.fields if name == "www-authenticate"] == ["Bearer"]


@pytest.mark.parametrize("value", ["", "Basic ", "Bearer sk-anything", basic("a", "b"), "nonsense"])
def test_without_keys_no_credential_matters(value: str) -> None:
    """S-07: AUTOMATIC1111's clients send an empty Basic, OpenAI's any key."""
    assert ask(OPEN, authorization=value).status == 200


def test_open_paths_need_no_key_and_preflights_neither(keys_file: Path) -> None:
    """S-43."""
    guard = a_guard(keys_file=keys_file)
    assert ask(guard, "/open").text == "peer:127.0.0.1 0"
    assert ask(guard, "/open", authorization=f"Bearer {KEY}").text == "key:alice 0"
    fields = {"origin": "http://localhost", "access_control_request_method": "POST"}
    assert ask(guard, method="OPTIONS", **fields).status == 204


def test_an_owner_without_key_is_the_client_id_or_the_address() -> None:
    """DECISIONS 15."""
    assert ask(OPEN, client="10.0.0.9").text == "peer:10.0.0.9 0"
    assert ask(OPEN, x_client_id="tab-7").text == "client:tab-7 0"
    for bad in ("a b", "x" * 65, "ä", "a/b", ""):
        assert ask(OPEN, x_client_id=bad).text == "peer:127.0.0.1 0"


def test_ten_wrong_keys_a_minute_are_enough(keys_file: Path) -> None:
    """S-09: then 429, for that address only; asking without any key is no guess."""
    guard = a_guard(keys_file=keys_file)
    for _ in range(30):
        assert ask(guard).status == 401
    for _ in range(10):
        assert ask(guard, x_api_key="wrong").status == 401
    answer = ask(guard, x_api_key=KEY)
    assert answer.status == 429
    assert 1 <= int(answer.headers["retry-after"]) <= 60
    assert ask(guard, x_api_key=KEY, client="10.0.0.9").status == 200
    assert ask(guard, "/open", x_api_key=KEY).status == 200


def test_an_address_may_guess_again_after_a_minute() -> None:
    """S-09."""
    now = 0.0
    guesses = Guesses(clock=lambda: now)
    for _ in range(10):
        guesses.wrong("a")
        now += 1.0
    assert guesses.wait_s("a") == 50
    now = 60.5
    assert guesses.wait_s("a") == 0
    for n in range(10_000):
        guesses.wrong(str(n))
    assert len(guesses._times) == 4096


def test_the_time_a_wrong_key_takes_tells_nothing() -> None:
    """S-07: wrong in the first byte or in the last."""
    keys = Keys.of({"a": "x" * 32, "b": "y" * 32})
    first, last = "z" + "x" * 31, "x" * 31 + "z"
    times: dict[str, list[int]] = {first: [], last: []}
    for _ in range(3000):
        for key, spent in times.items():
            began = time.perf_counter_ns()
            keys.name_of(key)
            spent.append(time.perf_counter_ns() - began)
    a, b = (statistics.median(spent) for spent in times.values())
    assert abs(a - b) < 0.25 * max(a, b)


@pytest.mark.parametrize(
    ("text", "mode", "why"),
    [
        (f"alice {KEY}\n", 0o644, "chmod 600"),
        (f"alice {KEY}\n", 0o620, "chmod 600"),
        ("", 0o600, "no key"),
        ("alice\n", 0o600, "line 1"),
        (f"\nal/ice {KEY}\n", 0o600, "line 2"),
        ("alice short\n", 0o600, "16 characters"),
        (f"alice {KEY}\nalice {OTHER}\n", 0o600, "twice"),
        (f"alice {KEY} admin\n", 0o600, "line 1"),
    ],
)
def test_a_keys_file_that_cannot_be_trusted_stops_the_start(tmp_path: Path, text: str, mode: int, why: str) -> None:
    """S-07: one line, without the key in it."""
    file = tmp_path / "keys"
    file.write_text(text)
    file.chmod(mode)
    with pytest.raises(SettingsError, match=why) as refused:
        a_guard(keys_file=file)
    assert KEY not in str(refused.value)
    with pytest.raises(SettingsError, match="cannot be read"):
        a_guard(keys_file=tmp_path / "nowhere")


def test_no_repr_shows_a_key(keys_file: Path) -> None:
    """S-41."""
    shown = repr(Keys.load(keys_file)) + repr(a_guard(keys_file=keys_file))
    assert "alice" in shown
    assert KEY not in shown


# ---- answers -------------------------------------------------------------------------------------


def test_every_answer_carries_the_security_headers() -> None:
    """S-15: refusals and errors, too."""
    for answer in (ask(OPEN), ask(OPEN, host="evil"), ask(OPEN, origin="null"), ask(OPEN, "/boom")):
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert "frame-ancestors 'none'" in answer.headers["content-security-policy"]
        assert answer.headers["referrer-policy"] == "no-referrer"
        assert answer.headers["cross-origin-resource-policy"] == "same-origin"
        assert answer.headers["cross-origin-opener-policy"] == "same-origin"


def test_a_header_the_app_sets_itself_stays() -> None:
    answer = ask(OPEN, "/own")
    assert [v for n, v in answer.fields if n.lower() == "content-security-policy"] == ["mine"]
    assert [v for n, v in answer.fields if n == "vary"] == ["Accept", "Origin"]


def test_an_unexpected_error_is_an_id_and_nothing_of_itself() -> None:
    """S-13."""
    answer = ask(OPEN, "/boom")
    assert answer.status == 500
    assert "CANARY" not in answer.text
    assert len(answer.text) < 4096
    assert ask(OPEN, "/known").text == json.dumps({"error": "A known one.", "code": "internal_error"})
