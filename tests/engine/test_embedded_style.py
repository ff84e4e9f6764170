"""What the seed settles for the embedded model before it draws."""

from engine.embedded.style import AXES, between, centre_position, levels, style_numbers, with_style
from tools.train_embedded.scenes import COLOUR_WORDS, COLOURS, NOUNS


def test_a_style_is_one_character_an_axis_before_the_prompt() -> None:
    assert with_style("a red circle", [0.0, 0.5, 0.99, 1.0]) == "!<_~ a red circle"


def test_no_character_stands_for_two_things_or_occurs_in_prompts() -> None:
    characters = "".join(AXES)
    assert len(set(characters)) == len(characters)
    words = [*COLOURS, *(word for words in COLOUR_WORDS.values() for word in words)]
    words += [word for pairs in NOUNS.values() for pair in pairs for word in pair]
    assert not set(characters) & set("".join(words) + " .,-'")


def test_seeds_settle_different_styles_for_good() -> None:
    assert style_numbers(7) == style_numbers(7)
    assert len({levels(style_numbers(seed)) for seed in range(100)}) > 60


def test_subseeds_lead_from_one_style_to_another() -> None:
    one, other = style_numbers(1), style_numbers(2)
    assert between(one, other, 0) == one
    assert between(one, other, 1) == other


def test_centred_stands_in_the_middle_and_keeps_the_rest() -> None:
    numbers = style_numbers(3)
    assert levels(centre_position(numbers)) == (len(AXES[0]) // 2, len(AXES[1]) // 2, *levels(numbers)[2:])
