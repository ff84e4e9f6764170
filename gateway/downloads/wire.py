"""The messages between the gateway and the download child. The child exits at the end of its input."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, TypeAdapter

from engine.catalog import HubFiles
from engine.protocol import UNCACHED, Frozen

MAX_ANSWER_BYTES = 1024 * 1024


def offline_sentence(name: str) -> str:
    """Why nothing can be downloaded in the offline mode of the hub's client."""
    return (
        f"{name} is not on this machine and HF_HUB_OFFLINE is set. Start the gateway without it, or put the files into "
        "the models folder."
    )


class Fetch(Frozen):
    """The request: fetch the missing files of these repositories into the models folder."""

    models_dir: str
    sources: tuple[HubFiles, ...]
    fall_back: tuple[str, ...] = ()
    """Repositories of which `main` is downloaded where the requested commit no longer exists."""
    lists_only: bool = False
    """Whether only the lists of files are fetched."""


class Had(Frozen):
    """Answer, twice a second once the sizes are known: the bytes on disk, and in all."""

    kind: Literal["had"] = "had"
    done_bytes: int
    total_bytes: int


class Fetched(Frozen):
    """Answer: all files are checked and in their places."""

    kind: Literal["fetched"] = "fetched"


class NotFetched(Frozen):
    """Answer: the download failed; `message` is a sentence for the client with the next step."""

    kind: Literal["not_fetched"] = "not_fetched"
    code: Literal["model_missing", "disk_full"]
    message: str
    is_of_the_disk: bool = False
    """Whether the models folder is at fault: the same download continues once it works again."""
    needed_bytes: int = 0
    """Bytes that must be free there; 0 where that is not known."""


Answer = Had | Fetched | NotFetched

answer: TypeAdapter[Answer] = TypeAdapter(Annotated[Answer, Field(discriminator="kind")], config=UNCACHED)
