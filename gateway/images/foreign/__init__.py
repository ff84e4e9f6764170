"""Other programs' metadata in image files: how an image was made, as fields of our own requests. Pure.

Each file reads one program's layout. Missing fields are omitted, never guessed. All texts are untrusted: their length
is bounded (`gateway.images.file_texts`), and `gateway.images.provenance` checks the fields.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from gateway.images.foreign import a1111, comfyui, draw_things, fooocus, invokeai, novelai, swarmui
from gateway.images.foreign.values import DrawingFields

READERS: tuple[Callable[[Mapping[str, str]], DrawingFields | None], ...] = (
    swarmui.read,
    fooocus.read,
    invokeai.read,
    novelai.read,
    draw_things.read,
    a1111.read,
    comfyui.read,
)
"""Readers in order: first those whose texts name their program. A1111's text beside a ComfyUI graph was written by a
node for other readers, so it comes before the graph.
"""


def fields_in(texts: Mapping[str, str]) -> DrawingFields | None:
    """Fields of `gateway.images.provenance.Drawing` by name, unchecked; None if no program is recognised."""
    for read in READERS:
        if (fields := read(texts)) is not None:
            return fields
    return None
