"""Command line: `python -m tools.train_sd_embedded --budget-minutes 90 --out sd-tiny`."""

from __future__ import annotations

import argparse
import json
import logging
import os
import sys
from functools import partial
from pathlib import Path
from tempfile import gettempdir

ALLOCATOR = {"MALLOC_MMAP_MAX_": "0", "MALLOC_TRIM_THRESHOLD_": "100000000000"}
"""Keep freed memory in the process; returning it between steps makes training several times slower."""

SHARES = {"diffusion": 0.85, "decoder": 0.15}
"""Shares of the training time, by stage; divided again where only some stages are run."""

STAGES = ("diffusion", "decoder", "export")


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tools.train_sd_embedded", description=__doc__)
    parser.add_argument("--budget-minutes", type=float, default=90.0, help="training time of all stages together")
    parser.add_argument("--out", type=Path, required=True, help="model folder to write")
    parser.add_argument("--work", type=Path, default=Path(gettempdir()) / "train-sd-embedded", help="checkpoints")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--kinds", choices=("first", "all"), default="all", help="the six first kinds, or all")
    parser.add_argument("--stages", nargs="+", choices=STAGES, default=STAGES)
    return parser.parse_args()


def _restart_with_allocator() -> None:
    if sys.platform == "linux" and any(os.environ.get(k) != v for k, v in ALLOCATOR.items()):
        command = [sys.executable, "-m", "tools.train_sd_embedded", *sys.argv[1:]]
        os.execve(sys.executable, command, os.environ | ALLOCATOR)


def main() -> None:
    """Run the stages in order; finished and interrupted ones continue from their checkpoints."""
    arguments = _arguments()
    _restart_with_allocator()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", datefmt="%H:%M:%S")

    from .autoencoder import train_decoder
    from .diffusion import train_diffusion
    from .export import export_model
    from .tokens import CompactTokens, trained_tokens

    work: Path = arguments.work
    work.mkdir(parents=True, exist_ok=True)
    facts_file = work / "facts.json"
    facts = json.loads(facts_file.read_text(encoding="utf-8")) if facts_file.exists() else {"seed": arguments.seed}
    facts.setdefault("kinds", arguments.kinds)
    facts.setdefault("tokens", trained_tokens())
    tokens = CompactTokens(facts["tokens"])
    trainings = {"diffusion": partial(train_diffusion, kinds=facts["kinds"], tokens=tokens), "decoder": train_decoder}
    whole = sum(SHARES.get(stage, 0.0) for stage in arguments.stages)
    for stage, train in trainings.items():
        if stage in facts or stage not in arguments.stages:
            continue
        facts_file.write_text(json.dumps(facts), encoding="utf-8")
        result = train(work, 60.0 * arguments.budget_minutes * SHARES[stage] / whole, arguments.seed)
        facts[stage] = {key: round(value, 4) for key, value in result.items()}
        facts_file.write_text(json.dumps(facts), encoding="utf-8")
    if "export" in arguments.stages:
        export_model(work, arguments.out, {key: value for key, value in facts.items() if key != "tokens"})


if __name__ == "__main__":
    main()
