"""One thing that was looked at, and what to do about it: a row of `mflux-gateway doctor` and of GET findings."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Health = Literal["ok", "note", "broken"]


@dataclass(frozen=True, slots=True)
class Finding:
    """`broken`: nothing is drawn, or taken, until it is mended. `remedy` says what to do."""

    what: str
    health: Health
    found: str
    remedy: str = ""
