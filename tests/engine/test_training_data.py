"""What the embedded model is trained on and measured by: scenes, their pictures, and the reading of pictures."""

from collections import Counter
from random import Random

import numpy as np
import pytest

from tools.train_embedded.basis import Basis
from tools.train_embedded.drawing import SHAPES
from tools.train_embedded.edits import training_edit
from tools.train_embedded.icons import ICON_COLOURS, ICONS
from tools.train_embedded.judging import edit_cases, evaluation_scenes, icon_scenes, judge, pair_cases, ranked_icons
from tools.train_embedded.pairs import training_pair
from tools.train_embedded.scenes import COLOUR_WORDS, COLOURS, PLAINEST, Style, held_out, prompt, render, training_scene


def test_training_data_excludes_evaluation_data() -> None:
    rng = Random(1)
    assert not any(held_out(training_scene(rng, everything=True)) for _ in range(2000))
    assert all(held_out(scene) for scene in evaluation_scenes(50, 1))


def test_training_icons_are_forty_with_own_colours() -> None:
    assert len(ICONS) >= 40
    assert ICONS.keys() == ICON_COLOURS.keys()
    assert not ICONS.keys() & SHAPES.keys()
    assert {colour for colours in ICON_COLOURS.values() for colour in colours} <= COLOURS.keys()


def test_training_images_of_shapes_are_recognised_correctly() -> None:
    rng, right, asked = Random(2), Counter[str](), Counter[str]()
    for scene in evaluation_scenes(100, 3):
        verdict = judge(scene, render(scene, Style.sample(rng)))
        asked.update(verdict.keys())
        right.update(name for name, holds in verdict.items() if holds)
    assert right["shape"] >= 0.95 * asked["shape"]
    for name in asked.keys() - {"shape"}:
        assert right[name] == asked[name], name


def test_training_images_of_icons_are_recognised_correctly() -> None:
    rng = Random(4)
    scenes = icon_scenes(5, each=1)
    ranks = [ranked_icons(s, render(s, Style.sample(rng))).index(s.groups[0].kind) for s in scenes]
    assert sum(rank == 0 for rank in ranks) >= 0.9 * len(scenes)
    assert all(rank < 3 for rank in ranks)


def test_training_change_pairs_are_evaluated_on_held_out_data() -> None:
    rng = Random(1)
    edits = [training_edit(rng, everything=True) for _ in range(500)]
    assert not any(held_out(edit.before) or held_out(edit.after) for edit in edits)
    assert all(held_out(edit.after) for edit in edit_cases(30, 1))


def test_training_change_pair_differs_in_one_thing_named_by_its_prompt() -> None:
    for edit in edit_cases(100, 2):
        before, after = edit.before, edit.after
        assert before != after
        pairs = list(zip(before.groups, after.groups, strict=True))
        assert (before.background == after.background) == (edit.what != "background")
        assert all((one.kind == other.kind) == (edit.what != "kind") for one, other in pairs)
        assert sum(one.colour != other.colour for one, other in pairs) == (edit.what == "colour")
        assert edit.words


def test_training_images_of_changes_are_recognised_correctly() -> None:
    rng, right = Random(3), 0
    for edit in (cases := edit_cases(60, 3)):
        right += all(judge(edit.after, render(edit.after, Style.sample(rng))).values())
    assert right >= 0.95 * len(cases)


def test_training_pairs_are_evaluated_on_held_out_data() -> None:
    rng = Random(1)
    pairs = [training_pair(rng) for _ in range(500)]
    assert not any(held_out(scene) for pair in pairs for scene in (pair.first, pair.second, pair.after))
    assert all(held_out(pair.after) for pair in pair_cases(30, 1))


def test_training_data_pair_prompt_names_the_object_in_each_image() -> None:
    for pair in pair_cases(100, 2):
        one, other = pair.after.groups
        in_order = pair.words.find("2") < 0 or pair.words.find("1") < pair.words.find("2")
        for thing, scene in zip((one, other) if in_order else (other, one), (pair.first, pair.second), strict=True):
            assert thing.kind in {group.kind for group in scene.groups} or "picture" not in pair.words
        ground = pair.after.background
        assert ground is not None
        named = any(f" {word} background" in pair.words for word in COLOUR_WORDS.get(ground, (ground,)))
        assert named or ground == (pair.first.background or "white")


def test_training_images_of_pairs_are_recognised_correctly() -> None:
    right = sum(all(judge(pair.after, render(pair.after, PLAINEST)).values()) for pair in pair_cases(60, 3))
    assert right >= 0.95 * 60


def test_training_styles_of_a_scene_nearly_always_differ() -> None:
    rng, far = Random(9), 0
    for scene in evaluation_scenes(200, 77):
        one, other = (np.asarray(render(scene, Style.sample(rng)), dtype=float) for _ in range(2))
        far += float(np.sqrt(np.mean((one - other) ** 2))) > 8
    assert far >= 0.92 * 200


def test_training_evaluation_finds_no_objects_in_blank_image() -> None:
    scene = icon_scenes(1, each=1)[0]
    empty = render(scene, PLAINEST).copy()
    empty.paste((9, 9, 9), (0, 0, *empty.size))
    assert ranked_icons(scene, empty) == []
    assert not any(judge(scene, empty).values())


def test_training_styles_without_variety_draw_alike() -> None:
    scene, rng = evaluation_scenes(1, 6)[0], Random(1)
    assert render(scene, Style.sample(rng, 0.0)) == render(scene, Style.sample(rng, 0.0))
    assert render(scene, Style.sample(rng)) != render(scene, Style.sample(rng))


@pytest.mark.parametrize("seed", range(3))
def test_training_prompts_are_short_plain_and_many(seed: int) -> None:
    rng = Random(seed)
    texts = {prompt(training_scene(rng, everything=True), rng) for _ in range(300)}
    assert len(texts) > 290
    assert all(text == text.strip() and len(text) < 120 and text.isascii() for text in texts)


def test_latents_hold_a_picture_and_average_to_variance_1() -> None:
    rng = Random(8)
    pictures = np.stack([np.asarray(render(training_scene(rng, True), Style.sample(rng))) for _ in range(300)])
    basis = Basis.fit(pictures)
    tokens = basis.encode(pictures)
    assert tokens.shape == (300, 64, 128)
    assert 0.9 < tokens.var() < 1.1
    error = (basis.decode(tokens).astype(float) - pictures) ** 2
    assert -10 * np.log10(error.mean() / 255**2) > 30


def test_latent_basis_is_recovered_from_image_latents() -> None:
    rng = Random(8)
    pictures = np.stack([np.asarray(render(training_scene(rng, True), Style.sample(rng))) for _ in range(300)])
    basis = Basis.fit(pictures)
    latents = basis.latents(pictures) + np.random.default_rng(1).normal(0, 0.02, (300, 16, 16, 32))
    found = Basis.of_latents(pictures, latents.astype(np.float32))
    assert np.abs(found.encode(pictures) - basis.encode(pictures)).mean() < 0.03
