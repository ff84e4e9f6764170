"""A gateway that writes down what it should never do.

`python tests/support/audited_gateway.py LOG FOLDER [its own words]`.

LOG gets a line for each file opened or removed outside FOLDER, Python's own folders and the system's, for each address
beyond loopback, each program but its own children, each pickle that is read.
"""

from __future__ import annotations

import os
import sys
import sysconfig
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
LOG, FOLDER = (os.path.realpath(argument) for argument in sys.argv[1:3])
PYTHONS = {sys.prefix, sys.base_prefix, sys.exec_prefix, *sysconfig.get_paths().values()}
SYSTEM = ("/proc", "/sys", "/dev", "/usr", "/lib", "/System", "/Library", "/opt", "/private/var/db", "/etc/ssl")
ETC = ("/etc/mime.types", "/etc/localtime", "/etc/ld.so.cache", "/etc/nsswitch.conf", "/etc/hosts", "/etc/resolv.conf")
HUB = os.environ.get("HF_HOME", "~/.cache/huggingface")
"""The library looks for models there."""
ALLOWED = tuple(
    os.path.realpath(os.path.expanduser(path)) for path in (ROOT, FOLDER, HUB, os.devnull, *PYTHONS, *SYSTEM, *ETC)
)
FILES = {"open", "os.remove", "os.rename", "os.rmdir", "os.mkdir", "os.listdir", "os.scandir", "os.symlink", "os.link"}
NAMES = {"socket.getaddrinfo", "socket.gethostbyname", "socket.gethostbyaddr"}
LOOPBACK = ("127.", "::1", "localhost", "0.0.0.0", "None")
RUNS_CODE = {"os.system", "os.exec", "pickle.find_class"}


def hook(event: str, arguments: tuple[Any, ...]) -> None:
    """As sys.addaudithook takes it."""
    if event in FILES and isinstance(arguments[0], str | bytes):
        path = os.fsdecode(arguments[0])
        # A bare name is looked up below an open folder, or the one it runs in.
        if "/" in path and not os.path.realpath(path).startswith(ALLOWED):
            tell(event, path)
    elif event == "socket.connect" and isinstance(arguments[1], tuple):
        tell(event, str(arguments[1][0]), known=LOOPBACK)
    elif event in NAMES:
        tell(event, str(arguments[0]), known=LOOPBACK)
    elif event == "subprocess.Popen":
        tell(event, str(arguments[0]), known=(sys.executable,))
    elif event in RUNS_CODE:
        tell(event, repr(arguments)[:100])


def tell(event: str, what: str, known: tuple[str, ...] = ()) -> None:
    if not known or not what.startswith(known):
        os.write(out, f"{event} {what}\n".encode())


if __name__ == "__main__":
    out = os.open(LOG, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    del sys.argv[1:3]
    sys.path[0] = str(ROOT)
    sys.addaudithook(hook)
    from api_main import main

    main()
