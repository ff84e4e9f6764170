"""What the seed settles for the embedded model before it draws."""

from engine.embedded.style import AXES, between, centre_position, levels, style_numbers, with_style
from tools.train_embedded.scenes import COLOUR_WORDS, COLOURS, NOUNS


def test_embedded_model_style_is_one_character_per_axis_before_prompt() -> None:
    assert with_style("a red circle", [0.0, 0.5, 0.99, 1.0]) == "!<_~ a red circle"


def test_embedded_model_style_characters_are_unique_and_absent_from_prompts() -> None:
    characters = "".join(AXES)
    assert len(set(characters)) == len(characters)
    words = [*COLOURS, *(word for words in COLOUR_WORDS.values() for word in words)]
    words += [word for pairs in NOUNS.values() for pair in pairs for word in pair]
    assert not set(characters) & set("".join(words) + " .,-'")


def test_training_style_is_fixed_by_seed() -> None:
    assert style_numbers(7) == style_numbers(7)
    assert len({levels(style_numbers(seed)) for seed in range(100)}) > 60


def test_embedded_model_subseed_interpolates_between_styles() -> None:
    one, other = style_numbers(1), style_numbers(2)
    assert between(one, other, 0) == one
    assert between(one, other, 1) == other


def test_embedded_model_centred_style_places_object_in_middle_and_keeps_other_axes() -> None:
    numbers = style_numbers(3)
    assert levels(centre_position(numbers)) == (len(AXES[0]) // 2, len(AXES[1]) // 2, *levels(numbers)[2:])
