"""mflux-gateway workers: lists the processes that run jobs, drains and resumes them."""

from __future__ import annotations

from typing import Annotated, Any
from urllib.parse import quote

import typer
from rich.markup import escape
from rich.table import Column, Table

from gateway.cli.connect import gateway
from gateway.cli.options import AsJson, Config, Url, cell, out, print_json, where
from gateway.cli.words import seconds

workers = typer.Typer(help="Show the workers; drain and resume them.", invoke_without_command=True)
Name = Annotated[str, typer.Argument(help="Name of a worker, as workers shows it.")]
COLOUR = {"ready": "green", "starting": "yellow", "draining": "yellow", "down": "red"}
GB = 1e9


@workers.callback()
def show_workers(context: typer.Context, as_json: AsJson = False, url: Url = None, config: Config = None) -> None:
    """Show the processes that run jobs, with their device, memory, model and jobs."""
    context.obj = where(url, config)
    if context.invoked_subcommand is not None:
        return
    with gateway(context.obj, may_start=False) as remote:
        answer = remote.get("/api/v1/workers")["workers"]
    if as_json:
        return print_json(answer)
    table = Table(
        Column("worker", no_wrap=True), "state", "device", "memory", "loaded", "jobs", "image", "seen", box=None
    )
    for worker in answer:
        table.add_row(*_row(worker))
    out.print(table if table.row_count else "No workers.")
    for worker in answer:
        if worker["reason"]:
            out.print(f"{escape(cell(worker['name']))}: {escape(cell(worker['reason'], 400))}")


@workers.command()
def drain(context: typer.Context, name: Name) -> None:
    """Have a worker begin no more jobs, also after a restart; running ones go on."""
    with gateway(context.obj, may_start=False) as remote:
        worker = remote.post(f"/api/v1/workers/{quote(name, safe='')}/drain")
    count = worker["running_count"]
    left = "nothing runs there" if not count else f"{count} {'job runs' if count == 1 else 'jobs run'} there still"
    out.print(f"{escape(cell(name))} begins no more jobs; {left}.")


@workers.command()
def resume(context: typer.Context, name: Name) -> None:
    """Have a worker run jobs again."""
    with gateway(context.obj, may_start=False) as remote:
        remote.post(f"/api/v1/workers/{quote(name, safe='')}/resume")
    out.print(f"{escape(cell(name))} runs jobs again.")


def _row(worker: dict[str, Any]) -> tuple[str, ...]:
    state = "draining" if worker["draining"] else str(worker["state"])
    limit = worker["memory_limit_bytes"]
    return (
        escape(cell(worker["name"], 32)),
        f"[{COLOUR[state]}]{state}[/]" if state in COLOUR else escape(state),
        escape(cell(worker["device"], 24)),
        "" if limit is None else f"{limit / GB:.0f} GB",
        escape(cell(worker["loaded_model"], 28)),
        str(worker["running_count"]),
        seconds(worker["seconds_per_image"]),
        f"{worker['seen_seconds_ago']:.0f} s ago",
    )
