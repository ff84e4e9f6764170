"""What travels between the gateway and the process that downloads. End of input: leave."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, TypeAdapter

from engine.catalog import HubFiles
from engine.protocol import Frozen

MAX_ANSWER_BYTES = 1024 * 1024


def offline_sentence(name: str) -> str:
    """Why nothing comes while the hub's client is told to stay offline."""
    return (
        f"{name} is not on this machine and HF_HUB_OFFLINE is set. Start the gateway without it, or put the files into "
        "the models folder."
    )


class Fetch(Frozen):
    """The one request: bring what is missing of these repositories into the models folder."""

    models_dir: str
    sources: tuple[HubFiles, ...]
    fall_back: tuple[str, ...] = ()
    """Repositories that are taken at `main` where the commit that is asked for is gone."""
    lists_only: bool = False
    """Only the lists of what they have."""


class Had(Frozen):
    """Answer, about once a second as soon as the sizes are known: so many bytes of them all lie on disk."""

    kind: Literal["had"] = "had"
    done_bytes: int
    total_bytes: int


class Fetched(Frozen):
    """Answer: all of it is in its place, checked."""

    kind: Literal["fetched"] = "fetched"


class NotFetched(Frozen):
    """Answer: it cannot be had; `message` is a sentence for the client, with what to do about it."""

    kind: Literal["not_fetched"] = "not_fetched"
    code: Literal["model_missing", "disk_full"]
    message: str
    is_of_the_disk: bool = False
    """The models folder is at fault, and no download: the same goes on once it is mended."""
    needed_bytes: int = 0
    """What must be free there, where that is known."""


Answer = Had | Fetched | NotFetched

answer: TypeAdapter[Answer] = TypeAdapter(Annotated[Answer, Field(discriminator="kind")])
