"""Entry point of the engine process, `python -m engine`. Its stdout carries the protocol, and nothing else."""

from __future__ import annotations

import argparse
import logging
import os
import sys

from engine.backends import BACKENDS, build
from engine.output import Wire
from engine.worker import Worker


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m engine", description="The engine process of the gateway.")
    parser.add_argument("--backend", choices=BACKENDS, required=True)
    parser.add_argument("--fake-script", metavar="JSON", help="what the fake backend does")
    parser.add_argument("--memory-limit", type=int, metavar="BYTES", help="instead of what the device says")
    parser.add_argument("--cache-limit", type=int, metavar="BYTES", help="freed memory that is kept for later")
    args = parser.parse_args()
    # The wire is a copy of stdout. File descriptor 1 then points at stderr, so a stray print cannot reach the parent.
    wire = Wire(os.dup(1))
    os.dup2(2, 1)
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s %(name)s: %(message)s")
    code = 1
    try:
        limits = {"memory_limit_bytes": args.memory_limit, "cache_limit_bytes": args.cache_limit}
        Worker(sys.stdin.buffer, wire, lambda: build(args.backend, args.fake_script, wire, **limits)).serve()
    except SystemExit as error:
        print(error, file=sys.stderr)
    except BaseException:
        logging.getLogger("engine").exception("the engine cannot go on")
    # The reader thread holds stdin; a normal exit would wait for its lock.
    sys.stderr.flush()
    os._exit(code)


if __name__ == "__main__":
    main()
