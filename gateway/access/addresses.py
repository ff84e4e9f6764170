"""Client addresses for counting: a whole IPv4 address, or the /64 network of an IPv6 address. Pure."""

from __future__ import annotations

import ipaddress
from functools import lru_cache


@lru_cache(maxsize=1024)
def counted_as(address: str) -> str:
    """The address under which a client is counted; text that is not an address is returned unchanged.

    A client with one IPv6 address has a whole /64. `::ffff:192.0.2.1` is the IPv4 address in it.
    """
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError:
        return address
    if isinstance(parsed, ipaddress.IPv4Address):
        return str(parsed)
    if parsed.ipv4_mapped is not None:
        return str(parsed.ipv4_mapped)
    if parsed.is_loopback:
        return str(parsed)
    return str(ipaddress.ip_network((int(parsed), 64), strict=False))
