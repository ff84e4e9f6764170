"""The program's entry point: command line -> settings -> app -> server; commands of the client go to gateway.cli."""

from __future__ import annotations

import gc
import os
import sys
from collections.abc import Sequence

COMPLETION = "_MFLUX_GATEWAY_COMPLETE"
"""The environment variable that a shell sets to ask for completions."""


def main() -> None:
    """Run the command that the first word names; without a word, serve."""
    os.environ.setdefault("PYDANTIC_DISABLE_PLUGINS", "__all__")  # it would read the metadata of every package for them

    words = sys.argv[1:]
    first = words[0] if words else ""
    if first == "serve":
        serve(words[1:])
    elif first == "worker":
        work(words[1:])
    elif first == "version":
        serve(["--version"])
    elif COMPLETION in os.environ or first.endswith("-completion") or (first and not first.startswith("-")):
        from gateway.cli.app import main as command

        command(["--help"] if first == "help" else words, {"serve": serve, "worker": work})
    else:
        serve(words)


def work(words: Sequence[str]) -> None:
    """Run jobs of a queue that gateways fill, until a signal to stop. Exits as `serve` does."""
    gc.disable()

    from gateway.settings import SettingsError, load_settings

    try:
        settings = load_settings(words, os.environ, "worker")
    except SettingsError as error:
        sys.exit(_complain(error, 2))

    from gateway import logs
    from gateway.errors import GatewayError
    from gateway.http import open_files as descriptors
    from gateway.http.server import ServerError
    from gateway.shutdown import leave
    from gateway.worker import Worker

    logs.setup(settings.log.level)
    descriptors.raise_limit()
    try:
        Worker(settings).run()
    except (SettingsError, GatewayError) as error:
        sys.exit(_complain(error, 2))
    except ServerError as error:
        sys.exit(_complain(error, 1))
    leave()


def serve(words: Sequence[str]) -> None:
    """Serve until a signal to stop. Exits with 2 for invalid settings, 1 where the gateway cannot start."""
    gc.disable()  # what is imported is no garbage; the end of the start enables it

    from gateway.settings import SettingsError, load_settings

    try:
        settings = load_settings(words, os.environ)
    except SettingsError as error:
        sys.exit(_complain(error, 2))

    from adapters import PROTOCOLS
    from gateway import logs
    from gateway.errors import GatewayError
    from gateway.http import open_files as descriptors
    from gateway.http.server import ServerError, run
    from gateway.shutdown import leave
    from gateway.startup import Gateway

    logs.setup(settings.log.level)
    descriptors.raise_limit()
    try:
        settings = descriptors.fitted(settings)
    except OSError as error:
        sys.exit(_complain(error, 1))
    try:
        gateway = Gateway(settings, PROTOCOLS)
        run(gateway, settings, start=gateway.start, stopping=gateway.begin_stop, stop=gateway.stop)
    except (SettingsError, GatewayError) as error:
        sys.exit(_complain(error, 2))
    except ServerError as error:
        sys.exit(_complain(error, 1))
    leave()  # the interpreter's own shutdown takes seconds on a busy machine


def _complain(error: Exception, code: int) -> int:
    print(f"mflux-gateway: {error}", file=sys.stderr)
    return code


if __name__ == "__main__":
    main()
