"""The protocols, one line each. An adapter translates; it keeps no state and knows no other adapter."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from gateway.http.adapter import Adapter

    ADAPTERS: tuple[Adapter, ...]

PROTOCOLS = (
    "adapters.sdapi",
    "adapters.v1",
    "adapters.native",
    "adapters.mflux_server",
    "adapters.docs",
    "adapters.web",
)
"""Modules, each with its ADAPTER: a gateway imports them one after the other while its engine starts."""


def __getattr__(name: str) -> Any:
    """`ADAPTERS`: the adapter of each protocol, imported when it is asked for."""
    if name != "ADAPTERS":
        raise AttributeError(name)
    return tuple(import_module(module).ADAPTER for module in PROTOCOLS)
