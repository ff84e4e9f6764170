"""The protocols, one line each. An adapter translates; it keeps no state and knows no other adapter."""

from adapters import docs, mflux_server, native, sdapi, v1, web
from gateway.http.adapter import Adapter

ADAPTERS: tuple[Adapter, ...] = (
    sdapi.ADAPTER,
    v1.ADAPTER,
    native.ADAPTER,
    mflux_server.ADAPTER,
    docs.ADAPTER,
    web.ADAPTER,
)
