"""Command line: `python -m tools.train_embedded --budget-minutes 60 --out engine/embedded/flux2-tiny`."""

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

SHARES = {"flow": 0.6, "pairs": 0.22, "vae": 0.14, "lora": 0.04}
"""Shares of the training time, by stage; divided again where only some stages are run."""

STAGES = ("flow", "pairs", "vae", "lora", "export")


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tools.train_embedded", description=__doc__)
    parser.add_argument("--budget-minutes", type=float, default=60.0, help="training time of all stages together")
    parser.add_argument("--out", type=Path, required=True, help="model folder to write")
    parser.add_argument("--work", type=Path, default=Path(gettempdir()) / "train-embedded", help="checkpoints and data")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--kinds", choices=("first", "all"), default="first", help="the six first kinds, or all")
    parser.add_argument("--continue-from", type=Path, help="a trained model folder to begin with, where work is empty")
    parser.add_argument("--stages", nargs="+", choices=STAGES, default=STAGES)
    return parser.parse_args()


def _restart_with_allocator() -> None:
    if sys.platform == "linux" and any(os.environ.get(k) != v for k, v in ALLOCATOR.items()):
        os.execve(sys.executable, [sys.executable, "-m", "tools.train_embedded", *sys.argv[1:]], os.environ | ALLOCATOR)


def main() -> None:
    """Run the stages in order; finished and interrupted ones continue from their checkpoints."""
    arguments = _arguments()
    _restart_with_allocator()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", datefmt="%H:%M:%S")

    from .combining import train_pairs
    from .export import export_model, import_model
    from .flow import train_flow
    from .latents import fit_basis
    from .lora import train_lora
    from .tokenizer import build_tokenizer
    from .vae import train_vae

    work: Path = arguments.work
    work.mkdir(parents=True, exist_ok=True)
    facts_file = work / "facts.json"
    if arguments.continue_from and not facts_file.exists():
        facts_file.write_text(json.dumps(import_model(arguments.continue_from, work, arguments.seed)), encoding="utf-8")
    facts = json.loads(facts_file.read_text(encoding="utf-8")) if facts_file.exists() else {"seed": arguments.seed}
    facts.setdefault("kinds", arguments.kinds)
    if not (work / "tokenizer").exists():
        build_tokenizer(work / "tokenizer", arguments.seed)
    fit_basis(work / "basis.npz", arguments.seed)
    flow = partial(train_flow, kinds=facts["kinds"])
    trainings = {"flow": flow, "pairs": train_pairs, "vae": train_vae, "lora": train_lora}
    wanted = {stage: train for stage, train in trainings.items() if stage in arguments.stages and stage not in facts}
    whole = sum(SHARES.get(stage, 0.0) for stage in arguments.stages)
    for stage, train in wanted.items():
        result = train(work, 60.0 * arguments.budget_minutes * SHARES[stage] / whole, arguments.seed)
        facts[stage] = {key: round(value, 4) for key, value in result.items()}
        facts_file.write_text(json.dumps(facts), encoding="utf-8")
    if "export" in arguments.stages:
        export_model(work, arguments.out, facts)


if __name__ == "__main__":
    main()
