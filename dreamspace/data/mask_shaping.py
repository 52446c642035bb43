"""What is done to a raw mask before it is trained with: cleaned, moved at its edge, blurred, turned round."""

import math
from dataclasses import dataclass

import cv2
import numpy as np

_SOLID = 0.5
"""A pixel at least this white belongs to the subject; what is below is its soft edge."""

MAX_PX = 500
"""The furthest that an edge is moved or faded; beyond it nothing of a photo's subject would be told."""

_KERNEL_PX = 8
"""The largest radius that is grown by at once: the cost of a kernel rises with its area."""


@dataclass(frozen=True)
class MaskShaping:
    """How a mask is shaped, in the order of the fields; the default changes nothing.

    Attributes:
        threshold: makes the mask black and white there; None leaves it soft.
        fill_holes: whiten what the subject encloses.
        keep_largest: leave only the largest part.
        grow_px: move the edge outwards, or inwards if it is negative.
        feather_px: let the mask fade out over so many pixels outside of the subject, which stays white.
        invert: learn what is outside instead.
    """

    threshold: float | None = None
    fill_holes: bool = False
    keep_largest: bool = False
    grow_px: int = 0
    feather_px: float = 0.0
    invert: bool = False

    def __post_init__(self) -> None:
        if self.threshold is not None and not 0 < self.threshold < 1:
            raise ValueError(
                f"The threshold of a mask must be between 0 and 1, got {self.threshold:g}. Try 0.5."
            )
        if not abs(self.grow_px) <= MAX_PX:
            raise ValueError(f"A mask grows or shrinks by at most {MAX_PX} px, got {self.grow_px}. Lower it.")
        if not 0 <= self.feather_px <= MAX_PX:
            raise ValueError(f"The feather of a mask must be 0 to {MAX_PX} px, got {self.feather_px:.10g}.")


def shape(mask: np.ndarray, shaping: MaskShaping) -> np.ndarray:
    """The shaped mask.

    Args:
        mask: (H, W) float32 in [0, 1], as is the result; a soft mask stays soft without a threshold.
    """
    if shaping.threshold is not None:
        mask = (mask >= shaping.threshold).astype(np.float32)
    if shaping.fill_holes:
        mask = filled(mask)
    if shaping.keep_largest:
        mask = largest_part(mask)
    if shaping.grow_px:
        mask = grown(mask, shaping.grow_px)
    if shaping.feather_px:
        mask = feathered(mask, shaping.feather_px)
    return 1 - mask if shaping.invert else mask


def is_empty(mask: np.ndarray) -> bool:
    """Whether the mask shows no subject: no pixel is solid."""
    return not (mask >= _SOLID).any()


def filled(mask: np.ndarray) -> np.ndarray:
    """The mask with all that is enclosed by the subject made white."""
    outside = cv2.copyMakeBorder(_not_solid(mask), 1, 1, 1, 1, cv2.BORDER_CONSTANT, value=1)
    _, labels = cv2.connectedComponents(outside, connectivity=4)
    is_enclosed = labels[1:-1, 1:-1] != labels[0, 0]
    return np.where(is_enclosed, np.float32(1), mask)


def largest_part(mask: np.ndarray) -> np.ndarray:
    """The mask with only its largest connected part, and the soft edge that is nearest to it."""
    solid = 1 - _not_solid(mask)
    num_parts, labels, statistics, _ = cv2.connectedComponentsWithStats(solid, connectivity=8)
    if num_parts <= 2:  # the background and one part, or none
        return mask
    largest = 1 + int(statistics[1:, cv2.CC_STAT_AREA].argmax())
    # Each pixel's nearest solid pixel, as a label of OpenCV's own that is turned back into the part's.
    _, nearest = cv2.distanceTransformWithLabels(
        _not_solid(mask), cv2.DIST_L2, cv2.DIST_MASK_5, labelType=cv2.DIST_LABEL_PIXEL
    )
    part_of = np.zeros(nearest.max() + 1, labels.dtype)
    part_of[nearest[solid > 0]] = labels[solid > 0]
    return np.where(part_of[nearest] == largest, mask, np.float32(0))


def grown(mask: np.ndarray, grow_px: int) -> np.ndarray:
    """The mask with its edge moved outwards by `grow_px`, or inwards if it is negative."""
    return _dilated(mask, grow_px) if grow_px > 0 else -_dilated(-mask, -grow_px)


def _dilated(mask: np.ndarray, radius_px: int) -> np.ndarray:
    """Each pixel as the largest within a disc around it, soft values too.

    A large disc is made of discs of half its radius, whose centres lie on a circle so densely that its rim
    is true to about a pixel.
    """
    if radius_px <= _KERNEL_PX:
        kernel = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * radius_px + 1, 2 * radius_px + 1))
        return cv2.dilate(mask, kernel)
    half, circle = radius_px // 2, radius_px - radius_px // 2
    grown = _dilated(mask, half)
    padded = cv2.copyMakeBorder(grown, circle, circle, circle, circle, cv2.BORDER_CONSTANT, value=-1)
    num_discs = math.ceil(2 * math.pi * circle / math.sqrt(2 * half))
    for number in range(num_discs):
        angle = 2 * math.pi * number / num_discs
        top, left = (circle + round(circle * turn) for turn in (math.sin(angle), math.cos(angle)))
        np.maximum(grown, padded[top : top + mask.shape[0], left : left + mask.shape[1]], out=grown)
    return grown


def feathered(mask: np.ndarray, feather_px: float) -> np.ndarray:
    """The mask with a border that falls from white to black over `feather_px`, outside of the subject."""
    if is_empty(mask):
        return mask
    distance = cv2.distanceTransform(_not_solid(mask), cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
    return np.maximum(mask, np.clip(1 - distance / feather_px, 0, 1)).astype(np.float32)


def _not_solid(mask: np.ndarray) -> np.ndarray:
    """(H, W) uint8: 0 where the subject is, 1 elsewhere."""
    return (mask < _SOLID).astype(np.uint8)
