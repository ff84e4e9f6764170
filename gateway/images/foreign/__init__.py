"""What pictures of other programs say of how they were drawn, in the words of our own requests. Pure.

Each file reads one program's layout. What a picture does not say is left out, never guessed. All texts come from
strangers: they are of bounded length (`gateway.images.file_texts`), and what is found is checked by
`gateway.images.provenance`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from gateway.images.foreign import a1111, comfyui, draw_things, fooocus, invokeai, novelai, swarmui
from gateway.images.foreign.values import Said

READERS: tuple[Callable[[Mapping[str, str]], Said | None], ...] = (
    swarmui.read,
    fooocus.read,
    invokeai.read,
    novelai.read,
    draw_things.read,
    a1111.read,
    comfyui.read,
)
"""Those whose texts name themselves come first. A1111's text beside a graph of ComfyUI's is that of a node that saves
pictures so, and was made for readers: it comes before the graph.
"""


def said_in(texts: Mapping[str, str]) -> Said | None:
    """Fields of `gateway.images.provenance.Drawing` by name, unchecked; None where no program is known by the texts."""
    for read in READERS:
        if (said := read(texts)) is not None:
            return said
    return None
