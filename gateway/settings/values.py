"""Types of setting values, with their checks."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Literal
from urllib.parse import urlsplit

from pydantic import AfterValidator, BeforeValidator, Field

from gateway.files.address import check_endpoint, parse_address


def _number(value: object) -> object:
    return int(value) if isinstance(value, str) and value.isascii() and value.isdigit() else value


def _public_url(value: str) -> str:
    parts = urlsplit(value)
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.username or parts.query or parts.fragment:
        raise ValueError("must look like http://name:port, without user, query or fragment")
    return value.rstrip("/")


def _database_url(value: str) -> str:
    parts = urlsplit(value)
    if parts.scheme not in ("postgresql", "postgres"):
        raise ValueError("must look like postgresql://user@host/database")
    return value


def _origin(value: str) -> str:
    """A web origin; programs in a web view have own schemes. Source: HTML, "serialization of an origin"."""
    web, program = r"https?://[^/?#@\s*]+", r"(?!https?:)[a-z][a-z0-9+.-]*://[^/?#@\s*]*"
    if value in ("*", "null") or re.fullmatch(f"{web}|{program}", value):
        return value.lower()
    raise ValueError('must look like https://name:port or app://name, or be "null" (pages opened as files) or "*"')


def _host(value: str) -> str:
    if value == "*" or re.fullmatch(r"[A-Za-z0-9._-]+|[0-9A-Fa-f:]+|\[[0-9A-Fa-f:.]+\]", value):
        return value.strip("[]").lower()
    raise ValueError("must be a bare name or address, without scheme and port")


def _files_url(value: str) -> str:
    parse_address(value)
    return value


def _endpoint(value: str) -> str:
    check_endpoint(value, allows_http=True)  # whether it may be http:// depends on another setting
    return value.rstrip("/")


FolderPath = Annotated[Path, AfterValidator(Path.expanduser)]
Bits = Annotated[Literal[3, 4, 5, 6, 8], BeforeValidator(_number)]
Port = Annotated[int, Field(ge=0, le=65535)]
Seconds = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Gigabytes = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Bytes = Annotated[int, Field(ge=1)]
Count = Annotated[int, Field(ge=1)]
PublicUrl = Annotated[str, AfterValidator(_public_url)]
WebOrigin = Annotated[str, AfterValidator(_origin)]
DatabaseUrl = Annotated[str, AfterValidator(_database_url)]
HostName = Annotated[str, AfterValidator(_host)]
FilesUrl = Annotated[str, AfterValidator(_files_url)]
Endpoint = Annotated[str, AfterValidator(_endpoint)]
