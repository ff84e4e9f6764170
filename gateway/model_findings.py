"""Findings about model files: those in the operator's folders that cannot be used, each with its reason."""

from __future__ import annotations

from collections.abc import Iterator

from gateway.errors import clip
from gateway.finding import Finding
from gateway.models.library import Library

SHOWN_MOST = 20
"""Files that are named; of the others their number is."""


def files_at_fault(library: Library) -> Iterator[Finding]:
    """A note for each file that the last look at the folders found unusable, and for missing folders. Blocks."""
    if missing := sum(not folder.is_dir() for folder in library.checkpoints.folders):
        remedy = "Connect the disk that it is on, or take it out of models.checkpoint_dirs."
        yield Finding("checkpoints", "note", f"{missing} of the folders of checkpoints are not there.", remedy)
    files = [
        *(("checkpoint", one.file_name, one.trouble) for one in library.checkpoints.troubles()),
        *(("VAE", one.name, one.trouble) for one in library.vaes.troubles()),
        *(("textual inversion", one.name, one.trouble) for one in library.embeddings.troubles()),
    ]
    for kind, name, trouble in files[:SHOWN_MOST]:
        yield Finding(f"{kind} {clip(name)}", "note", f"It is not listed. {trouble}")
    if (more := len(files) - SHOWN_MOST) > 0:
        yield Finding("model files", "note", f"{more} more files in the models' folders are not listed.")
