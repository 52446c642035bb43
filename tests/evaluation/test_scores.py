"""Scores of embeddings, against their definitions written out."""

import itertools

import numpy as np
import pytest
import torch
from PIL import Image

from dreamspace.evaluation.scores import (
    contrast,
    drift,
    likeness,
    likeness_among,
    mismatched_score,
    nearest,
    nearest_among,
    prompt_scores,
    spread,
)


def unit(*shape: int, seed: int = 0) -> torch.Tensor:
    rows = torch.randn(*shape, generator=torch.Generator().manual_seed(seed))
    return torch.nn.functional.normalize(rows, dim=-1)


def test_prompt_scores_are_the_cosines_of_images_with_their_own_prompts():
    images, texts = unit(3, 2, 8), unit(3, 8, seed=1)
    scores = prompt_scores(images, texts)
    for prompt, seed in itertools.product(range(3), range(2)):
        expected = torch.cosine_similarity(images[prompt, seed], texts[prompt], dim=0)
        torch.testing.assert_close(scores[prompt, seed], expected)


def test_mismatched_score_leaves_out_each_images_own_prompt():
    images, texts = unit(3, 2, 8), unit(3, 8, seed=1)
    others = [
        float(images[p, s] @ texts[q])
        for p, s, q in itertools.product(range(3), range(2), range(3))
        if p != q
    ]
    assert mismatched_score(images, texts) == pytest.approx(np.mean(others), abs=1e-6)


def test_a_single_prompt_has_no_mismatch():
    assert mismatched_score(unit(1, 2, 8), unit(1, 8)) == 0.0


def test_likeness_and_nearest_are_the_mean_and_the_largest_cosine():
    images, photos = unit(4, 8), unit(3, 8, seed=1)
    cosines = np.array([[float(image @ photo) for photo in photos] for image in images])
    assert likeness(images, photos) == pytest.approx(cosines.mean(), abs=1e-6)
    assert nearest(images, photos) == pytest.approx(cosines.max(axis=1).mean(), abs=1e-6)


def test_photos_are_not_compared_with_themselves():
    photos = unit(4, 8)
    cosines = np.array([[float(a @ b) for b in photos] for a in photos])
    np.fill_diagonal(cosines, np.nan)
    assert likeness_among(photos) == pytest.approx(np.nanmean(cosines), abs=1e-6)
    assert nearest_among(photos) == pytest.approx(np.nanmax(cosines, axis=1).mean(), abs=1e-6)
    assert likeness_among(photos[:1]) == pytest.approx(1, abs=1e-6)
    assert nearest_among(photos[:1]) == 1.0


def test_photos_are_compared_with_what_is_cut_out_of_the_others():
    photos, subjects = unit(4, 8), unit(4, 8, seed=1)
    cosines = [float(photos[a] @ subjects[b]) for a in range(4) for b in range(4) if a != b]
    assert likeness_among(photos, subjects) == pytest.approx(np.mean(cosines), abs=1e-6)
    assert likeness_among(photos[:1], subjects[:1]) == pytest.approx(float(photos[0] @ subjects[0]), abs=1e-6)


def test_spread_is_zero_for_equal_images_and_one_for_unrelated_ones():
    equal = unit(2, 1, 8).expand(2, 3, 8)
    assert spread(equal) == pytest.approx(0, abs=1e-6)
    assert spread(torch.eye(8)[None, :3]) == pytest.approx(1, abs=1e-6)
    assert spread(unit(2, 1, 8)) == 0.0


def test_drift_compares_images_at_the_same_place():
    images = unit(4, 8)
    assert drift(images, images) == pytest.approx(0, abs=1e-6)
    assert drift(images, -images) == pytest.approx(2, abs=1e-6)


def test_contrast_of_black_and_white_is_a_half():
    picture = Image.new("RGB", (8, 8))
    picture.paste((255, 255, 255), (0, 0, 4, 8))
    assert contrast([picture]) == pytest.approx(0.5)
    assert contrast([Image.new("RGB", (8, 8), (9, 9, 9))]) == 0.0
