"""A pool of rendered pictures on disk, drawn once and shared by all parts of the recipe."""

import hashlib
import sys
from collections.abc import Sequence
from multiprocessing import get_context
from pathlib import Path

import numpy as np

from dreamspace.files import replace_file
from dreamspace.mini.world import CLASSES, Scenery, all_sceneries, is_held_out, render

HELD_OUT_SEED = 1_000_000_000


def training_sceneries(count: int) -> list[Scenery]:
    """`count` combinations of the training world, each as often as the others, in a fixed shuffled order."""
    sceneries = [scenery for scenery in all_sceneries() if not is_held_out(scenery)]
    rounds = [
        np.random.default_rng(index).permutation(len(sceneries))
        for index in range(-(-count // len(sceneries)))
    ]
    return [sceneries[place] for place in np.concatenate(rounds)[:count]]


def held_out_sceneries(count: int) -> list[Scenery]:
    """`count` combinations that no training picture shows, in a fixed shuffled order."""
    sceneries = [scenery for scenery in all_sceneries() if is_held_out(scenery)]
    order = np.random.default_rng(7).permutation(len(sceneries))
    return [sceneries[order[index % len(order)]] for index in range(count)]


def _pixels(task: tuple[Scenery, int]) -> np.ndarray:
    return np.asarray(render(*task).image)


def draw(sceneries: Sequence[Scenery], first_seed: int, num_workers: int = 1) -> np.ndarray:
    """Render the sceneries with consecutive seeds; (N, 128, 128, 3) uint8."""
    tasks = [(scenery, first_seed + index) for index, scenery in enumerate(sceneries)]
    if num_workers == 1:
        return np.stack([_pixels(task) for task in tasks])
    with get_context("spawn").Pool(num_workers) as workers:
        return np.stack(workers.map(_pixels, tasks, chunksize=16))


def training_pool(folder: Path, count: int, num_workers: int) -> np.ndarray:
    """The pool of `count` training pictures, a memory map (N, 128, 128, 3) uint8; drawn if missing.

    It is drawn again when the world has changed since, as a few pictures of it tell.
    """
    pictures = draw(training_sceneries(len(CLASSES) * 4), HELD_OUT_SEED)
    version = hashlib.sha256(pictures.tobytes()).hexdigest()[:12]
    path = folder / f"renders-{version}-{count}.npy"
    if not path.exists():
        sceneries = training_sceneries(count)
        with replace_file(path) as temporary:
            pool = np.lib.format.open_memmap(temporary, "w+", np.uint8, (count, 128, 128, 3))
            for start in range(0, count, 1000):
                pool[start : start + 1000] = draw(sceneries[start : start + 1000], start, num_workers)
                print(f"rendered {min(start + 1000, count)} of {count}", file=sys.stderr, flush=True)
            pool.flush()
    return np.load(path, mmap_mode="r")
