"""Which words of a prompt the embedded model reads, and which are left away and told."""

from random import Random

import pytest

from engine.embedded import words
from engine.embedded.reading import Reading, read
from tools.train_embedded.drawing import SHAPES
from tools.train_embedded.edits import edit
from tools.train_embedded.icons import ICONS
from tools.train_embedded.pairs import sample_pair
from tools.train_embedded.scenes import COLOUR_WORDS, COLOURS, NOUNS, prompt, sample_scene

SILLYTAVERN = "best quality, absurdres, masterpiece, "
TEXT_GENERATION_WEBUI = "(Masterpiece:1.1), detailed, intricate, colorful, "
NOT_OBEYED = {"photo", "beautiful", "detailed", "4k", "high", "quality"}
"""Words that training prompts say, of which the pictures show nothing."""


def test_embedded_model_vocabulary_equals_that_of_training() -> None:
    assert set(words.SHAPES) == SHAPES.keys()
    assert set(words.ICONS) == ICONS.keys()
    assert set(words.COLOURS) == {word for colour in COLOURS for word in COLOUR_WORDS.get(colour, (colour,))}
    assert words.things() >= {name for names in NOUNS.values() for pair in names for name in pair}


def test_embedded_model_prompt_parser_reads_training_prompts_completely() -> None:
    rng = Random(1)
    for _ in range(2000):
        scene = sample_scene(rng, everything=True)
        assert set(read(prompt(scene, rng)).unread) <= NOT_OBEYED
        assert set(read(edit(scene, rng, everything=True).words, 1).unread) <= NOT_OBEYED
        said = sample_pair(rng).words
        assert read(said, 2) == Reading(said)


@pytest.mark.parametrize("tags", [SILLYTAVERN, TEXT_GENERATION_WEBUI, "((ultra detailed)), [8k], RAW photo:1.3, "])
@pytest.mark.parametrize(
    "text",
    [
        "a red circle on a blue background",
        "two green triangles on yellow",
        "a small pink heart in the top left corner on a black background",
        "a yellow star above a purple square",
    ],
)
def test_embedded_model_prompt_parser_drops_leading_and_trailing_tags(tags: str, text: str) -> None:
    for tagged in (tags + text, f"{text}, {tags}"):
        reading = read(tagged)
        assert reading.text == text
        assert reading.unread


@pytest.mark.parametrize(
    ("said", "text", "unread"),
    [
        ("(a red (circle:1.2)) on [blue]", "a red circle on blue", ()),
        ("red_circle, blue background", "red circle, blue background", ()),
        ("A vibrant red circle sits on deep blue", "a red circle on blue", ("vibrant", "sits", "deep")),
        ("a red circle, 2.5 cm", "a red circle", ("2.5", "cm")),
        ("a cat chasing a bird", "a cat and a bird", ("chasing",)),
        ("a majestic wizard with a red hat", "a red hat", ("majestic", "wizard")),
        ("an enormous circle", "a circle", ("enormous",)),
        ("red circle blue background", "red circle on blue background", ()),
        ("three stars, on the left, pink background", "three stars on the left, pink background", ()),
        ("please draw a house", "a house", ()),
        ("an astronaut riding a horse", "", ("astronaut", "riding", "horse")),
        ("кот и 一只猫", "", ("кот", "и", "一只猫")),
        ("a 🍎 on green", "on green", ("🍎",)),
        ("", "", ()),
        (", . ( ) : \\", "", ()),
    ],
)  # fmt: skip
def test_embedded_model_prompt_parser_drops_unknown_words_with_their_modifiers(
    said: str, text: str, unread: tuple[str, ...]
) -> None:
    assert read(said) == Reading(text, unread)


@pytest.mark.parametrize(
    ("said", "text"),
    [
        ("make it green", "make it green"),
        ("please change the color of the heart to red", "change the color of the heart to red"),
        ("turn the cat into a shiny star", "turn the cat into a star"),
        ("make the sky dark", ""),
    ],
)
def test_embedded_model_prompt_parser_reads_changes_of_one_image(said: str, text: str) -> None:
    assert read(said, 1).text == text


@pytest.mark.parametrize(
    ("said", "text"),
    [
        ("the cat of the first image by the star of the second", "the cat of picture 1 and the star of picture 2"),
        ("Put the star from image 2 next to the cat in image #1", "the star of picture 2 next to the cat of picture 1"),
        ("Add the star from the 2nd photo to the first photo", "the star of picture 2 beside picture 1"),
        ("Combine these two images", "picture 1 beside picture 2"),
        ("put them side by side on a green background", "picture 1 beside picture 2 on a green background"),
        ("", "picture 1 beside picture 2"),
    ],
)  # fmt: skip
def test_embedded_model_prompt_parser_reads_two_images_by_number(said: str, text: str) -> None:
    assert read(said, 2).text == text


def test_embedded_model_prompt_parser_reports_unknown_word_once() -> None:
    assert read("wizard, wizard, red WIZARD").unread == ("wizard",)


@pytest.mark.parametrize(
    "unit", ["a red circle beside ", "(", ":1", "the first ", "of ", "on top ", "x", "_", "(((a:1.1"]
)
def test_prompt_of_64_kib_is_parsed_in_linear_time(unit: str) -> None:
    for pictures in range(3):
        read((unit * 65_536)[:65_536], pictures)
