"""The command line of mflux-gateway with all its commands."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Annotated

import typer

from gateway.cli.doctor import doctor
from gateway.cli.drawing import generate
from gateway.cli.failure import Exit, Failure
from gateway.cli.jobs import cancel, jobs, queue
from gateway.cli.models import loras, models
from gateway.cli.options import err
from gateway.cli.workers import workers

app = typer.Typer(
    name="mflux-gateway",
    help="Generate images and manage a gateway. Commands use the gateway that runs here, or --url; "
    "generate, jobs, models and loras start one for the time of the command if none runs.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command()(generate)
app.add_typer(queue, name="queue")
app.command()(jobs)
app.command()(cancel)
app.add_typer(models, name="models")
app.add_typer(loras, name="loras")
app.add_typer(workers, name="workers")
app.command()(doctor)


@app.command(context_settings={"ignore_unknown_options": True, "allow_extra_args": True}, add_help_option=False)
def serve(
    context: typer.Context, arguments: Annotated[list[str] | None, typer.Argument(metavar="[OPTIONS]")] = None
) -> None:
    """Start the server, like mflux-gateway without a command; --help shows its options."""
    context.obj["serve"](arguments or [])


@app.command(context_settings={"ignore_unknown_options": True, "allow_extra_args": True}, add_help_option=False)
def worker(
    context: typer.Context, arguments: Annotated[list[str] | None, typer.Argument(metavar="[OPTIONS]")] = None
) -> None:
    """Run jobs of a queue that gateways fill, without a port; --help shows its options."""
    context.obj["worker"](arguments or [])


def main(argv: Sequence[str], programs: Mapping[str, Callable[[Sequence[str]], None]]) -> None:
    """Run one command and exit with its code; `programs` are what the commands serve and worker call."""
    try:
        app(list(argv), prog_name="mflux-gateway", obj=programs)
    except Failure as failure:
        err.print(f"mflux-gateway: {failure}", markup=False, soft_wrap=True)
        sys.exit(failure.code)
    except KeyboardInterrupt:
        sys.exit(Exit.INTERRUPTED)
