"""A gateway whose engine has families at toy width.

`python tests/support/toy_gateway.py NAME,NAME PRECISION [its own words]`.

The engine multiplies matrices with the BLAS of the process that runs the tests: their pixels are compared.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from pathlib import Path

if __name__ == "__main__":
    toys = sys.argv[1:3]
    del sys.argv[1:3]
    sys.path[0] = str(Path(__file__).resolve().parents[2])
    from api_main import main
    from engine.client import child
    from engine.client.options import EngineOptions
    from tests.support import PRELOADED

    arguments, environment = child.child_arguments, child.child_environment

    def toy_arguments(options: EngineOptions) -> list[str]:
        before, after = (words := arguments(options))[: (at := words.index("engine"))], words[at + 1 :]
        return [*before, "tests.support.toy_engine", *toys, *after]

    def toy_environment(options: EngineOptions, parent: Mapping[str, str]) -> dict[str, str]:
        return {**environment(options, parent), "LD_PRELOAD": os.environ.get(PRELOADED, "")}

    child.child_arguments, child.child_environment = toy_arguments, toy_environment
    main()
