"""Command line -> settings -> app -> server. Nothing else."""

from __future__ import annotations

import os
import sys


def main() -> None:
    """Serve until told to stop. Exits with 2 for settings that cannot be, 1 where the gateway cannot start."""
    from gateway.settings import SettingsError, load_settings

    try:
        settings = load_settings(sys.argv[1:], os.environ)
    except SettingsError as error:
        sys.exit(_complain(error, 2))

    from adapters import ADAPTERS
    from gateway import logs
    from gateway.app import build_app, build_core
    from gateway.errors import GatewayError
    from gateway.server import ServerError, run

    logs.setup(settings.log.level)
    try:
        core = build_core(settings)
        app = build_app(core, ADAPTERS)
    except (SettingsError, GatewayError) as error:
        sys.exit(_complain(error, 2))
    print(core.greeting(), file=sys.stderr)
    try:
        run(app, settings, stopping=core.service.begin_stop)
    except ServerError as error:
        sys.exit(_complain(error, 1))


def _complain(error: Exception, code: int) -> int:
    print(f"mflux-gateway: {error}", file=sys.stderr)
    return code


if __name__ == "__main__":
    main()
