"""The engine process with families at toy width.

`python -m tests.support.toy_engine NAME,NAME PRECISION [its own words]`.

NAMEs are of toys, one a family; PRECISION is float32 or bfloat16, which is what is computed with on a GPU.
"""

from __future__ import annotations

import sys
from contextlib import ExitStack
from typing import Any

from engine import __main__ as engine
from tests.support import toys, toys_further, toys_pictures

TOYS = {toy.name: toy for toy in (*toys.TOYS, *toys_pictures.TOYS, *toys_further.TOYS)}


def main() -> None:
    names, precision = sys.argv[1:3]
    del sys.argv[1:3]
    build = engine.build

    def precise(*given: Any, **named: Any) -> Any:
        """The backend, which on a CPU asks for float32."""
        import mlx.core as mx
        from mflux.models.common.config.model_config import ModelConfig

        backend = build(*given, **named)
        ModelConfig.precision = getattr(mx, precision)
        return backend

    engine.build = precise
    with ExitStack() as stack:
        for name in names.split(","):
            stack.enter_context(TOYS[name].in_place())
        engine.main()


if __name__ == "__main__":
    main()
