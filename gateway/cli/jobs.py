"""mflux-gateway queue, jobs, cancel: shows and changes the queue, lists and cancels jobs."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any

import typer
from rich.markup import escape
from rich.table import Column, Table

from gateway.cli.connect import gateway
from gateway.cli.failure import Failure
from gateway.cli.options import AsJson, Config, Url, cell, out, print_json, where
from gateway.cli.words import seconds

queue = typer.Typer(help="Show and change the queue.", invoke_without_command=True)
JOBS_COLUMNS = {"job": 32, "when": 6, "status": 10, "took": 6, "model": 0}
"""Columns and their widths; in a terminal of 80 columns the prompt is cut."""
COLOUR = {"completed": "green", "failed": "red", "cancelled": "yellow", "generating": "cyan"}


@queue.callback()
def show_queue(context: typer.Context, as_json: AsJson = False, url: Url = None, config: Config = None) -> None:
    """Show running and waiting jobs in the order in which they will run."""
    context.obj = where(url, config)
    if context.invoked_subcommand is not None:
        return
    with gateway(context.obj, may_start=False) as remote:
        answer = remote.get("/api/v1/queue")
    if as_json:
        return print_json(answer)
    table = Table("", Column("job", no_wrap=True), "model", "prompt", "done in", box=None)
    active = answer["active"]
    if active:
        table.add_row(f"[cyan]{active['percent']} %[/]", *_brief(active))
    for waiting in answer["queued"]:
        table.add_row(str(waiting["position"]), *_brief(waiting))
    if table.row_count:
        out.print(table)
    others = answer["running_count"] + answer["pending_count"] - table.row_count
    if others > 0:
        out.print(f"{others} more jobs of other clients.")
    if not table.row_count and others <= 0:
        out.print("The queue is empty.")
    if answer["paused"]:
        out.print("[yellow]The queue is paused: mflux-gateway queue resume[/]")


@queue.command()
def pause(context: typer.Context) -> None:
    """Pause the queue: running jobs go on, waiting ones do not start."""
    with gateway(context.obj, may_start=False) as remote:
        remote.post("/api/v1/queue/pause")
    out.print("Paused.")


@queue.command()
def resume(context: typer.Context) -> None:
    """Resume the queue."""
    with gateway(context.obj, may_start=False) as remote:
        remote.post("/api/v1/queue/resume")
    out.print("Resumed.")


@queue.command()
def move(
    context: typer.Context,
    job: Annotated[str, typer.Argument(help="Id of a waiting job.")],
    to: Annotated[str, typer.Argument(help="front, end, or the id of the job before which it is to run.")],
) -> None:
    """Move one of your waiting jobs before or after your other jobs."""
    with gateway(context.obj, may_start=False) as remote:
        moved = remote.post(f"/api/v1/jobs/{_id(job)}/move", {"to": to} if to in ("front", "end") else {"before": to})
    out.print(f"{moved['position']} jobs before it.")


def jobs(
    job: Annotated[str | None, typer.Argument(help="Id of one job (default: the newest jobs).")] = None,
    status: Annotated[
        str | None, typer.Option(help="queued, generating, completed, failed, cancelled; several separated by commas.")
    ] = None,
    limit: Annotated[int, typer.Option("-n", "--limit", min=1, max=500)] = 20,
    as_json: AsJson = False,
    url: Url = None,
    config: Config = None,
) -> None:
    """List your jobs, newest first, or show one of them."""
    with gateway(where(url, config), may_start=True) as remote:
        if job is not None:
            answer = remote.get(f"/api/v1/jobs/{_id(job)}", images="false")
        else:
            answer = remote.get("/api/v1/jobs", limit=limit, status=status)
    if as_json:
        print_json(answer)
    elif job is not None:
        _print_job(answer)
    else:
        short = (Column(name, no_wrap=True, min_width=width) for name, width in JOBS_COLUMNS.items())
        table = Table(*short, Column("prompt", no_wrap=True), box=None)
        for row in answer["jobs"]:
            table.add_row(row["id"], _when(row), _status(row), seconds(row["seconds"]), *_what(row))
        out.print(table if table.row_count else "No jobs.")


def cancel(
    jobs: Annotated[list[str], typer.Argument(help="Ids of jobs.", metavar="JOB...")],
    url: Url = None,
    config: Config = None,
) -> None:
    """Cancel jobs; a running one stops after its current step."""
    fault: Failure | None = None
    with gateway(where(url, config), may_start=False) as remote:
        for job in jobs:
            try:
                out.print(f"{escape(job)}: {remote.delete(f'/api/v1/jobs/{_id(job)}')['status']}")
            except Failure as failure:
                out.print(f"{escape(job)}: {escape(str(failure))}")
                fault = failure
    if fault is not None:
        raise typer.Exit(fault.code)


def _id(text: str) -> str:
    """A job's id, checked for use in a path."""
    if not text.isalnum():
        raise typer.BadParameter("must be the id of a job", param_hint="JOB")
    return text


def _brief(job: dict[str, Any]) -> tuple[str, str, str, str]:
    return (job["job_id"], cell(job["model"], 28), escape(cell(job["prompt"])), seconds(job["eta_seconds"]))


def _what(job: dict[str, Any]) -> tuple[str, str]:
    return cell(job["model"], 28), escape(cell(job.get("prompt") or job["type"]))


def _when(job: dict[str, Any]) -> str:
    """Local time of a job: 17:33 if today, otherwise Nov 20."""
    then = datetime.fromisoformat(job["created_at"]).astimezone()
    return then.strftime("%H:%M" if then.date() == datetime.now().astimezone().date() else "%b %d")


def _status(job: dict[str, Any]) -> str:
    colour = COLOUR.get(job["status"])
    return f"[{colour}]{job['status']}[/]" if colour else str(job["status"])


def _print_job(job: dict[str, Any]) -> None:
    table = Table(show_header=False, box=None)
    names = ("id", "status", "position", "model", "prompt", "width", "height", "steps", "guidance", "seeds")
    for name in (*names, "protocol", "priority", "created_at", "completed_at", "seconds", "error", "image_urls"):
        value = job.get(name)
        if value not in (None, []):
            text = " ".join(map(str, value)) if isinstance(value, list) else str(value)
            table.add_row(f"[dim]{name}[/]", escape(cell(text, 400)))
    out.print(table)
