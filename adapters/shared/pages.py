"""Pages for people: the errors of the protocols that serve them, and files with an ETag."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

from starlette.requests import Request
from starlette.responses import Response
from typing_extensions import TypedDict

from adapters.shared.responses import error_response
from gateway.errors import GatewayError

CACHE = {"Cache-Control": "private, no-cache"}
UNCHANGED = {304: "The client has it already."}
ETAG = ("If-None-Match",)


class Plain(TypedDict):
    """What was wrong."""

    error: str
    code: str


def render_error(error: GatewayError) -> Response:
    body: Plain = {"error": error.message, "code": error.code}
    return error_response(body, error.status)


@dataclass(frozen=True, slots=True)
class TaggedFile:
    """The bytes of a file, with the ETag by which a client asks whether they changed."""

    content: bytes
    media_type: str
    tag: str

    @classmethod
    def of(cls, content: bytes, media_type: str) -> TaggedFile:
        return cls(content, media_type, f'"{hashlib.sha256(content).hexdigest()[:32]}"')

    def answer(self, request: Request) -> Response:
        """The file, or a 304 where the client has it already."""
        headers = {**CACHE, "ETag": self.tag}
        if request.headers.get("if-none-match") == self.tag:
            return Response(status_code=304, headers=headers)
        return Response(self.content, media_type=self.media_type, headers=headers)
