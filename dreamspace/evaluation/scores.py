"""Scores of images by their embeddings, as pure functions.

Embeddings are unit vectors, so that a product is a cosine. P prompts of S seeds each make images (P, S, D).
"""

import numpy as np
import torch
from PIL import Image
from torch import Tensor


def prompt_scores(images: Tensor, texts: Tensor) -> Tensor:
    """CLIP score (arXiv:2104.08718, without its factor of 2.5) of each image with its own prompt, (P, S).

    Args:
        images: (P, S, D).
        texts: (P, D).
    """
    return torch.einsum("psd,pd->ps", images, texts)


def mismatched_score(images: Tensor, texts: Tensor) -> float:
    """Mean CLIP score of images (P, S, D) with the prompts (P, D) of the others: what no adherence scores."""
    cosines = torch.einsum("psd,qd->psq", images, texts).mean(dim=1)
    others = ~torch.eye(len(texts), dtype=torch.bool)
    return cosines[others].mean().item() if others.any() else 0.0


def likeness(images: Tensor, photos: Tensor) -> float:
    """Mean cosine of images (N, D) with photos (M, D): CLIP-I or DINO of arXiv:2208.12242, section 4.2."""
    return (images @ photos.T).mean().item()


def likeness_among(photos: Tensor, subjects: Tensor | None = None) -> float:
    """Mean cosine of different photos (M, D) of one subject; of a single one with itself.

    Args:
        subjects: (M, D), what each photo shows cut out of it, with which the others are compared; None
            compares whole photos.
    """
    subjects = photos if subjects is None else subjects
    if len(photos) < 2:
        return likeness(photos, subjects)
    different = ~torch.eye(len(photos), dtype=torch.bool)
    return (photos @ subjects.T)[different].mean().item()


def nearest(images: Tensor, photos: Tensor) -> float:
    """Mean over images (N, D) of the cosine with the photo (M, D) nearest to each."""
    return (images @ photos.T).amax(dim=1).mean().item()


def nearest_among(photos: Tensor) -> float:
    """Mean over photos (M, D) of the cosine with the nearest other one; 1 for a single one."""
    if len(photos) < 2:
        return 1.0
    cosines = photos @ photos.T
    return cosines.fill_diagonal_(-1.0).amax(dim=1).mean().item()


def spread(images: Tensor) -> float:
    """How far images (P, S, D) of a prompt differ by seed: 1 - their mean cosine, 0 for one seed."""
    if images.shape[1] < 2:
        return 0.0
    cosines = torch.einsum("psd,ptd->pst", images, images)
    different = ~torch.eye(images.shape[1], dtype=torch.bool)
    return 1 - cosines[:, different].mean().item()


def drift(images: Tensor, base_images: Tensor) -> float:
    """1 - mean cosine of images (N, D) with the base model's of the same prompts and seeds."""
    return 1 - (images * base_images).sum(dim=1).mean().item()


def contrast(pictures: list[Image.Image]) -> float:
    """Mean over RGB pictures of their values' standard deviation, 0 to 0.5: high where they are burnt."""
    return float(np.mean([np.asarray(picture, np.float32).std() / 255 for picture in pictures]))
