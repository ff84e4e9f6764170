"""What several commands take, and what they print to. Written for typer."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from gateway.cli.connect import Where

out = Console(highlight=False)
err = Console(stderr=True, highlight=False)

Url = Annotated[
    str | None,
    typer.Option("--url", envvar="MFLUX_GATEWAY_URL", help="Gateway to speak to; else the one that runs here."),
]
Config = Annotated[
    Path | None, typer.Option("--config", help="Settings file of the gateway (./config.yaml when it exists).")
]
AsJson = Annotated[bool, typer.Option("--json", help="Print the API's answer as JSON.")]


def where(url: str | None, config: Path | None) -> Where:
    return Where(url or None, config)


def print_json(value: Any) -> None:
    """Bare, for other programs."""
    print(json.dumps(value, ensure_ascii=False, indent=2))
