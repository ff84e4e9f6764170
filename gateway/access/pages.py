"""Pages of other sites: whether a GET that changes something may come from one; pure rules over header values (S-06).

Browsers send neither Sec-Fetch-Site nor Origin with an <img> to a plain-HTTP name of the local network, and a page can
omit its Referer. It cannot omit the browser's User-Agent, nor add headers without a preflight.
Source: Fetch Metadata, "potentially trustworthy URL"; Fetch, "no-CORS-safelisted request-header".
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from urllib.parse import urlsplit

BROWSERS = (b"mozilla/", b"applecoremedia/", b"stagefright/", b"opera/")
"""Parts of a browser's User-Agent: of every page since 1998, and of what plays its <audio> and <video>."""
ONLY_BROWSERS = (b"referer", b"cookie", b"upgrade-insecure-requests", b"purpose", b"x-moz", b"x-playback-session-id")
NEEDS_PREFLIGHT = (b"x-api-key", b"x-client-id", b"x-requested-with", b"idempotency-key")
"""Headers that a page of another origin can send only after a preflight."""
PAGE_TYPES = (b"text/html", b"text/css", b"image/", b"video/", b"audio/")


def is_from_elsewhere(headers: Mapping[bytes, bytes], allows: Callable[[str], bool]) -> bool:
    """Whether a GET may come from another site's page; `allows` says which origins may call.

    The caller has already refused foreign Hosts, foreign Origins and `Sec-Fetch-Site: cross-site`.
    """
    if b"origin" in headers or _has_own_header(headers):
        return False
    site = headers.get(b"sec-fetch-site")
    if site in (b"same-origin", b"none"):
        return False
    if site is None and not is_browser(headers):
        return False
    origin = origin_in(headers.get(b"referer", b""))
    return origin is None or not allows(origin)


def is_browser(headers: Mapping[bytes, bytes]) -> bool:
    """Whether a browser may have sent this; `Accept-Language: *` is Node's fetch, whose User-Agent is `node`."""
    agent, accept = headers.get(b"user-agent", b"").lower(), headers.get(b"accept", b"").lower()
    return (
        any(name in agent for name in BROWSERS)
        or any(name in headers for name in ONLY_BROWSERS)
        or headers.get(b"accept-language", b"*") != b"*"
        or any(kind in accept for kind in PAGE_TYPES)
    )


def origin_in(referer: bytes) -> str | None:
    """The origin of a Referer; None if it has none."""
    try:
        parts = urlsplit(referer.decode("latin-1"))
    except ValueError:
        return None
    return f"{parts.scheme}://{parts.netloc}".lower() if parts.scheme and parts.netloc else None


def _has_own_header(headers: Mapping[bytes, bytes]) -> bool:
    bearer = headers.get(b"authorization", b"").lower().startswith(b"bearer ")  # a browser may add Basic by itself
    return bearer or any(name in headers for name in NEEDS_PREFLIGHT)
