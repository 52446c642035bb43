"""What becomes of a raw mask before it is saved: cut off, cleaned, grown, softened, turned over.

A mask is float32 (H, W) in [0, 1]; 1 is the subject. Soft masks stay soft unless a threshold is asked for.
"""

from dataclasses import dataclass

import cv2
import numpy as np

# A value above this belongs to the subject where a yes or no is needed.
_HALF = 0.5


@dataclass(frozen=True)
class MaskShaping:
    """How masks are shaped; the defaults leave a mask as it is."""

    threshold: float | None = None
    """Values of at least this become 1, others 0; None keeps soft values."""
    keep_largest: bool = False
    """Keep only the largest connected part."""
    fill_holes: bool = False
    """Fill what is enclosed by the subject."""
    grow_px: int = 0
    """Grow the subject by so many pixels on each side; below 0 shrink it."""
    feather_px: int = 0
    """Let the mask fade out over so many pixels outside the subject."""
    invert: bool = False
    """Swap subject and background, last of all."""

    def __post_init__(self) -> None:
        if self.threshold is not None and not 0 < self.threshold <= 1:
            raise ValueError(
                f"threshold must be above 0 and at most 1, got {self.threshold}. Try 0.5, or leave it out."
            )
        if self.feather_px < 0:
            raise ValueError(
                f"feather_px must be 0 or more, got {self.feather_px}. To make a mask smaller, use grow_px."
            )


def shape(mask: np.ndarray, shaping: MaskShaping) -> np.ndarray:
    """`mask` shaped in the order of `MaskShaping`'s fields; (H, W) float32 in [0, 1].

    Largest part and holes come before growing, so that growing neither joins stray parts nor closes a hole
    that was to be seen; inverting comes last, so that the other settings always speak of the subject.
    """
    if shaping.threshold is not None:
        mask = threshold(mask, shaping.threshold)
    if shaping.keep_largest:
        mask = keep_largest(mask)
    if shaping.fill_holes:
        mask = fill_holes(mask)
    mask = grow(mask, shaping.grow_px)
    mask = feather(mask, shaping.feather_px)
    return invert(mask) if shaping.invert else mask


def threshold(mask: np.ndarray, value: float) -> np.ndarray:
    """1 where `mask` is at least `value`, else 0."""
    return (mask >= value).astype(np.float32)


def keep_largest(mask: np.ndarray) -> np.ndarray:
    """`mask` without all but the largest connected part of what is above 0.5.

    The soft edge of the part that stays is kept: everything nearer to it than to another part.
    """
    count, labels, stats, _ = cv2.connectedComponentsWithStats((mask > _HALF).astype(np.uint8))
    if count < 3:
        return mask
    largest = 1 + int(stats[1:, cv2.CC_STAT_AREA].argmax())
    to_largest, to_other = (
        cv2.distanceTransform(apart.astype(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
        for apart in (labels != largest, (labels == largest) | (labels == 0))
    )
    return np.where(to_largest <= to_other, mask, np.float32(0))


def fill_holes(mask: np.ndarray) -> np.ndarray:
    """`mask` raised to 1 wherever a region of at most 0.5 does not reach the picture's border."""
    count, labels = cv2.connectedComponents((mask <= _HALF).astype(np.uint8), connectivity=4)
    reaches_border = np.zeros(count, bool)
    for edge in (labels[0], labels[-1], labels[:, 0], labels[:, -1]):
        reaches_border[edge] = True
    reaches_border[0] = True  # label 0 is the subject itself
    return np.where(reaches_border[labels], mask, np.float32(1))


def grow(mask: np.ndarray, px: int) -> np.ndarray:
    """`mask` grown by `px` pixels in every direction, or shrunk where `px` is below 0; soft edges move along.

    Shrinking takes nothing off where the subject leaves the picture.
    """
    if px == 0:
        return mask
    reach = abs(px)
    disc = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * reach + 1, 2 * reach + 1))
    return cv2.dilate(mask, disc) if px > 0 else cv2.erode(mask, disc)


def feather(mask: np.ndarray, px: int) -> np.ndarray:
    """`mask` with an edge that fades outward over `px` pixels; the subject itself keeps its values.

    Outward only, because the loss should see all of the subject. The fade follows half a cosine: 1/2 at
    half the way, 0 from `px` on, without a kink at either end.
    """
    if px == 0:
        return mask
    subject = mask > _HALF
    if not subject.any():
        return mask
    distance = cv2.distanceTransform((~subject).astype(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
    fade = 0.5 * (1 + np.cos(np.pi * np.clip(distance / px, 0, 1)))
    return np.where(subject, mask, np.maximum(mask, fade)).astype(np.float32)


def invert(mask: np.ndarray) -> np.ndarray:
    """Subject and background swapped."""
    return 1 - mask


def is_empty(mask: np.ndarray) -> bool:
    """Whether no value is above 0.5: there is no subject in it."""
    return not (mask > _HALF).any()
