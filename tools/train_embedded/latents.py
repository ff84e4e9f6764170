"""Training images, rendered and encoded in pools."""

import os
from collections.abc import Iterator
from multiprocessing import Pool
from pathlib import Path
from random import Random

import numpy as np

from .basis import Basis
from .edits import training_edit
from .pairs import training_pair
from .scenes import PLAINEST, Scene, Style, render, sample_scene, training_scene

CHUNK = 256
Task = tuple[int, int, float, bool, bool, Basis]
EditTask = tuple[int, int, float, bool, Basis]
BASIS_IMAGES = 3000


def _sample(seed: int) -> np.ndarray:
    rng = Random(seed)
    return np.asarray(render(sample_scene(rng, everything=True), Style.sample(rng)))


def render_pool(seed: int, count: int) -> np.ndarray:
    """Random images, held-out scenes among them: uint8, N x H x W x 3."""
    with Pool(os.cpu_count()) as pool:
        return np.stack(pool.map(_sample, range(seed, seed + count), chunksize=64))


def fit_basis(file: Path, seed: int) -> Basis:
    """The basis in the file, fitted first if there is none."""
    if not file.exists():
        Basis.fit(render_pool(seed, BASIS_IMAGES)).save(file)
    return Basis.load(file)


class EncodedPool:
    """Scenes of one pool with their styles (N x S) and encoded images (N x tokens x 128, float16)."""

    def __init__(self, scenes: list[Scene], styles: np.ndarray, latents: np.ndarray) -> None:
        self.scenes = scenes
        self.styles = styles
        self.latents = latents


def _paint_chunk(task: Task) -> tuple[list[Scene], list[tuple[float, ...]], np.ndarray]:
    seed, count, variety, everything, night, basis = task
    rng = Random(seed)
    scenes = [training_scene(rng, everything) for _ in range(count)]
    styles = [Style.sample(rng, variety) for _ in scenes]
    images = np.stack([np.asarray(render(scene, style, night)) for scene, style in zip(scenes, styles, strict=True)])
    return scenes, [style.numbers for style in styles], basis.encode(images).astype(np.float16)


def _tasks(seed: int, count: int, variety: float, everything: bool, night: bool, basis: Basis) -> Iterator[Task]:
    for start in range(0, count, CHUNK):
        yield seed * 1_000_000 + start, min(CHUNK, count - start), variety, everything, night, basis


def encode_pool(
    basis: Basis, seed: int, count: int, variety: float, everything: bool, night: bool = False
) -> EncodedPool:
    """Random training scenes of the first or of all kinds, rendered in styles of a variety from 0 to 1."""
    with Pool(os.cpu_count()) as pool:
        chunks = pool.map(_paint_chunk, _tasks(seed, count, variety, everything, night, basis))
    return EncodedPool(
        [scene for scenes, _, _ in chunks for scene in scenes],
        np.array([numbers for _, styles, _ in chunks for numbers in styles], dtype=np.float32),
        np.concatenate([latents for _, _, latents in chunks]),
    )


class Edits:
    """Prompts of changes, with encoded images before and after (each N x tokens x 128, float16)."""

    def __init__(self, words: list[str], before: np.ndarray, after: np.ndarray) -> None:
        self.words = words
        self.before = before
        self.after = after


def _edit_chunk(task: EditTask) -> tuple[list[str], np.ndarray, np.ndarray]:
    seed, count, variety, everything, basis = task
    rng = Random(seed)
    edits = [training_edit(rng, everything) for _ in range(count)]
    styles = [Style.sample(rng, variety) for _ in edits]
    before = [np.asarray(render(edit.before, style)) for edit, style in zip(edits, styles, strict=True)]
    after = [np.asarray(render(edit.after, style)) for edit, style in zip(edits, styles, strict=True)]
    sides = [basis.encode(np.stack(images)).astype(np.float16) for images in (before, after)]
    return [edit.words for edit in edits], sides[0], sides[1]


def paint_edits(basis: Basis, seed: int, count: int, variety: float, everything: bool) -> Edits:
    """Random changes of training scenes; both images have the same style."""
    tasks = [(seed * 1_000_000 + i, min(CHUNK, count - i), variety, everything, basis) for i in range(0, count, CHUNK)]
    with Pool(os.cpu_count()) as pool:
        chunks = pool.map(_edit_chunk, tasks)
    return Edits(
        [text for words, _, _ in chunks for text in words],
        np.concatenate([before for _, before, _ in chunks]),
        np.concatenate([after for _, _, after in chunks]),
    )


class Pairs:
    """Prompts of pairs, both encoded reference images side by side (N x 2 tokens x 128), and the requested image."""

    def __init__(self, words: list[str], references: np.ndarray, after: np.ndarray) -> None:
        self.words = words
        self.references = references
        self.after = after


def _pair_chunk(task: tuple[int, int, Basis]) -> tuple[list[str], np.ndarray, np.ndarray]:
    seed, count, basis = task
    rng = Random(seed)
    pairs = [training_pair(rng) for _ in range(count)]
    first = [np.asarray(render(pair.first, Style.sample(rng))) for pair in pairs]
    second = [np.asarray(render(pair.second, Style.sample(rng))) for pair in pairs]
    after = [np.asarray(render(pair.after, PLAINEST)) for pair in pairs]
    one, two, wanted = (basis.encode(np.stack(images)).astype(np.float16) for images in (first, second, after))
    return [pair.words for pair in pairs], np.concatenate([one, two], axis=1), wanted


def paint_pairs(basis: Basis, seed: int, count: int) -> Pairs:
    """Random training pairs; the requested image has the plainest style."""
    tasks = [(seed * 1_000_000 + i, min(CHUNK, count - i), basis) for i in range(0, count, CHUNK)]
    with Pool(os.cpu_count()) as pool:
        chunks = pool.map(_pair_chunk, tasks)
    return Pairs(
        [text for words, _, _ in chunks for text in words],
        np.concatenate([references for _, references, _ in chunks]),
        np.concatenate([after for _, _, after in chunks]),
    )
