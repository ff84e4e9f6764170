"""Generators have the values of PyTorch's, on a CPU and on NVIDIA's cards."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.noise import CpuGenerator, PhiloxGenerator, create_generator
from engine.noise.philox import philox4x32

FOLDER = Path(__file__).parents[2] / "golden" / "stable_diffusion"
FACTS: dict[str, Any] = json.loads((FOLDER / "noise.json").read_text(encoding="utf-8"))
ONES = 0xFFFFFFFF
FEW = settings(max_examples=30)
SEEDS = st.integers(0, 2**64 - 1)


@pytest.mark.parametrize("seed", FACTS["seeds"])
def test_cpu_generator_continues_as_pytorchs_does(seed: int) -> None:
    """Counts below 16, of whole blocks and with a rest, one after the other from one generator."""
    generator = CpuGenerator(seed)
    values = np.concatenate([generator.normal(count) for count in FACTS["counts"]])
    with np.load(FOLDER / "noise.npz", allow_pickle=False) as golden:
        expected = golden[f"cpu {seed}"]
    assert values.dtype == np.float32
    np.testing.assert_allclose(values, expected, rtol=0, atol=2.5e-7)


def test_cpu_generator_takes_the_lowest_32_bits_of_a_seed() -> None:
    assert np.array_equal(CpuGenerator(2**32 + 5).normal(20), CpuGenerator(5).normal(20))


@FEW
@given(SEEDS, st.lists(st.integers(1, 6), min_size=1, max_size=4))
def test_cpu_generator_draws_whole_blocks_alike_at_once_or_one_by_one(seed: int, blocks: list[int]) -> None:
    generator = CpuGenerator(seed)
    values = np.concatenate([generator.normal(16 * count) for count in blocks])
    assert np.array_equal(values, CpuGenerator(seed).normal(16 * sum(blocks)))


@FEW
@given(SEEDS, st.integers(17, 100))
def test_cpu_generator_draws_the_last_block_anew_where_there_is_a_rest(seed: int, count: int) -> None:
    whole = count // 16 * 16
    if whole < count:
        rest = count - 16
        assert np.array_equal(CpuGenerator(seed).normal(count)[:rest], CpuGenerator(seed).normal(whole)[:rest])


@FEW
@given(SEEDS, st.integers(0, 100))
def test_generators_draw_as_many_values_as_asked_for(seed: int, count: int) -> None:
    for source in ("CPU", "NV"):
        values = create_generator(source, seed).normal(count)
        assert values.shape == (count,)
        assert np.isfinite(values).all()


@pytest.mark.parametrize(
    ("counter", "key", "expected"),
    [
        ((0, 0, 0, 0), (0, 0), (0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8)),
        ((ONES, ONES, ONES, ONES), (ONES, ONES), (0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD)),
        (
            (0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344),
            (0xA4093822, 0x299F31D0),
            (0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1),
        ),
    ],
)
def test_philox_has_the_known_answers_of_random123(
    counter: tuple[int, ...], key: tuple[int, int], expected: tuple[int, ...]
) -> None:
    first, second, third, fourth = (np.array([word], np.uint64) for word in counter)
    assert tuple(int(word[0]) for word in philox4x32((first, second, third, fourth), key)) == expected


def test_philox_begins_as_a1111_writes_it() -> None:
    expected = [
        *(-0.92466259, -0.42534415, -2.6438457, 0.14518388, -0.12086647, -0.57972564),
        *(-0.62285122, -0.32838709, -1.07454231, -0.36314407, -1.67105067, 2.26550497),
    ]
    np.testing.assert_allclose(PhiloxGenerator(0).normal(12), expected, rtol=0, atol=3e-7)


@FEW
@given(SEEDS, st.integers(1, 40), st.integers(1, 40))
def test_philox_draws_the_same_first_values_whatever_their_number(seed: int, fewer: int, more: int) -> None:
    """Each value has a counter of its own, and each call a further one."""
    one, other = PhiloxGenerator(seed), PhiloxGenerator(seed)
    for _ in range(2):
        count = min(fewer, more)
        assert np.array_equal(one.normal(fewer)[:count], other.normal(more)[:count])
    assert not np.array_equal(one.normal(8), PhiloxGenerator(seed).normal(8))
