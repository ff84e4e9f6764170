"""Hosts and web origins that may call: pure rules over header values. Knows no scope and no key.

Another site's page can make a browser call us in two ways: under a name that it controls and that resolves to this
machine (DNS rebinding, seen in Host), or across origins (seen in Origin and Sec-Fetch-Site).
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from urllib.parse import urlsplit

from gateway.settings import Settings, is_loopback

_HOST = re.compile(r"(\[[0-9a-f:.]{2,45}\]|[a-z0-9._-]{1,253})(?::[0-9]{1,5})?")
HOST_CHARS = 253 + len("[]:65535")
_ORIGIN = re.compile(rf"(https?)://({_HOST.pattern})")

ALWAYS_GOOD = frozenset(
    {
        "localhost",
        "host.docker.internal",
        "gateway.docker.internal",
        "host.containers.internal",
        "host.lima.internal",
        "host.orb.internal",
        "host.rancher-desktop.internal",
    }
)
"""Names by which Docker, Podman, Lima, OrbStack and Rancher Desktop call the machine that their containers run on.

The public DNS has no names under `internal` (ICANN, 2024), so that no page can rebind one.
"""

_ASKABLE = frozenset(
    [
        "accept",
        "accept-language",
        "authorization",
        "cache-control",
        "content-language",
        "content-type",
        "idempotency-key",
        "last-event-id",
        "openai-beta",
        "openai-organization",
        "openai-project",
        "x-api-key",
        "x-client-id",
        "x-request-id",
        "x-requested-with",
    ]
)
_ASKABLE_PREFIX = "x-stainless-"  # the openai package sends a dozen of these, more with each version


def host_name(header: str) -> str | None:
    """The name or address in a Host header, without brackets and port; None if the header is invalid."""
    return _host_name(header) if len(header) <= HOST_CHARS else None


@lru_cache(maxsize=256)
def _host_name(header: str) -> str | None:
    match = _HOST.fullmatch(header.lower())
    return match[1].strip("[]") if match else None


@dataclass(frozen=True, slots=True)
class HostRule:
    """Allowed hosts (S-02): loopback, `ALWAYS_GOOD`, names in the settings, and any bare address if we listen beyond
    loopback, since rebinding needs a name.
    """

    names: frozenset[str]
    any_address: bool
    any_name: bool = False

    @classmethod
    def of(cls, settings: Settings) -> HostRule:
        names = set(settings.access.hosts) | ALWAYS_GOOD | {settings.server.host.strip("[]").lower()}
        if settings.server.public_url:
            names.add((urlsplit(settings.server.public_url).hostname or "").lower())
        return cls(
            names=frozenset(names - {"*", ""}),
            any_address=not is_loopback(settings.server.host),
            any_name="*" in settings.access.hosts,
        )

    def allows(self, header: str) -> bool:
        name = host_name(header)
        if name is None:
            return False
        return self.any_name or name in self.names or is_loopback(name) or (self.any_address and _is_address(name))


@dataclass(frozen=True, slots=True)
class OriginRule:
    """Allowed origins (S-03): loopback ones with any port, those in the settings, and the server's own."""

    exact: frozenset[str]
    every: bool = False

    @classmethod
    def of(cls, settings: Settings) -> OriginRule:
        written = settings.access.origins
        return cls(exact=frozenset(written) - {"*"}, every="*" in written)

    def allows(self, origin: str, host_header: str) -> bool:
        """`host_header` has already passed the HostRule, so an equal origin is our own page."""
        if self.every or origin in self.exact:
            return True
        match = _ORIGIN.fullmatch(origin)
        if match is None:
            return False
        name = host_name(match[2])
        return name is not None and (is_loopback(name) or match[2] == host_header.lower())

    def allow_header(self, origin: str) -> str:
        """The value of Access-Control-Allow-Origin for an allowed origin."""
        return "*" if self.every else origin


def askable(requested: str) -> str:
    """The value of Access-Control-Allow-Headers: allowed ones of the requested headers, and the usual ones."""
    names: Iterable[str] = (name.strip().lower() for name in requested[:4096].split(","))
    extra = {name for name in names if name.startswith(_ASKABLE_PREFIX) and re.fullmatch(r"[a-z0-9-]{1,64}", name)}
    return ", ".join(sorted(_ASKABLE | extra))


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True
