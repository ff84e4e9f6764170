"""Wire format between the gateway and the OCR child: frames of bytes, and the messages in them.

A request is a frame of JSON and a frame with the document; its answers are frames of JSON. End of input: exit.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, TypeAdapter

from engine.protocol import UNCACHED, Frozen, ModelLoaded, ModelLoading
from gateway.jobs.facts import PageRead, Reading

MAX_ANSWER_BYTES = 16 * 1024 * 1024


class CountPages(Frozen):
    """Request for the number of pages of a PDF. Answered by Opening, then Counted or Refused."""

    kind: Literal["count_pages"] = "count_pages"


class Read(Frozen):
    """Request to read the pages from index `first` on. Answered by Reading, Rendered, PageRead for each, or Refused.

    Between the last two, Reading gives the page's progress.
    """

    kind: Literal["read"] = "read"
    pages: tuple[int, ...]
    """Pages of a PDF, counted from 1; empty if the document is an image."""
    dpi: float
    first: int
    page_s: float | None = None
    """Seconds after which the rest of a page is left unread; None: all of it is read."""


class Opening(Frozen):
    """Answer to CountPages: the child is ready, and from now on the document takes the time."""

    kind: Literal["opening"] = "opening"


class Rendered(Frozen):
    """Answer to Read: the page is rendered, and from now on reading it takes the time."""

    kind: Literal["rendered"] = "rendered"


class Counted(Frozen):
    """Answer to CountPages: the number of pages."""

    kind: Literal["counted"] = "counted"
    pages: int


class Refused(Frozen):
    """Answer: the document cannot be read; `message` is a sentence for the client."""

    kind: Literal["refused"] = "refused"
    message: str


class NotLoaded(Frozen):
    """Answer to Read: the reader could not be loaded; the log says why."""

    kind: Literal["not_loaded"] = "not_loaded"


Request = CountPages | Read
Answer = Opening | Rendered | Counted | Refused | NotLoaded | ModelLoading | ModelLoaded | Reading | PageRead

request_adapter: TypeAdapter[Request] = TypeAdapter(Annotated[Request, Field(discriminator="kind")], config=UNCACHED)
answer_adapter: TypeAdapter[Answer] = TypeAdapter(Annotated[Answer, Field(discriminator="kind")], config=UNCACHED)
