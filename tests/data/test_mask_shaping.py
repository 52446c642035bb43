"""Mask shaping against what can be counted by hand."""

import time

import cv2
import numpy as np
import pytest

from dreamspace.data.mask_shaping import MaskShaping, is_empty, shape


def disc(radius: float, size: int = 64, centre: tuple[float, float] = (32, 32)) -> np.ndarray:
    """(size, size) float32: 1 inside of a circle."""
    across, down = np.meshgrid(np.arange(size), np.arange(size))
    return (np.hypot(across - centre[0], down - centre[1]) <= radius).astype(np.float32)


def test_the_default_changes_nothing() -> None:
    soft = np.linspace(0, 1, 64 * 64, dtype=np.float32).reshape(64, 64)
    assert shape(soft, MaskShaping()) is soft


def test_a_soft_mask_is_made_black_and_white_by_a_threshold_alone() -> None:
    soft = np.linspace(0, 1, 64 * 64, dtype=np.float32).reshape(64, 64)
    hard = shape(soft, MaskShaping(threshold=0.25))
    assert set(np.unique(hard)) == {0, 1}
    assert hard.mean() == pytest.approx(0.75, abs=1e-3)
    grown = shape(soft, MaskShaping(grow_px=1))
    assert len(np.unique(grown)) > 1000, "it stays soft"


@pytest.mark.parametrize("grow_px", [5, -5])
def test_growing_moves_the_edge_of_a_disc_by_so_many_pixels(grow_px: int) -> None:
    moved = shape(disc(15), MaskShaping(grow_px=grow_px))
    wanted = disc(15 + grow_px)
    assert np.abs(moved - wanted).sum() < 0.15 * wanted.sum()
    row = moved[32]
    assert row.sum() == pytest.approx(disc(15)[32].sum() + 2 * grow_px, abs=2)


@pytest.mark.parametrize("radius", [9, 40, 150, 500])
def test_growing_a_point_makes_a_disc_and_shrinking_a_hole_in_white_too(radius: int) -> None:
    size = 2 * radius + 21
    point = np.zeros((size, size), np.float32)
    point[radius + 10, radius + 10] = 0.75
    across, down = np.meshgrid(np.arange(size), np.arange(size))
    distance = np.hypot(across - radius - 10, down - radius - 10)
    grown = shape(point, MaskShaping(grow_px=radius))
    assert (grown[distance < radius - 2] == 0.75).all()
    assert (grown[distance > radius + 2] == 0).all()
    shrunk = shape(1 - point, MaskShaping(grow_px=-radius))
    assert (shrunk == 1 - grown).all(), "nothing comes in from beyond the border either"


def test_growing_and_shrinking_a_large_mask_by_the_most_takes_seconds() -> None:
    soft = cv2.resize(disc(20) * np.float32(0.9), (1280, 1280))
    started = time.monotonic()
    for grow_px in (500, -500):
        shape(soft, MaskShaping(grow_px=grow_px))
    assert time.monotonic() - started < 60, "a kernel of that size takes minutes"


def test_feather_fades_outside_and_leaves_the_subject_white() -> None:
    feathered = shape(disc(10), MaskShaping(feather_px=8))
    assert (feathered[disc(10) > 0] == 1).all()
    assert (feathered[disc(20) == 0] == 0).all()
    across = feathered[32, 42:54]
    assert (np.diff(across) <= 0).all()
    assert across[4] == pytest.approx(0.5, abs=1e-6), "half way out"


def test_holes_are_filled_and_bays_are_not() -> None:
    ring = disc(20) - disc(8)
    assert (shape(ring, MaskShaping(fill_holes=True)) == disc(20)).all()
    bay = disc(20).copy()
    bay[32, 32:] = 0  # open to the border
    assert (shape(bay, MaskShaping(fill_holes=True)) == bay).all()
    everything = np.ones((8, 8), np.float32)
    assert (shape(everything, MaskShaping(fill_holes=True)) == everything).all()


def test_only_the_largest_part_stays_with_its_soft_edge() -> None:
    large, small = disc(12, centre=(20, 20)), disc(5, centre=(52, 52))
    soft_edges = 0.4 * np.maximum(disc(14, centre=(20, 20)), disc(7, centre=(52, 52)))
    mask = np.maximum(np.maximum(large, small), soft_edges.astype(np.float32))
    kept = shape(mask, MaskShaping(keep_largest=True))
    assert (kept[40:, 40:] == 0).all()
    assert (kept[:38, :38] == mask[:38, :38]).all()
    assert (shape(large, MaskShaping(keep_largest=True)) == large).all()


def test_inverting_comes_last() -> None:
    plain = shape(disc(10), MaskShaping(grow_px=3, feather_px=4))
    assert (shape(disc(10), MaskShaping(grow_px=3, feather_px=4, invert=True)) == 1 - plain).all()


def test_an_empty_mask_has_nothing_solid() -> None:
    assert is_empty(np.full((4, 4), 0.4, np.float32))
    assert not is_empty(disc(2))
    nothing = np.zeros((8, 8), np.float32)
    shaping = MaskShaping(fill_holes=True, keep_largest=True, grow_px=2, feather_px=3)
    assert (shape(nothing, shaping) == 0).all()


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"threshold": 1.5}, r"between 0 and 1, got 1\.5"),
        ({"feather_px": -1}, "0 to 500 px, got -1"),
        ({"feather_px": 1e9}, "0 to 500 px, got 1000000000"),
        ({"feather_px": float("nan")}, "0 to 500 px, got nan"),
        ({"grow_px": 501}, "at most 500 px, got 501"),
        ({"grow_px": -5000}, "at most 500 px, got -5000"),
    ],
)
def test_what_makes_no_sense_is_refused(options: dict[str, float], sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        MaskShaping(**options)
