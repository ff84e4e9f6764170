"""Options that several commands have, and the consoles they print to. Written for typer."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from gateway.cli.connect import Where
from gateway.cli.words import clipped

UNBOUNDED = 100_000
"""Columns of a file or a pipe: what reads it gets whole lines."""


def console(*, stderr: bool = False) -> Console:
    """A console as wide as its terminal; without a terminal no line is cut."""
    found = Console(stderr=stderr, highlight=False)
    return found if found.is_terminal else Console(stderr=stderr, highlight=False, width=UNBOUNDED)


out, err = console(), console(stderr=True)


def cell(text: str | None, length: int = 48) -> str:
    """One line of a text, of at most `length` characters on a terminal, without its control characters."""
    return clipped(text, length if out.is_terminal else UNBOUNDED)


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
