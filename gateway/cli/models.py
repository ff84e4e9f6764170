"""mflux-gateway models, loras: lists, downloads and removes models; lists LoRAs."""

from __future__ import annotations

from typing import Annotated, Any
from urllib.parse import quote

import typer
from rich.markup import escape
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn
from rich.table import Column, Table

from gateway.cli.connect import gateway
from gateway.cli.failure import Exit, Failure
from gateway.cli.interrupts import submitted
from gateway.cli.options import AsJson, Config, Url, cell, err, out, print_json, where
from gateway.cli.remote import Remote

models = typer.Typer(help="List models; pull and remove weights.", no_args_is_help=True)
loras = typer.Typer(help="List LoRAs of the gateway.", no_args_is_help=True)
WIDE = 110
"""Width of a terminal from which descriptions are shown."""
Name = Annotated[str, typer.Argument(help="Name of a model, as models list shows it.")]


@models.command("list")
def list_models(
    everything: Annotated[bool, typer.Option("-a", "--all", help="Include models that are not on disk.")] = False,
    as_json: AsJson = False,
    url: Url = None,
    config: Config = None,
) -> None:
    """List models on disk, or all known models."""
    with gateway(where(url, config), may_start=True) as remote:
        answer = remote.get("/api/v1/models")["models"]
    shown = [model for model in answer if everything or model["downloaded"] or model["download"]]
    if as_json:
        return print_json(shown)
    is_wide = out.width >= WIDE
    columns = ["size", "licence", "what it is"] if is_wide else ["size", "licence"]
    table = Table(Column("model", no_wrap=True), Column(no_wrap=True), *columns, box=None)
    for model in shown:
        name = escape(model["title"]) + (" [dim](default)[/]" if model["default"] else "")
        row = [name, _state(model), f"{model['size_gb']:g} GB", model["licence"]]
        table.add_row(*row, *([cell(model["description"], 60)] if is_wide else ()))
    out.print(table)
    if hidden := len(answer) - len(shown):
        out.print(f"[dim]{hidden} more models are available: --all[/]")


@models.command()
def info(model: Name, as_json: AsJson = False, url: Url = None, config: Config = None) -> None:
    """Show everything about one model."""
    with gateway(where(url, config), may_start=True) as remote:
        status = remote.get(f"/api/v1/models/{quote(model, safe='')}/status")
        rows = [row for row in remote.get("/api/v1/models")["models"] if row["title"] == model]
    answer = {**(rows[0] if rows else {}), **status}
    if as_json:
        return print_json(answer)
    can = answer.pop("capabilities", {})
    out.print(_pairs({**answer, **can}))


@models.command()
def pull(
    model: Name, quiet: Annotated[bool, typer.Option("-q", "--quiet")] = False, url: Url = None, config: Config = None
) -> None:
    """Download a model's weights; continues an earlier, interrupted pull.

    Ctrl-C stops the download, unless somebody else started it; the downloaded part is kept.
    """
    with gateway(where(url, config), may_start=True) as remote:

        def stopped(job: dict[str, Any]) -> Failure:
            if job["protocol"] == "gateway":
                return Failure("The download continues: others wait for it.", Exit.INTERRUPTED)
            remote.delete(f"/api/v1/jobs/{job['job_id']}")
            return Failure("Stopped; pull again to continue.", Exit.INTERRUPTED)

        with submitted(remote, f"/api/v1/models/{quote(model, safe='')}/pull", {}, stopped) as job:
            _follow(remote, job, model, quiet=quiet)
    out.print(f"{escape(model)} is on disk.")


@models.command()
def remove(
    model: Name,
    yes: Annotated[bool, typer.Option("-y", "--yes", help="Do not ask.")] = False,
    url: Url = None,
    config: Config = None,
) -> None:
    """Delete pulled weights; never a folder of your own."""
    if not yes:
        typer.confirm(f"Delete the weights of {model}?", abort=True)
    with gateway(where(url, config), may_start=True) as remote:
        remote.delete(f"/api/v1/models/{quote(model, safe='')}")
    out.print(f"{escape(model)} is removed.")


@loras.command("list")
def list_loras(as_json: AsJson = False, url: Url = None, config: Config = None) -> None:
    """List LoRAs with their trigger words."""
    with gateway(where(url, config), may_start=True) as remote:
        answer = remote.get("/api/v1/loras")["loras"]
    if as_json:
        return print_json(answer)
    table = Table("lora", "for", "trigger words", "", box=None)
    for lora in answer:
        words, models = (cell(", ".join(lora[what]), 60) for what in ("trigger_words", "models"))
        note = lora["trouble"] or ("" if lora["downloaded"] else "on the hub")
        table.add_row(escape(cell(lora["name"])), escape(models), escape(words), escape(note))
    out.print(table if table.row_count else "No LoRAs.")


@loras.command("info")
def lora_info(
    name: Annotated[str, typer.Argument(help="Name of a LoRA.")],
    as_json: AsJson = False,
    url: Url = None,
    config: Config = None,
) -> None:
    """Show everything about one LoRA."""
    with gateway(where(url, config), may_start=True) as remote:
        answer = remote.get(f"/api/v1/loras/{quote(name, safe='')}")
    print_json(answer) if as_json else out.print(_pairs(answer))


def _state(model: dict[str, Any]) -> str:
    if model["downloaded"]:
        return "[green]on disk[/]"
    if download := model["download"]:
        return "waiting" if download["percent"] is None else f"downloading, {download['percent']} %"
    return "[dim]unavailable[/]" if model["unavailable"] else ""


def _pairs(values: dict[str, Any]) -> Table:
    table = Table(show_header=False, box=None)
    for name, value in values.items():
        if value not in (None, [], {}):
            table.add_row(f"[dim]{name}[/]", escape(cell(str(value), 400)))
    return table


def _follow(remote: Remote, job: dict[str, Any], model: str, *, quiet: bool) -> None:
    """Show a download's progress. Raises: Failure if it did not succeed."""
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        DownloadColumn(),
        TransferSpeedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=err, transient=True, disable=quiet) as progress:
        task = progress.add_task(model, total=None)
        for event in remote.events(job["job_id"]):
            if event.name == "downloading":
                progress.update(task, completed=event.data["done_bytes"], total=event.data["total_bytes"])
            if event.name == "error":
                raise Failure(str(event.data["error"]))
            if event.name == "cancelled":
                raise Failure("The download was cancelled.", Exit.CANCELLED)
