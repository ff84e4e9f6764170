"""Random scenes: the content of an image, how it is rendered, and prompts that describe it."""

from collections.abc import Sequence
from dataclasses import dataclass
from random import Random
from zlib import crc32

from PIL import Image, ImageDraw

from engine.embedded.style import AXES, levels

from .drawing import SHAPES, Rgb
from .geometry import NATIVE_PX
from .icons import ICON_COLOURS, ICONS, paint

SUPERSAMPLING = 3
GRID_PX = 16
"""Objects are on the transformer's grid: it learns an outline once there, not once for every offset."""

ICON_SHARE = 0.5
"""Share of scenes with icons, once icons are used."""

Offset = tuple[float, float]

COLOURS: dict[str, Rgb] = {
    "red": (222, 35, 35),
    "orange": (245, 140, 25),
    "yellow": (250, 220, 40),
    "green": (45, 160, 60),
    "cyan": (40, 200, 210),
    "blue": (40, 80, 220),
    "purple": (130, 50, 175),
    "pink": (250, 135, 185),
    "brown": (125, 75, 40),
    "black": (18, 18, 20),
    "white": (250, 250, 250),
    "gray": (135, 135, 138),
}

NIGHT: Rgb = (14, 20, 62)

COLOUR_WORDS: dict[str, tuple[str, ...]] = {
    "cyan": ("cyan", "cyan", "turquoise", "teal"),
    "purple": ("purple", "purple", "purple", "violet"),
    "gray": ("gray", "grey"),
}

NOUNS: dict[str, tuple[tuple[str, str], ...]] = {
    "circle": (("circle", "circles"), ("circle", "circles"), ("disc", "discs"), ("disk", "disks"), ("dot", "dots")),
    "heart": (("heart", "hearts"), ("heart", "hearts"), ("love heart", "love hearts")),
    "diamond": (("diamond", "diamonds"), ("diamond", "diamonds"), ("rhombus", "rhombuses")),
    "cross": (("cross", "crosses"), ("cross", "crosses"), ("plus sign", "plus signs"), ("plus", "pluses")),
    "ring": (("ring", "rings"), ("ring", "rings"), ("hoop", "hoops")),
    "oval": (("oval", "ovals"), ("oval", "ovals"), ("ellipse", "ellipses")),
    "boat": (("boat", "boats"), ("boat", "boats"), ("sailboat", "sailboats"), ("ship", "ships")),
    "bus": (("bus", "buses"),),
    "butterfly": (("butterfly", "butterflies"),),
    "cactus": (("cactus", "cacti"), ("cactus", "cactuses")),
    "cherry": (("cherry", "cherries"),),
    "clock": (("clock", "clocks"), ("clock", "clocks"), ("watch", "watches")),
    "cup": (("cup", "cups"), ("cup", "cups"), ("mug", "mugs")),
    "drop": (("drop", "drops"), ("water drop", "water drops"), ("raindrop", "raindrops")),
    "egg": (("egg", "eggs"), ("fried egg", "fried eggs")),
    "envelope": (("envelope", "envelopes"), ("envelope", "envelopes"), ("letter", "letters")),
    "face": (
        ("face", "faces"),
        ("smiley", "smileys"),
        ("smiling face", "smiling faces"),
        ("smiley face", "smiley faces"),
    ),
    "fish": (("fish", "fish"), ("fish", "fishes")),
    "gift": (("gift", "gifts"), ("gift", "gifts"), ("present", "presents")),
    "hat": (("hat", "hats"), ("hat", "hats"), ("top hat", "top hats")),
    "house": (("house", "houses"), ("house", "houses"), ("home", "homes")),
    "leaf": (("leaf", "leaves"),),
    "lightning": (("lightning bolt", "lightning bolts"), ("lightning", "lightning bolts")),
    "lock": (("lock", "locks"), ("lock", "locks"), ("padlock", "padlocks")),
    "moon": (("moon", "moons"), ("crescent moon", "crescent moons"), ("crescent", "crescents")),
    "shirt": (("shirt", "shirts"), ("shirt", "shirts"), ("t-shirt", "t-shirts")),
    "snowman": (("snowman", "snowmen"),),
}
"""Singular and plural of each name of a kind; other kinds have their own name, and a plural with s."""

FIRST_KINDS = ("circle", "square", "triangle", "star", "heart", "diamond")
"""Kinds at the beginning of training: few, so that outlines, counts, colours and relations are learned soon."""

COUNT_WORDS = {2: ("two", "two", "2", "a pair of"), 3: ("three", "three", "3"), 4: ("four", "four", "4")}
SIZE_WORDS = {"small": ("small", "small", "little", "tiny"), "large": ("large", "big", "huge", "big")}

POSITIONS: dict[str, tuple[float, float]] = {
    "top left": (-1, -1),
    "top": (0, -1),
    "top right": (1, -1),
    "left": (-1, 0),
    "center": (0, 0),
    "right": (1, 0),
    "bottom left": (-1, 1),
    "bottom": (0, 1),
    "bottom right": (1, 1),
}

RELATIONS: dict[str, tuple[float, float]] = {"above": (0, -1), "below": (0, 1), "left": (-1, 0), "right": (1, 0)}
"""Direction of the first object as seen from the second."""

RELATION_WORDS: dict[str, tuple[str, ...]] = {
    "above": ("above", "above", "over", "on top of"),
    "below": ("below", "below", "under", "beneath"),
    "left": ("left of", "to the left of", "on the left of"),
    "right": ("right of", "to the right of", "on the right of"),
    "beside": ("and", "and", "next to", "beside", "with"),
}


@dataclass(frozen=True)
class Group:
    """Equal objects: their kind, colour (None: the icon's own), number and size (None: unspecified)."""

    kind: str
    colour: str | None
    count: int = 1
    size: str | None = None


@dataclass(frozen=True)
class Scene:
    """One group, or two single objects with a relation, on a background (None: unspecified)."""

    groups: tuple[Group, ...]
    background: str | None
    position: str | None = None
    relation: str | None = None


def held_out(scene: Scene) -> bool:
    """Whether the scene contains a kind, colour and background that training never combines."""
    return any(crc32(f"{g.kind}/{g.colour}/{scene.background}".encode()) % 10 == 0 for g in scene.groups if g.colour)


def _colour_for(kind: str, background: str | None, rng: Random) -> str | None:
    if kind in ICONS and rng.random() < 0.4:
        return None
    return rng.choice([c for c in COLOURS if c != (background or "white")])


def own_colour(kind: str, background: str | None) -> str:
    """Colour of an icon whose prompt names none."""
    return next((c for c in ICON_COLOURS[kind] if c != (background or "white")), "gray")


def sample_scene(rng: Random, everything: bool = False) -> Scene:
    """A random scene of the first kinds, or of all shapes and icons."""
    shapes = tuple(SHAPES) if everything else FIRST_KINDS
    has_icons = everything and rng.random() < ICON_SHARE

    def kind() -> str:
        return rng.choice(list(ICONS) if has_icons and rng.random() < 0.9 else shapes)

    background = rng.choice(list(COLOURS)) if rng.random() < 0.85 else None
    layout = rng.random()
    if layout < (0.1 if has_icons else 0.2):
        first, second = kind(), kind()
        colours = [_colour_for(first, background, rng), _colour_for(second, background, rng)]
        sizes = rng.choice(((None, None), (None, None), ("small", "large"), ("large", "small")))
        groups = tuple(Group(k, c, 1, s) for k, c, s in zip((first, second), colours, sizes, strict=True))
        return Scene(groups, background, None, rng.choice((*RELATIONS, *RELATIONS, "beside")))
    what = kind()
    colour = _colour_for(what, background, rng)
    if layout < (0.2 if has_icons else 0.4):
        return Scene((Group(what, colour, rng.choice((2, 2, 3, 3, 4))),), background)
    size = rng.choice((None, None, "small", "large"))
    position = rng.choice(list(POSITIONS)) if size != "large" and rng.random() < 0.25 else None
    return Scene((Group(what, colour, 1, size),), background, position)


def training_scene(rng: Random, everything: bool) -> Scene:
    """A random scene that is not held out."""
    while held_out(scene := sample_scene(rng, everything)):
        pass
    return scene


class Style:
    """Properties that a prompt leaves open, as deviations from the plainest image."""

    SHIFT_X, SHIFT_Y, SIZE, SLANT = range(len(AXES))

    def __init__(self, numbers: Sequence[float], variety: float = 1.0) -> None:
        self.numbers = tuple(numbers)
        self._variety = variety

    @classmethod
    def sample(cls, rng: Random, variety: float = 1.0) -> "Style":
        """A random style; `variety` from 0 (all alike) to 1 is its distance from the plainest one."""
        return cls([rng.random() for _ in AXES], variety)

    def swing(self, axis: int) -> float:
        """The level of an axis as a deviation, between -1 and 1."""
        return self._variety * (2.0 * (levels(self.numbers)[axis] + 0.5) / len(AXES[axis]) - 1.0)


PLAINEST = Style([0.5] * len(AXES))


def _grid(length: float) -> float:
    return GRID_PX * round(length / GRID_PX)


def _shift(offsets: list[Offset], radius: float, style: Style, most: int) -> list[Offset]:
    """Move a layout within the image by up to `most` grid steps."""
    moves = []
    for axis, number in ((0, Style.SHIFT_X), (1, Style.SHIFT_Y)):
        room = NATIVE_PX / 2 - max(abs(o[axis]) for o in offsets) - 1.1 * radius
        steps = min(most, int(max(room, 0.0) / GRID_PX))
        moves.append(_grid(GRID_PX * steps * style.swing(number)))
    return [(x + moves[0], y + moves[1]) for x, y in offsets]


def _spread(count: int, style: Style) -> list[Offset]:
    """Offsets of equal objects that do not touch: a row, a triangle, a square, or a rotated square."""
    slant = _grid(GRID_PX * style.swing(Style.SLANT))
    if count == 2:
        return [(-32, -slant), (32, slant)]
    if count == 3:
        down = -32 if style.swing(Style.SHIFT_Y) < 0 else 32
        return [(-32, down), (slant, -down), (32, down)]
    if slant > 0:
        return [(0, -32), (-32, 0), (32, 0), (0, 32)]
    return [(-32, -32 - slant), (32 + slant, -32), (-32 - slant, 32), (32, 32 + slant)]


def _in_corner(position: str, style: Style) -> Offset:
    """Centre of an object at an edge or in a corner, nearer to it or further away."""
    place = []
    for side, number in zip(POSITIONS[position], (Style.SHIFT_X, Style.SHIFT_Y), strict=True):
        swing = style.swing(number)
        place.append(side * (40 if swing > 0 else 32) if side else _grid(GRID_PX * swing))
    return place[0], place[1]


def _place_pair(scene: Scene, style: Style) -> list[tuple[Group, Offset, float]]:
    dx, dy = RELATIONS.get(scene.relation or "", (-1, 0))
    radii = [
        {"small": 13, "large": 26}.get(group.size or "", 20) * (1 + sign * 0.12 * style.swing(Style.SIZE))
        for group, sign in zip(scene.groups, (1, -1), strict=True)
    ]
    drift = _grid(GRID_PX * style.swing(Style.SHIFT_Y if dx else Style.SHIFT_X))
    slant = _grid(GRID_PX * style.swing(Style.SLANT))
    first, second = [
        (sign * dx * 32 if dx else drift + sign * slant, sign * dy * 32 if dy else drift + sign * slant)
        for sign in (1, -1)
    ]
    return list(zip(scene.groups, (first, second), radii, strict=True))


def _place(scene: Scene, style: Style) -> list[tuple[Group, Offset, float]]:
    """Group, offset from the centre and radius of each object."""
    if scene.relation:
        return _place_pair(scene, style)
    group = scene.groups[0]
    swing = style.swing(Style.SIZE)
    if group.count > 1:
        radius = {2: 21, 3: 18, 4: 17}[group.count] * (1 + 0.15 * swing)
        return [(group, offset, radius) for offset in _shift(_spread(group.count, style), radius, style, most=1)]
    if scene.position:
        radius = (13 if group.size == "small" else 17) * (1 + 0.15 * swing)
        return [(group, _in_corner(scene.position, style), radius)]
    if group.size == "large":
        radius = 40 * (1 + 0.06 * swing)
        return [(group, _shift([(0, 0)], radius, style, most=1)[0], radius)]
    radius = (16 if group.size == "small" else 28) * (1 + 0.15 * swing)
    return [(group, _shift([(0, 0)], radius, style, most=2)[0], radius)]


def render(scene: Scene, style: Style, night: bool = False) -> Image.Image:
    """Image of a scene in a style; at night every background is the same dark blue."""
    scale = SUPERSAMPLING
    ground = NIGHT if night else COLOURS[scene.background or "white"]
    image = Image.new("RGB", (NATIVE_PX * scale,) * 2, ground)
    draw = ImageDraw.Draw(image)
    half = NATIVE_PX / 2
    for group, (x, y), radius in _place(scene, style):
        centre = ((half + x) * scale, (half + y) * scale)
        colour = COLOURS[group.colour or own_colour(group.kind, scene.background)]
        paint(draw, group.kind, centre, radius * scale, colour, ground)
    return image.reduce(SUPERSAMPLING)


def name_of(group: Group, rng: Random) -> str:
    """One of the names of a kind, in the plural where there are several."""
    return rng.choice(NOUNS.get(group.kind, ((group.kind, f"{group.kind}s"),)))[group.count > 1]


def said(colour: str, rng: Random) -> str:
    """One of the words for a colour."""
    return rng.choice(COLOUR_WORDS.get(colour, (colour,)))


def with_article(words: str) -> str:
    return f"{'an' if words[0] in 'aeiou' else 'a'} {words}"


def _noun(group: Group, rng: Random) -> str:
    words = [name_of(group, rng)]
    if group.colour:
        words.insert(0, said(group.colour, rng))
    if group.size:
        words.insert(0, rng.choice(SIZE_WORDS[group.size]))
    return " ".join(words)


def _phrase(group: Group, rng: Random) -> str:
    noun = _noun(group, rng)
    if group.count > 1:
        return f"{rng.choice(COUNT_WORDS[group.count])} {noun}"
    article = "an" if noun[0] in "aeiou" else "a"
    return f"{rng.choice((article, article, article, article, 'one', 'the', '', ''))} {noun}".strip()


def _position_phrase(position: str, rng: Random) -> str:
    if position == "center":
        return rng.choice(("in the center", "in the middle", "at the center", "in the centre", "centered"))
    if " " in position:
        return rng.choice((f"in the {position} corner", f"in the {position}", f"at the {position}", f"{position}"))
    if position in ("left", "right"):
        return rng.choice((f"on the {position}", f"at the {position}", f"on the {position} side", position))
    return rng.choice((f"at the {position}", f"at the {position}", f"on the {position}", position))


_LEADS = (
    "draw",
    "a picture of",
    "an image of",
    "a drawing of",
    "please draw",
    "show me",
    "an illustration of",
    "paint",
    "a photo of",
    "picture of",
    "image of",
    "create",
    "make",
    "generate",
)
_TAILS = (
    "please",
    "simple",
    "flat style",
    "minimalist",
    "flat icon",
    "high quality",
    "4k",
    "vector art",
    "detailed",
    "clean",
    "digital art",
    "beautiful",
)


def prompt(scene: Scene, rng: Random) -> str:
    """One of the many ways to ask for a scene."""
    body = _phrase(scene.groups[0], rng)
    if scene.relation:
        words = rng.choice(RELATION_WORDS[scene.relation])
        body = f"{body} {words} {_phrase(scene.groups[1], rng)}"
    if scene.position:
        body = f"{body} {_position_phrase(scene.position, rng)}"
    if scene.background:
        colour = said(scene.background, rng)
        background = f"{colour} background"
        one = with_article(background)
        form = rng.random()
        if form < 0.45:
            body = f"{body} on {one}"
        elif form < 0.7:
            body = f"{body} on {colour}"
        elif form < 0.76:
            body = f"{body} with {one}"
        elif form < 0.82:
            body = f"{body}, {background}"
        elif form < 0.86:
            body = f"{body} {rng.choice(('against', 'over', 'in front of'))} {one}"
        elif form < 0.9:
            body = f"{background} with {body}"
        elif form < 0.94:
            body = f"{one} with {body}"
        elif form < 0.97:
            body = f"{background}, {body}"
        else:
            body = f"on {one}, {body}"
    if rng.random() < 0.2:
        body = f"{rng.choice(_LEADS)} {body}"
    if rng.random() < 0.1:
        body = f"{body}, {rng.choice(_TAILS)}"
    elif rng.random() < 0.1:
        body = f"{body}."
    return body
