"""The mask without weights: as good as is claimed, on drawings whose true masks are known; never a crash."""

import subprocess
import sys
import time

import cv2
import numpy as np
import pytest

from dreamspace.data.grabcut import grabcut, overlap
from dreamspace.data.saliency import LONGEST_EDGE_PX, salience
from dreamspace.mini.subjects import SUBJECTS, draw_subject
from dreamspace.mini.world import Scenery, render

SCENERIES = (
    ("dog", "red", "spotted", "beach"),
    ("cat", "black", "plain", "meadow"),
    ("bird", "blue", "striped", "snow"),
    ("fish", "yellow", "checkered", "forest"),
    ("robot", "green", "plain", "desert"),
    ("car", "purple", "striped", "underwater"),
    ("house", "blue", "checkered", "night"),
)


def two_tones(height: int, width: int) -> tuple[np.ndarray, np.ndarray]:
    """A red ellipse on a green ground, and its mask."""
    pixels = np.full((height, width, 3), (60, 160, 70), np.uint8)
    mask = np.zeros((height, width), np.uint8)
    centre, axes = (width * 2 // 5, height // 2), (max(width // 5, 1), max(height // 4, 1))
    cv2.ellipse(mask, centre, axes, 0, 0, 360, 1, -1)
    pixels[mask > 0] = (200, 40, 30)
    return pixels, mask > 0


def test_mean_overlap_with_true_masks_of_twelve_drawings_is_over_90_percent() -> None:
    drawings = [render(Scenery(*words), seed, 256) for seed, words in enumerate(SCENERIES)]
    pairs = [(drawing.image, drawing.mask) for drawing in drawings]
    pairs += [draw_subject(name, "studio", seed) for seed, name in enumerate(SUBJECTS)]
    overlaps = [overlap(grabcut(np.asarray(image)) >= 0.5, np.asarray(mask) >= 128) for image, mask in pairs]
    assert len(overlaps) == 12
    assert np.mean(overlaps) >= 0.9


@pytest.mark.parametrize(("height", "width"), [(90, 120), (600, 400), (300, 1400), (2400, 1800)])
def test_mask_has_the_photos_size_and_a_soft_edge(height: int, width: int) -> None:
    pixels, truth = two_tones(height, width)
    mask = grabcut(pixels)
    assert (mask.shape, mask.dtype) == ((height, width), np.float32)
    assert (mask.min(), mask.max()) == (0, 1)
    assert ((mask > 0) & (mask < 1)).any()
    assert overlap(mask >= 0.5, truth) > 0.95


def test_same_photo_gives_the_same_mask_whatever_was_drawn_at_random_before() -> None:
    pixels = np.asarray(draw_subject("biscuit", "table", 3)[0])
    first = grabcut(pixels)
    cv2.setRNGSeed(1234)
    assert np.array_equal(grabcut(pixels), first)


def test_no_subject_is_found_where_nothing_stands_out() -> None:
    ramp = np.linspace(90, 96, 200, dtype=np.uint8)
    gradient = np.repeat(np.repeat(ramp[:, None, None], 300, axis=1), 3, axis=2)
    assert not grabcut(gradient).any()


@pytest.mark.parametrize("size", [(1, 1), (2, 900), (700, 3), (16, 16)])
@pytest.mark.parametrize("is_noise", [True, False])
def test_any_size_is_taken(size: tuple[int, int], is_noise: bool) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (*size, 3), dtype=np.uint8)
    mask = grabcut(noise if is_noise else np.zeros_like(noise))
    assert mask.shape == size
    assert 0 <= mask.min() <= mask.max() <= 1


def test_a_shadow_stands_out_less_than_the_thing_that_throws_it() -> None:
    pixels, _ = two_tones(LONGEST_EDGE_PX, LONGEST_EDGE_PX)
    thing, shadow, ground = (80, 64), (20, 120), (150, 10)
    pixels[10:40, 100:150] = (np.array((60, 160, 70)) * 0.72).astype(np.uint8)
    salient = salience(pixels)
    assert salient[thing] > 30
    assert salient[shadow] < 0.2 * salient[thing]
    assert salient[ground] < 1


def test_a_photo_of_1024_px_takes_seconds_not_minutes() -> None:
    pixels = cv2.resize(np.asarray(draw_subject("comet", "beach", 1)[0]), (1024, 1024))
    started = time.process_time()
    grabcut(pixels)
    assert time.process_time() - started < 30  # about 1 on an idle core


def test_importing_it_loads_no_torch() -> None:
    code = (
        "import sys, dreamspace.data.grabcut, dreamspace.data.mask_shaping; assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
