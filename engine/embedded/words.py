"""Words that the embedded model was trained on; it can draw nothing else."""


def _phrases(text: str) -> tuple[str, ...]:
    return tuple(" ".join(phrase.split()) for phrase in text.split(","))


SHAPES = _phrases("circle, square, triangle, star, heart, diamond, hexagon, cross, ring, oval, rectangle")

ICONS = _phrases("""
    house, tree, sun, moon, flower, boat, car, fish, face, apple, cloud, mushroom, cat, bird, butterfly, cup,
    rocket, key, umbrella, balloon, cherry, carrot, candle, bell, clock, book, envelope, flag, gift, crown, hat,
    shirt, hammer, lock, bottle, leaf, snowman, cactus, ghost, robot, bus, chair, camera, lightning, drop, egg,
    lollipop
""")

_OTHER_NAMES = _phrases("""
    disc, disk, dot, love heart, rhombus, plus sign, plus, hoop, ellipse, sailboat, ship, watch, mug, water drop,
    raindrop, fried egg, letter, smiley, smiling face, smiley face, present, top hat, home, lightning bolt, padlock,
    crescent moon, crescent, t-shirt
""")

_PLURALS = _phrases("""
    rhombuses, pluses, crosses, buses, butterflies, cacti, cactuses, cherries, watches, fishes, leaves, snowmen
""")

COLOURS = _phrases("""
    red, orange, yellow, green, cyan, turquoise, teal, blue, purple, violet, pink, brown, black, white, gray, grey
""")

COUNTS = _phrases("two, 2, a pair of, three, 3, four, 4")
SIZES = _phrases("small, little, tiny, large, big, huge")
PLACES = _phrases("""
    centered, center, centre, middle, top left corner, top right corner, bottom left corner, bottom right corner,
    top left, top right, bottom left, bottom right, left side, right side, top, bottom, left, right
""")
RELATIONS = _phrases("""
    above, over, on top of, below, under, beneath, left of, to the left of, on the left of, right of, to the right
    of, on the right of, and, next to, beside, with, against, in front of, on, in, at, of
""")
ARTICLES = _phrases("a, an, the, one")

CHANGES = _phrases("make, turn, paint, change, replace, put, color, colour, into, to, it, them")
"""Words that ask for a change of a reference image, besides the words above."""

COMBINING = _phrases("""
    combine, merge, join, blend, add, place, show, both, these, two pictures, two images, together, side by side,
    pictures, images, photos, drawings, all, one picture, one image
""")
"""Words that ask for two reference images in one. They are left out: nothing else is done with two."""

MEANINGLESS = _phrases("""
    draw, a picture of, an image of, a drawing of, please draw, show me, an illustration of, paint, picture of,
    image of, drawing of, illustration of, icon of, create, make, generate, please, simple, flat style, flat icon,
    minimalist, vector art, digital art, clean
""")
"""Words that ask for an image at all, or for what each image of this model is anyway. They are left out."""


def things() -> frozenset[str]:
    """Names of everything that the model draws, in the singular and the plural."""
    names = {*SHAPES, *ICONS, *_OTHER_NAMES}
    return frozenset(names | {f"{name}s" for name in names} | {*_PLURALS})
