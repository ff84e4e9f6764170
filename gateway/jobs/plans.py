"""Plans that run outside the engine (OCR, downloads), the union of all plans of a job, and the lane of each."""

from __future__ import annotations

from typing import Annotated, Literal, assert_never

from pydantic import Field

from engine.catalog import HubFiles
from engine.protocol import Frozen, Generate, Load, Upscale


class Ocr(Frozen):
    """Read the text of a picture, or of pages of a PDF."""

    kind: Literal["ocr"] = "ocr"
    model: str = "rapidocr"
    document: str
    """Blob: a checked PNG, or a PDF as it came."""
    pages: tuple[int, ...] = ()
    """Pages of the PDF in the order of the answer, counted from 1; empty where the document is a picture."""
    dpi: float = 200.0
    """How finely pages are rendered."""

    @property
    def inputs(self) -> frozenset[str]:
        """All blobs the plan names."""
        return frozenset({self.document})

    @property
    def count(self) -> int:
        """Pages to read; a picture is one."""
        return len(self.pages) or 1


class Download(Frozen):
    """Fetch the weights of a model from the hub."""

    kind: Literal["download"] = "download"
    model: str
    sources: tuple[HubFiles, ...]
    """The repositories the model needs, its own first."""

    @property
    def inputs(self) -> frozenset[str]:
        """All blobs the plan names: none."""
        return frozenset()


Plan = Annotated[Generate | Upscale | Load | Ocr | Download, Field(discriminator="kind")]
EngineJob = Generate | Upscale | Load
"""What a job may have the engine do."""
Lane = Literal["engine", "cpu", "network"]
LANES: tuple[Lane, ...] = ("engine", "cpu", "network")


def lane_of(plan: EngineJob | Ocr | Download) -> Lane:
    """Where a plan runs: one runner a lane."""
    match plan:
        case Generate() | Upscale() | Load():
            return "engine"
        case Ocr():
            return "cpu"
        case Download():
            return "network"
        case _:
            assert_never(plan)
