"""One HTTP/1.1 connection as h11 parses it: bounds on the head of a request, and the opening of a response ahead."""

from __future__ import annotations

from typing import Any

import h11

MAX_URL_BYTES = 8 * 1024
MAX_HEADER_BYTES = 64 * 1024
MAX_HEADERS = 100
REFUSALS = {
    400: ("Bad Request", "This is not an HTTP request."),
    408: ("Request Timeout", "The request came too slowly."),
    414: ("URI Too Long", f"The URL is longer than {MAX_URL_BYTES} bytes."),
    431: ("Request Header Fields Too Large", f"More than {MAX_HEADERS} headers, or {MAX_HEADER_BYTES} bytes of them."),
    503: ("Service Unavailable", "Too many connections are open."),
}
"""Status, reason and sentence of what is refused without a request."""
OPENING = b"HTTP/1.1 "
"""The beginning of every response, whatever its status."""


class Connection(h11.Connection):
    """h11's parser with bounds on the whole head; its own bound applies only to heads that come in pieces (S-10)."""

    refusal_status = 400
    is_finite = False
    """Whether the response under way has a length: it ends by itself."""
    _bytes_ahead = 0

    def next_byte(self) -> bytes:
        """The next byte of the opening of a response whose status is not known yet; none once it has begun."""
        start = self._bytes_ahead
        if self.our_state is not h11.SEND_RESPONSE or start == len(OPENING):
            return b""
        self._bytes_ahead += 1
        return OPENING[start : start + 1]

    def send(self, event: h11.Event) -> bytes | None:  # type: ignore[override]
        """As h11's, without the bytes that were sent ahead."""
        data: bytes | None = super().send(event)
        if isinstance(event, h11.Response):
            self.is_finite = any(name == b"content-length" for name, _ in event.headers)
            data, self._bytes_ahead = data and data[self._bytes_ahead :], 0
        return data

    def next_event(self) -> Any:
        """The next event. Raises: h11.RemoteProtocolError, with the response status in `refusal_status`."""
        try:
            event = super().next_event()
        except h11.RemoteProtocolError as error:
            self.refusal_status = 431 if error.error_status_hint == 431 else 400
            raise
        if isinstance(event, h11.Request):
            size = sum(len(name) + len(value) + 4 for name, value in event.headers)
            if len(event.target) > MAX_URL_BYTES:
                self._refuse(414)
            if len(event.headers) > MAX_HEADERS or size > MAX_HEADER_BYTES:
                self._refuse(431)
            self._check_framing(event)
        return event

    def _check_framing(self, request: h11.Request) -> None:
        """Refuse two different lengths of one body: a proxy may have used the other one (RFC 9112, 6.1)."""
        names = {name for name, _ in request.headers}
        if b"transfer-encoding" in names and (b"content-length" in names or request.http_version < b"1.1"):
            self._refuse(400)

    def _refuse(self, status: int) -> None:
        self.refusal_status = status
        raise h11.RemoteProtocolError(REFUSALS[status][0], error_status_hint=status)
