"""What is said of a download to who waits for it, or may not start it. Pure."""

from __future__ import annotations

from dataclasses import dataclass

from gateway.jobs.facts import ModelDownloading
from gateway.models.lora_repositories import LORA


@dataclass(frozen=True, slots=True)
class DownloadStatus:
    """A download that waits or runs."""

    job_id: str
    model: str
    is_running: bool
    fact: ModelDownloading | None
    """How far it is; None before the sizes are known."""
    seconds_left: float | None


def on_its_way(model: str, coming: DownloadStatus | None) -> str:
    """For who does not wait for it."""
    if coming is None or coming.fact is None:
        return f"{model} is being downloaded; ask again in a minute."
    done, total = coming.fact.done_bytes / 1e9, coming.fact.total_bytes / 1e9
    return f"{model} is being downloaded: {done:.1f} of {total:.1f} GB are here. Ask again in a minute."


def not_yours(name: str) -> tuple[str, str]:
    """For who may not start it: a sentence, and the parameter; `name` is a model's, or a LoRA's with its prefix."""
    if name.startswith(LORA):
        what, how, param = f"LoRA {name.removeprefix(LORA)}", "drawing with it once", "loras"
    else:
        what, how, param = name, f"`mflux-gateway models pull {name}`", "model"
    return f"{what} is not on this machine, and this key may not download it: an operator can, by {how}.", param
