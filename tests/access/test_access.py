"""The guard's rules: hosts, origins, content types, answers. Driven as ASGI; sockets are test_http_guard's."""

from __future__ import annotations

import json

import pytest
from pydantic import ValidationError

from gateway.http.server import idle_s
from tests.support.access import METHODS, OPEN, a_guard, ask

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
    "gateway.docker.internal",
    "host.containers.internal:7861",
    "host.lima.internal",
    "host.orb.internal:80",
    "host.rancher-desktop.internal",
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
def test_foreign_host_header_is_refused_before_all_else(method: str, path: str) -> None:
    """S-02: every method, every route, with or without an Origin."""
    for host in BAD_HOSTS:
        for fields in ({}, {"origin": f"http://{host}"}, {"access_control_request_method": "GET", "origin": "null"}):
            answer = ask(OPEN, path, method, host=host, **fields)
            assert (answer.status, answer.code) == (400, "bad_host"), host
            assert "access-control-allow-origin" not in answer.headers
    assert ask(OPEN, path, method, host=None).code == "bad_host"
    assert ask(OPEN, path, method, raw=[(b"host", b"evil.example")]).code == "bad_host"


@pytest.mark.parametrize("host", GOOD_HOSTS)
def test_host_names_of_loopback_are_accepted(host: str) -> None:
    """S-02: the port does not matter."""
    assert ask(OPEN, host=host).status == 200


def test_host_names_in_the_settings_are_accepted() -> None:
    """S-02."""
    guard = a_guard(hosts=["Mac.local"], server={"public_url": "https://pictures.example/x"})
    assert ask(guard, host="mac.local:80").status == 200
    assert ask(guard, host="pictures.example").status == 200
    assert ask(guard, host="other.local").code == "bad_host"


def test_host_header_beyond_loopback_may_be_any_ip_address_but_no_name() -> None:
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
def test_foreign_origin_is_refused_and_never_repeated_in_an_answer(method: str, origin: str) -> None:
    """S-03, S-04."""
    answer = ask(OPEN, "/x", method, origin=origin, access_control_request_method="POST")
    assert (answer.status, answer.code) == (403, "bad_origin")
    assert "access-control-allow-origin" not in answer.headers


@pytest.mark.parametrize(
    "origin", ["http://localhost", "http://localhost:3000", "https://127.0.0.1:1", "http://[::1]:5173"]
)
def test_loopback_origin_is_allowed_with_cors_headers(origin: str) -> None:
    """S-03: named exactly, never with credentials."""
    answer = ask(OPEN, origin=origin, sec_fetch_site="cross-site")
    assert answer.status == 200
    assert answer.headers["access-control-allow-origin"] == origin
    assert answer.headers["vary"] == "Origin"
    assert "access-control-allow-credentials" not in answer.headers


def test_origins_in_the_settings_are_allowed_by_exact_match() -> None:
    """S-03."""
    guard = a_guard(origins=["https://ui.example"])
    assert ask(guard, origin="https://ui.example").headers["access-control-allow-origin"] == "https://ui.example"
    for other in ("http://ui.example", "https://ui.example:444", "https://ui.example.evil", "https://x.ui.example"):
        assert ask(guard, origin=other).status == 403


APP_ORIGINS = [
    "null",
    "file://",
    "app://obsidian.md",
    "tauri://localhost",
    "capacitor://localhost",
    "chrome-extension://abcdefghijklmnop",
    "moz-extension://7d4c1a2b-0000-4000-8000-000000000000",
    "vscode-webview://1k2j3",
]


@pytest.mark.parametrize("origin", APP_ORIGINS)
def test_origins_of_programs_and_local_files_are_allowed_when_configured(origin: str) -> None:
    """S-03."""
    guard = a_guard(origins=[origin])
    for fields in ({}, {"sec_fetch_site": "cross-site"}):
        answer = ask(guard, origin=origin, **fields)
        assert (answer.status, answer.headers["access-control-allow-origin"]) == (200, origin)
    for other in (set(APP_ORIGINS) | {"app://other", "https://evil.example"}) - {origin}:
        assert ask(guard, origin=other).code == "bad_origin"


@pytest.mark.parametrize(
    "origin", ["https://", "https://a/b", "app://a/b", "app://user@a", "//a", "app:a", "a b://c", ""]
)
def test_invalid_origin_in_the_settings_stops_the_start(origin: str) -> None:
    with pytest.raises(ValidationError):
        a_guard(origins=[origin])


def test_a_refused_origin_is_logged_once_with_its_setting(caplog: pytest.LogCaptureFixture) -> None:
    guard = a_guard()
    for _ in range(3):
        assert ask(guard, origin="null").code == "bad_origin"
        assert ask(guard, origin="https://secret.example").code == "bad_origin"
    for number in range(100):
        assert ask(guard, origin=f"app{number}://x").status == 403
    told = [record.getMessage() for record in caplog.records if "access.origins" in record.getMessage()]
    assert told[:2] == [
        "requests from the origin null are refused; access.origins would let it in",
        "requests from a page of the web are refused; access.origins would let it in",
    ]
    assert len(told) == 20


def test_keep_alive_header_is_shorter_than_the_idle_connection_timeout() -> None:
    assert ask(OPEN).headers["keep-alive"] == "timeout=75"
    assert idle_s(75) == 80


def test_cors_wildcard_origin_is_sent_only_when_configured() -> None:
    """S-03."""
    guard = a_guard(origins=["*"])
    for origin in ("https://evil.example", "null"):
        answer = ask(guard, origin=origin, sec_fetch_site="cross-site")
        assert answer.headers["access-control-allow-origin"] == "*"
    assert ask(guard, sec_fetch_site="cross-site").status == 200


def test_page_of_our_own_origin_may_call_under_its_own_host_name() -> None:
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
def test_content_types_a_page_can_send_without_preflight_are_refused(kind: str, method: str) -> None:
    """S-05: JSON as text/plain is the classic."""
    assert ask(OPEN, method=method, body=b"{}", content_type=kind).status == 415


def test_a_missing_content_type_is_json_for_programs_and_not_for_pages() -> None:
    """S-05, DECISIONS 20: Dify sends none."""
    assert ask(OPEN, method="POST", body=b"{}").status == 200
    assert ask(OPEN, method="POST", body=b"{}", origin="http://localhost:3000").status == 415
    assert ask(OPEN, method="POST", body=b"{}", sec_fetch_site="same-origin").status == 415


def test_body_that_is_empty_needs_no_content_type() -> None:
    assert ask(OPEN, "/interrupt", "POST", content_type="text/plain").status == 200
    assert ask(OPEN, "/interrupt", "POST", content_type="text/plain", content_length="0").status == 200


@pytest.mark.parametrize("encoding", ["gzip", "deflate", "br", "identity, gzip"])
def test_compressed_request_bodies_are_refused(encoding: str) -> None:
    """S-11."""
    fields = {"content_type": "application/json", "content_encoding": encoding}
    assert ask(OPEN, method="POST", body=b"{}", **fields).status == 415
    assert ask(OPEN, method="GET", body=b"{}", **fields).status == 415


# ---- answers -------------------------------------------------------------------------------------


def test_every_answer_carries_the_security_headers() -> None:
    """S-15: refusals and errors, too."""
    for answer in (ask(OPEN), ask(OPEN, host="evil"), ask(OPEN, origin="null"), ask(OPEN, "/boom")):
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert "frame-ancestors 'none'" in answer.headers["content-security-policy"]
        assert answer.headers["referrer-policy"] == "no-referrer"
        assert answer.headers["cross-origin-resource-policy"] == "same-origin"
        assert answer.headers["cross-origin-opener-policy"] == "same-origin"


def test_response_header_set_by_the_app_is_kept() -> None:
    answer = ask(OPEN, "/own")
    assert [v for n, v in answer.fields if n.lower() == "content-security-policy"] == ["mine"]
    assert [v for n, v in answer.fields if n == "vary"] == ["Accept", "Origin"]


def test_unexpected_error_shows_only_an_id_and_no_details() -> None:
    """S-13."""
    answer = ask(OPEN, "/boom")
    assert answer.status == 500
    assert "CANARY" not in answer.text
    assert len(answer.text) < 4096
    assert ask(OPEN, "/known").text == json.dumps({"error": "A known one.", "code": "internal_error"})
