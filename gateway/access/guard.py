"""Guard: who may call, from where, with how large a body. Knows headers and paths as text, no route and no protocol.

Pure ASGI, outermost in the stack. In this order, for every method: URL, Host (S-02), Origin and Sec-Fetch-Site (S-03,
S-04, S-06), preflight, key or ticket (S-07 to S-09), content type (S-05), then the body while it arrives (S-11).
"""

from __future__ import annotations

import asyncio
import json
import logging
import secrets
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol
from urllib.parse import parse_qs

from gateway.access.addresses import counted_as
from gateway.access.body import BodyBounds, GuardedBody
from gateway.access.keys import Keys, client_id, credential
from gateway.access.memory import BodyMemory, Lease
from gateway.access.origins import HostRule, OriginRule, askable, host_name
from gateway.access.pages import is_from_elsewhere
from gateway.access.tickets import TicketOffice, Tickets
from gateway.asgi import App, Message, Receive, Scope, Send
from gateway.errors import (
    Forbidden,
    GatewayError,
    InternalError,
    InvalidRequest,
    MethodNotAllowed,
    TooManyGuesses,
    Unauthorized,
    UnsupportedMediaType,
    WrongKey,
    clip,
)
from gateway.settings import Settings, is_loopback

Headers = list[tuple[bytes, bytes]]


class Rendered(Protocol):
    """An error as a complete response, such as a Starlette response."""

    @property
    def status_code(self) -> int: ...

    @property
    def body(self) -> bytes | memoryview: ...

    @property
    def raw_headers(self) -> Headers: ...


Render = Callable[[str, GatewayError], Rendered]

ORIGINS_LOGGED = 20
COOKIE_BYTES = 16 * 1024
METHODS = b"GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS"
WITH_BODY = frozenset({"POST", "PUT", "PATCH", "DELETE"})

CONTENT_SECURITY_POLICY = (
    b"default-src 'none'; img-src 'self' blob: data:; script-src 'self'; style-src 'self'; connect-src 'self'; "
    b"frame-ancestors 'none'; base-uri 'none'; form-action 'none'"
)
SECURITY_HEADERS: tuple[tuple[bytes, bytes], ...] = (
    (b"x-content-type-options", b"nosniff"),
    (b"content-security-policy", CONTENT_SECURITY_POLICY),
    (b"referrer-policy", b"no-referrer"),
    (b"cross-origin-resource-policy", b"same-origin"),
    (b"cross-origin-opener-policy", b"same-origin"),
)
REFERRER_TO_US = (b"referrer-policy", b"same-origin")
"""Header for hosts to which browsers send no Sec-Fetch-Site: by its Referer our own page is recognised."""
EXPOSED = b"retry-after, location, x-request-id, x-job-id, x-adjustments, x-unread-lines, content-disposition"

_log = logging.getLogger("gateway.access")


def owner_of(scope: Scope) -> str:
    """Owner of a request: `key:NAME`, otherwise `client:ID` with the client's own id, otherwise `peer:ADDRESS`."""
    return str(scope["state"]["owner"])


@dataclass(frozen=True, slots=True)
class PlainAnswer:
    """A complete response in no protocol's shape."""

    status_code: int
    body: bytes
    raw_headers: Headers


def plain_error(path: str, error: GatewayError) -> PlainAnswer:
    """An error for paths of no protocol."""
    body = json.dumps({"error": error.message, "code": error.code}).encode()
    return PlainAnswer(error.status, body, [(b"content-type", b"application/json")])


class Guard:
    """Guard in front of `app`.

    `render(path, error)` makes the error response of the path's protocol; `body_limit(path)` is in bytes. Image paths
    may be shown by any site, page paths may be navigated to from any site, open paths need no key. A GET of a changing
    path changes something. `takes_form(method, path)` says whether a body may be a multipart form. `body_memory` is
    shared by all requests. Without `keys`, those of the settings are loaded.
    Raises: SettingsError if the keys file cannot be used.
    """

    def __init__(
        self,
        app: App,
        settings: Settings,
        *,
        render: Render = plain_error,
        body_limit: Callable[[str], int] | None = None,
        is_image_path: Callable[[str], bool] = lambda path: False,
        is_open_path: Callable[[str], bool] = lambda path: False,
        is_page_path: Callable[[str], bool] = lambda path: path == "/",
        is_changing_path: Callable[[str], bool] = lambda path: False,
        takes_form: Callable[[str, str], bool] = lambda method, path: True,
        tickets: TicketOffice | None = None,
        keys: Keys | None = None,
        body_memory: BodyMemory | None = None,
    ) -> None:
        self._app = app
        self._http = settings.http
        self._render = render
        self._body_limit = body_limit or (lambda path: settings.http.default_body_bytes)
        self._is_image_path, self._is_open_path, self._is_page_path = is_image_path, is_open_path, is_page_path
        self._is_changing_path, self._takes_form = is_changing_path, takes_form
        self._memory = body_memory or BodyMemory(
            settings.http.body_memory_bytes, max(settings.http.image_body_bytes, settings.http.default_body_bytes)
        )
        self._hosts, self._origins = HostRule.of(settings), OriginRule.of(settings)
        self._keys = Keys.load(settings.access.keys_file) if keys is None else keys
        self._refused_origins: set[str] = set()
        self._keep_alive = (b"keep-alive", b"timeout=%d" % settings.http.keep_alive_s)  # RFC 2068, 19.7.1.1
        self._tickets: TicketOffice = tickets or Tickets()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        if scope["type"] != "http":
            return
        headers = dict(reversed(scope["headers"]))  # of equal names the first counts
        added = self._response_headers(scope, headers)
        answer = _Answer(send, added)
        bounds = BodyBounds(
            most_bytes=self._body_limit(scope["path"]),
            deadline_s=self._http.body_deadline_s,
            window_s=self._http.body_window_s,
            bytes_per_s=self._http.body_bytes_per_s,
        )
        lease = self._memory.lease()
        body = GuardedBody(receive, bounds, lease.arrived)
        try:
            self._check_url(scope)
            self._check_site(scope, headers)
            if preflight := self._preflight(scope, headers):
                await answer.whole(204, preflight, b"")
                return
            self._check_key(scope, headers, added)
            self._check_body(scope, headers, bounds, lease)
        except GatewayError as error:
            await self._refuse(scope, error, answer, body)
            return
        scope["state"]["body_memory"] = lease
        try:
            await self._through(scope, body, answer)
        finally:
            lease.release()

    async def _through(self, scope: Scope, body: GuardedBody, answer: _Answer) -> None:
        async def send(message: Message) -> None:
            # Whatever the app answers to an error from its receive(), the client gets the guard's own response.
            if body.error is None or answer.started:
                await answer(message)

        failure: GatewayError | None = None
        try:
            await self._app(scope, body, send)
        except asyncio.CancelledError:
            raise
        except GatewayError as error:
            failure = error
        except Exception:
            if not body.disconnected and body.error is None:
                error_id = scope["state"].setdefault("error_id", secrets.token_hex(4))
                _log.exception("a request ended in an unexpected error", extra={"error_id": error_id})
                failure = InternalError(f"The gateway made a mistake (error {error_id}).")
        if body.error is not None:
            failure = body.error
        if failure is not None and not answer.started and not body.disconnected:
            await self._refuse(scope, failure, answer, body)

    async def _refuse(self, scope: Scope, error: GatewayError, answer: _Answer, body: GuardedBody) -> None:
        rendered = self._render(scope["path"], error)
        status, content = rendered.status_code, bytes(rendered.body)
        dropped = (b"content-length", b"connection")
        headers = [(name, value) for name, value in rendered.raw_headers if name.lower() not in dropped]
        if isinstance(error, Unauthorized):
            headers += _challenge(scope)
        if isinstance(error, MethodNotAllowed) and error.allowed:
            headers.append((b"allow", ", ".join(error.allowed).encode()))
        if error.retry_after_s is not None and not any(name.lower() == b"retry-after" for name, _ in headers):
            headers.append((b"retry-after", str(error.retry_after_s).encode()))
        if body.whole or not _has_body(scope):
            await answer.whole(status, headers, content)
            return
        await answer(
            {
                "type": "http.response.start",
                "status": status,
                "headers": [*headers, (b"content-length", str(len(content)).encode()), (b"connection", b"close")],
            }
        )
        await answer({"type": "http.response.body", "body": content, "more_body": True})
        await body.drain()
        await answer({"type": "http.response.body", "body": b"", "more_body": False})

    # ---- the checks --------------------------------------------------------------------------------

    def _check_url(self, scope: Scope) -> None:
        if "\0" in scope["path"] or b"%00" in scope.get("query_string", b""):
            raise InvalidRequest("The URL holds a NUL character.", code="bad_url")

    def _check_site(self, scope: Scope, headers: dict[bytes, bytes]) -> None:
        host = headers.get(b"host", b"").decode("latin-1")
        if sum(name == b"host" for name, _ in scope["headers"]) > 1 or not self._hosts.allows(host):
            raise InvalidRequest("This server does not answer to that Host; see access.hosts.", code="bad_host")
        reads = scope["method"] in ("GET", "HEAD")
        if reads and self._is_image_path(scope["path"]):
            return
        origin = headers.get(b"origin")
        if origin is not None:
            if not self._origins.allows(origin.decode("latin-1"), host):
                self._log_origin(origin.decode("latin-1"))
                raise Forbidden("Requests from this origin are refused; see access.origins.", code="bad_origin")
            return
        if headers.get(b"sec-fetch-site") == b"cross-site" and not self._origins.every:
            navigation = headers.get(b"sec-fetch-mode") == b"navigate" and headers.get(b"sec-fetch-dest") == b"document"
            if not (reads and navigation and self._is_page_path(scope["path"])):
                raise Forbidden("Requests from other sites are refused; see access.origins.", code="cross_site")
        changes = self._is_changing_path(scope["path"]) and not self._origins.every
        if changes and is_from_elsewhere(headers, lambda referer: self._origins.allows(referer, host)):
            raise Forbidden(
                "This changes something, and a page of another site could have sent it: add the header "
                "X-Requested-With, or call it from a page of this server.",
                code="cross_site",
            )

    def _log_origin(self, origin: str) -> None:
        """Log once which setting would allow an origin. Names of web origins are not logged: pages choose them."""
        description = "a page of the web" if origin.startswith("http") else f"the origin {clip(origin)}"
        if len(self._refused_origins) < ORIGINS_LOGGED and description not in self._refused_origins:
            self._refused_origins.add(description)
            _log.warning("requests from %s are refused; access.origins would let it in", description)

    def _preflight(self, scope: Scope, headers: dict[bytes, bytes]) -> Headers | None:
        if scope["method"] != "OPTIONS" or b"access-control-request-method" not in headers or b"origin" not in headers:
            return None
        requested = headers.get(b"access-control-request-headers", b"").decode("latin-1")
        answer = [
            (b"access-control-allow-methods", METHODS),
            (b"access-control-allow-headers", askable(requested).encode()),
            (b"access-control-max-age", b"600"),
        ]
        if headers.get(b"access-control-request-private-network") == b"true":
            answer.append((b"access-control-allow-private-network", b"true"))
        return answer

    def _check_key(self, scope: Scope, headers: dict[bytes, bytes], added: Headers) -> None:
        peer = scope["client"][0] if scope.get("client") else "unknown"
        client = client_id(headers)
        state = scope.setdefault("state", {})
        state["owner"] = f"client:{client}" if client else f"peer:{peer}"
        state["check_key"] = partial(self._name_of, peer=peer) if self._keys else None
        given = credential(headers)
        ticket = _ticket(scope) if given is None or not self._keys else None
        if ticket is not None:
            opened = self._tickets.open(ticket, scope["path"], _cookies(headers))
            if opened is None:
                raise Unauthorized("The ticket was used, is past its time, or is for another address.")
            state["owner"] = opened.owner
            if opened.cookie is not None:
                added.append((b"set-cookie", opened.cookie))
            return
        if not self._keys:
            return
        name = self._keys.name_of(given) if given is not None else None
        if name is not None:
            state["owner"] = f"key:{name}"
        elif not self._is_open_path(scope["path"]):
            if given is None:
                raise Unauthorized
            self._name_of(given, peer)

    def _name_of(self, given: str, peer: str) -> str:
        """The name of a key. Raises: WrongKey, TooManyGuesses."""
        name = self._keys.name_of(given)
        if name is not None:
            return name
        if wait_s := self._keys.guesses.wait_s(peer):
            raise TooManyGuesses(retry_after_s=wait_s)
        self._keys.guesses.wrong(peer)
        raise WrongKey

    def _check_body(self, scope: Scope, headers: dict[bytes, bytes], bounds: BodyBounds, lease: Lease) -> None:
        if not _has_body(scope):
            return
        lease.clients = _clients(scope)
        length = headers.get(b"content-length", b"")
        if length.isdigit() and int(length) > bounds.most_bytes:
            raise bounds.too_large()
        if headers.get(b"content-encoding", b"identity").strip().lower() not in (b"identity", b""):
            raise UnsupportedMediaType("Compressed bodies are not taken.")
        if scope["method"] in WITH_BODY:
            self._check_type(scope, headers)
        if length.isdigit():
            lease.announce(int(length))

    def _check_type(self, scope: Scope, headers: dict[bytes, bytes]) -> None:
        kind = headers.get(b"content-type", b"").partition(b";")[0].strip().lower()
        if not kind:
            if b"origin" in headers or b"sec-fetch-site" in headers:
                raise UnsupportedMediaType("Send Content-Type: application/json.")
        elif kind == b"multipart/form-data":  # a page can send one to any site without a preflight
            if not self._takes_form(scope["method"], scope["path"]):
                raise UnsupportedMediaType("This route takes no form: send Content-Type: application/json.")
        elif kind != b"application/json" and not kind.endswith(b"+json"):
            raise UnsupportedMediaType("Send Content-Type: application/json.")

    def _response_headers(self, scope: Scope, headers: dict[bytes, bytes]) -> Headers:
        """Headers of every response, including refusals."""
        added = [*SECURITY_HEADERS, self._keep_alive]
        if self._is_image_path(scope["path"]):
            added[3] = (b"cross-origin-resource-policy", b"cross-origin")
        added.append((b"vary", b"Origin"))
        origin = headers.get(b"origin", b"").decode("latin-1")
        host = headers.get(b"host", b"").decode("latin-1")
        is_good_host = self._hosts.allows(host)
        if is_good_host and not is_loopback(host_name(host) or ""):
            added[2] = REFERRER_TO_US
        if origin and is_good_host and self._origins.allows(origin, host):
            added.append((b"access-control-allow-origin", self._origins.allow_header(origin).encode("latin-1")))
            added.append((b"access-control-expose-headers", EXPOSED))
        return added


class _Answer:
    """`send` that adds the guard's headers: one that the app has set stays, Vary is joined."""

    def __init__(self, send: Send, added: Headers) -> None:
        self._send, self._added = send, added
        self.started = False

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.started = True
            message = {**message, "headers": self._merged(message.get("headers", ()))}
        await self._send(message)

    async def whole(self, status: int, headers: Headers, content: bytes) -> None:
        length = [] if status == 204 else [(b"content-length", str(len(content)).encode())]
        await self({"type": "http.response.start", "status": status, "headers": [*headers, *length]})
        await self({"type": "http.response.body", "body": content, "more_body": False})

    def _merged(self, given: Any) -> Headers:
        headers: Headers = [(bytes(name), bytes(value)) for name, value in given]
        names = {name.lower() for name, _ in headers}
        return headers + [(name, value) for name, value in self._added if name == b"vary" or name not in names]


def _has_body(scope: Scope) -> bool:
    return any(
        name == b"transfer-encoding" or (name == b"content-length" and value.strip(b"0") != b"")
        for name, value in scope["headers"]
    )


def _clients(scope: Scope) -> tuple[str, ...]:
    """Names under which a body's memory is counted: the owner, and without a key the address.

    Loopback addresses are not counted, since all clients behind a proxy on this machine have one.
    """
    owner, peer = owner_of(scope), scope["client"][0] if scope.get("client") else "unknown"
    if owner.startswith("key:") or is_loopback(peer):
        return (owner,)
    address = f"peer:{counted_as(peer)}"
    return (address,) if owner.startswith("peer:") else (owner, address)


def _ticket(scope: Scope) -> str | None:
    """The query parameter `ticket`, of a GET only."""
    if scope["method"] != "GET" or b"ticket=" not in scope.get("query_string", b""):
        return None
    given = parse_qs(scope["query_string"].decode("latin-1")).get("ticket")
    return given[-1] if given else None


def _cookies(headers: dict[bytes, bytes]) -> dict[str, str]:
    pairs = headers.get(b"cookie", b"")[:COOKIE_BYTES].decode("latin-1").split(";")
    return {name.strip(): value.strip() for name, _, value in (pair.partition("=") for pair in pairs)}


def _challenge(scope: Scope) -> Headers:
    """The WWW-Authenticate header: for a page's script none that makes the browser show its password dialog."""
    scripted = any(n == b"sec-fetch-mode" and v != b"navigate" for n, v in scope["headers"])
    schemes = [b'Bearer realm="mflux-gateway"'] + ([] if scripted else [b'Basic realm="mflux-gateway"'])
    return [(b"www-authenticate", scheme) for scheme in schemes]
