"""Address of the files: `files.url` as a folder, or as a bucket with a prefix. Pure."""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote, urlsplit

_BUCKET = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{1,254}")
_PART = re.compile(r"[A-Za-z0-9!_.*'() -]{1,512}")
FORMS = "must look like file:///folder or s3://bucket/prefix"


@dataclass(frozen=True, slots=True)
class FolderAddress:
    """An absolute folder."""

    folder: Path


@dataclass(frozen=True, slots=True)
class BucketAddress:
    """A bucket, and the prefix of all keys in it, without slashes at its ends; empty: none."""

    bucket: str
    prefix: str = ""


def parse_address(url: str) -> FolderAddress | BucketAddress:
    """The place that an address names. Raises: ValueError with a sentence that repeats nothing of it."""
    try:
        parts = urlsplit(url)
        has_user = "@" in parts.netloc
    except ValueError:
        raise ValueError(FORMS) from None
    if has_user:
        raise ValueError("must not contain a key: files.access_key_id and files.secret_access_key are for that")
    if parts.query or parts.fragment or any(ord(char) < 32 for char in unquote(url)):
        raise ValueError(f"{FORMS}, without anything after it")
    if parts.scheme == "file":
        return _folder(parts.netloc, unquote(parts.path))
    if parts.scheme == "s3":
        return _bucket(parts.netloc, unquote(parts.path))
    raise ValueError(FORMS)


def _folder(host: str, path: str) -> FolderAddress:
    if host not in ("", "localhost") or not path.startswith("/") or path.strip("/") == "":
        raise ValueError("must name an absolute folder, as in file:///mnt/shared/mflux")
    if ".." in path.split("/"):
        raise ValueError("must not contain ..")
    return FolderAddress(Path(path))


def _bucket(bucket: str, path: str) -> BucketAddress:
    prefix = path.strip("/")
    if not _BUCKET.fullmatch(bucket):
        raise ValueError("must name a bucket, as in s3://bucket/prefix")
    parts = prefix.split("/") if prefix else []
    if len(prefix) > 512 or not all(_PART.fullmatch(part) and part not in (".", "..") for part in parts):
        raise ValueError("must have a prefix of letters, digits and !_.*'() - in parts between single slashes")
    return BucketAddress(bucket, prefix)


def check_endpoint(endpoint: str, *, allows_http: bool) -> None:
    """Raises: ValueError for an endpoint that is no address, or that others could read the traffic to."""
    try:
        parts = urlsplit(endpoint)
        host, port = parts.hostname, parts.port
    except ValueError:
        host, port = None, None
    if host is None or parts.scheme not in ("http", "https") or port == 0 or parts.query or parts.fragment:
        raise ValueError("must look like https://name:port")
    if "@" in parts.netloc:
        raise ValueError("must not contain a key: files.access_key_id and files.secret_access_key are for that")
    if parts.scheme == "http" and not allows_http and not _is_loopback(host):
        raise ValueError("must begin with https://; files.allow_http: true allows http:// to another machine")


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
