"""Options that several commands have, and the consoles they print to. Written for typer."""

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
    typer.Option("--url", envvar="MFLUX_GATEWAY_URL", help="Gateway to use; by default the one that runs here."),
]
Config = Annotated[
    Path | None, typer.Option("--config", help="Settings file of the gateway (default: ./config.yaml if it exists).")
]
AsJson = Annotated[bool, typer.Option("--json", help="Print the API's response as JSON.")]


def where(url: str | None, config: Path | None) -> Where:
    return Where(url or None, config)


def print_json(value: Any) -> None:
    """Print JSON without colours, for other programs."""
    print(json.dumps(value, ensure_ascii=False, indent=2))
