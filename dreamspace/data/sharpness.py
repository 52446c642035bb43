"""Whether photos show fine detail at the size that is trained, for models that learn little else."""

import cv2
import numpy as np
from PIL import Image

from dreamspace.data.geometry import LARGEST_SCALE
from dreamspace.data.samples import Sample

LEAST_SHARPNESS = 30.0
"""Real photos lie above, at 256 to 1024 px; the same ones after a Gaussian blur of 2 px lie below."""

SOFTENING_SCALE = 1.1
"""Enlarged further than this, even a sharp photo lacks the finest detail."""


def sharpness(picture: Image.Image) -> float:
    """The variance of a picture's Laplacian, in squared grey levels of 255: little where it is blurred."""
    return float(cv2.Laplacian(np.asarray(picture.convert("L")), cv2.CV_64F).var())


def softness_warnings(samples: list[Sample]) -> list[str]:
    """A sentence for each photo that is enlarged or blurred; those above `LARGEST_SCALE` have one already."""
    warnings = []
    for sample in samples:
        scale = sample.geometry.scale
        if SOFTENING_SCALE < scale <= LARGEST_SCALE:
            warnings.append(f"{sample.path.name}: it is enlarged {scale:.2g} times.")
        elif scale <= SOFTENING_SCALE and sharpness(sample.picture()) < LEAST_SHARPNESS:
            warnings.append(f"{sample.path.name}: it is blurred.")
    return warnings
