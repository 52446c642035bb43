"""A subject's mask without any weights: GrabCut from several starts, and the result that fits best.

One GrabCut stands or falls by where it starts. Here it starts from what stands out (`saliency`), cut off at
a row of thresholds, and from a centred ellipse; the outcomes are compared by measures that need no truth, and
the best one is sharpened at a larger scale.
"""

import cv2
import numpy as np

from dreamspace.data.saliency import fit_longest_edge, salience

SEARCH_EDGE_PX = 256
EDGE_PX = 512
"""The longest edge at which the outcomes are compared, and at which the best one is sharpened."""

# In CIELAB units: differences that are hardly seen, and an edge that is plain.
_LEAST_DIFFERENCE = 2.0
_PLAIN_EDGE = 10.0
_THRESHOLDS = np.geomspace(0.06, 0.8, 10)
_SMALLEST_SHARE = 0.01
# Starts that overlap more than this lead to the same outcome.
_SAME_START = 0.85
_ELLIPSE_RADIUS = 0.4
# Standard deviation of what counts as the middle, in units of the edges.
_SPREAD = 0.2
# How far the outline may move when it is sharpened.
_BAND_PX = 8

_CROSS_3 = np.ones((3, 3), np.uint8)


def grabcut(pixels: np.ndarray) -> np.ndarray:
    """The mask of the one thing that stands out in a picture.

    Deterministic; about a second on one core, whatever the size of the picture.

    Args:
        pixels: (H, W, 3) uint8 RGB.

    Returns:
        (H, W) float32 in [0, 1], soft along the edge; all 0 where nothing stands out.
    """
    height, width = pixels.shape[:2]
    small = fit_longest_edge(pixels, SEARCH_EDGE_PX)
    salient = salience(small)
    if np.percentile(salient, 99) < _LEAST_DIFFERENCE:
        return np.zeros((height, width), np.float32)
    outcomes = _outcomes(small, salient)
    if not outcomes:
        return np.zeros((height, width), np.float32)
    best = _best(outcomes, small, salient)
    mask = _sharpen(fit_longest_edge(pixels, min(EDGE_PX, max(height, width))), best)
    return np.clip(cv2.resize(mask, (width, height), interpolation=cv2.INTER_LINEAR), 0, 1)


def cut(pixels: np.ndarray, labels: np.ndarray, num_rounds: int) -> np.ndarray:
    """OpenCV's GrabCut from given labels (`cv2.GC_*`, (H, W) uint8); returns the foreground, (H, W) bool."""
    labels = labels.copy()
    foreground = (labels == cv2.GC_FGD) | (labels == cv2.GC_PR_FGD)
    if foreground.all() or not foreground.any():
        return foreground
    cv2.setRNGSeed(0)
    background_model, foreground_model = np.zeros((1, 65)), np.zeros((1, 65))
    cv2.grabCut(pixels, labels, None, background_model, foreground_model, num_rounds, cv2.GC_INIT_WITH_MASK)
    return (labels == cv2.GC_FGD) | (labels == cv2.GC_PR_FGD)


def overlap(first: np.ndarray, second: np.ndarray) -> float:
    """Intersection over union of two (H, W) bool masks; 1 for two empty ones."""
    union = np.count_nonzero(first | second)
    return np.count_nonzero(first & second) / union if union else 1.0


def centred_ellipse(height: int, width: int) -> np.ndarray:
    """(H, W) bool: the ellipse around the middle of a picture with 0.4 of its edges as radii."""
    ellipse = np.zeros((height, width), np.uint8)
    axes = round(width * _ELLIPSE_RADIUS), round(height * _ELLIPSE_RADIUS)
    cv2.ellipse(ellipse, (width // 2, height // 2), axes, 0, 0, 360, 1, -1)
    return ellipse.astype(bool)


def _outcomes(pixels: np.ndarray, salient: np.ndarray) -> list[np.ndarray]:
    """What GrabCut makes of each start; only what is not empty."""
    starts: list[tuple[np.ndarray, float]] = []
    for threshold in np.percentile(salient, 99) * _THRESHOLDS:
        start = _one_thing(salient > threshold, salient)
        is_new = not starts or overlap(starts[-1][0], start) < _SAME_START
        if is_new and start.mean() > _SMALLEST_SHARE:
            starts.append((start, threshold))
    starts.append((centred_ellipse(*salient.shape), 0.0))
    outcomes = []
    for start, threshold in starts:
        near = _dilate(start, 7)
        labels = np.full(start.shape, cv2.GC_PR_BGD, np.uint8)
        labels[~near | (salient < 0.3 * threshold)] = cv2.GC_BGD
        labels[start] = cv2.GC_PR_FGD
        outcomes.append(_one_thing(cut(pixels, labels, 2), salient))
    return [outcome for outcome in outcomes if outcome.any()]


def _best(outcomes: list[np.ndarray], pixels: np.ndarray, salient: np.ndarray) -> np.ndarray:
    """The outcome that holds one whole thing and no more, by the product of three measures in [0, 1].

    Its outline runs along edges that stand out from the texture around; what is clearly salient in the
    middle lies in it (squared: a part left out is worse than a loose outline); it lies in the middle itself
    (square root: the weakest of the three).
    """
    edges, central = _edges(pixels), _centrality(*salient.shape)
    # Beyond it nothing counts for more: a glaring detail does not outweigh the thing that it belongs to.
    cap = max(0.5 * np.percentile(salient, 95), 1.0)

    def fit(mask: np.ndarray) -> float:
        outline, outside = mask & ~_erode(mask, 1), ~_dilate(mask, 3)
        if not (outline.any() and outside.any()):
            return 0.0
        plain_edge = _PLAIN_EDGE + 2 * edges[outside].mean()
        on_edges = np.mean(edges[outline] / (edges[outline] + plain_edge))
        clear = np.clip(salient - 4 * salient[outside].mean(), 0, cap) * central
        covered = clear[mask].sum() / max(clear.sum(), 1e-6)
        return on_edges * covered**2 * np.sqrt(central[mask].mean())

    return max(outcomes, key=fit)


def _one_thing(mask: np.ndarray, salient: np.ndarray) -> np.ndarray:
    """The part that stands out most in the middle, with the parts beside it that do so too, and few holes."""
    count, labels, stats, _ = cv2.connectedComponentsWithStats(mask.astype(np.uint8), connectivity=4)
    if count == 1:
        return mask
    weights = (salient * _centrality(*mask.shape)).ravel()
    weights = np.bincount(labels.ravel(), weights, count)
    weights[0] = -1
    main = int(weights.argmax())
    thing = labels == main
    near, level = _dilate(thing, 4), 0.25 * salient[thing].mean()
    for part in range(1, count):
        if part != main and stats[part, cv2.CC_STAT_AREA] > 0.02 * stats[main, cv2.CC_STAT_AREA]:
            inside = labels == part
            if near[inside].any() and salient[inside].mean() > level:
                thing |= inside
    return _without_small_holes(thing, salient)


def _without_small_holes(mask: np.ndarray, salient: np.ndarray) -> np.ndarray:
    """Fill the holes that are tiny or stand out themselves; others show the background."""
    count, labels, stats, _ = cv2.connectedComponentsWithStats((~mask).astype(np.uint8), connectivity=4)
    outside = np.unique(np.concatenate([labels[0], labels[-1], labels[:, 0], labels[:, -1]]))
    filled, level = mask.copy(), 0.5 * salient[mask].mean()
    for hole in np.setdiff1d(np.arange(1, count), outside):
        inside = labels == hole
        if stats[hole, cv2.CC_STAT_AREA] < 0.003 * mask.sum() or salient[inside].mean() > level:
            filled |= inside
    return filled


def _sharpen(pixels: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """`mask` at the size of `pixels`, its outline cut again and softened along edges; (H, W) float32."""
    height, width = pixels.shape[:2]
    larger = cv2.resize(mask.astype(np.float32), (width, height), interpolation=cv2.INTER_LINEAR) > 0.5
    labels = np.where(larger, cv2.GC_PR_FGD, cv2.GC_PR_BGD).astype(np.uint8)
    labels[_erode(larger, _BAND_PX)] = cv2.GC_FGD
    labels[~_dilate(larger, _BAND_PX)] = cv2.GC_BGD
    return cv2.GaussianBlur(cut(pixels, labels, 1).astype(np.float32), (0, 0), 1.0)


def _edges(pixels: np.ndarray) -> np.ndarray:
    """Strength of the strongest edge within a pixel; (H, W), in CIELAB units."""
    lab = cv2.cvtColor(cv2.GaussianBlur(pixels, (0, 0), 1.0).astype(np.float32) / 255, cv2.COLOR_RGB2LAB)
    slope_x, slope_y = cv2.Sobel(lab, -1, 1, 0), cv2.Sobel(lab, -1, 0, 1)
    return cv2.dilate(np.sqrt((slope_x**2 + slope_y**2).sum(-1)), _CROSS_3)


def _centrality(height: int, width: int) -> np.ndarray:
    """A Gaussian around the middle of the picture; (H, W)."""
    ys = np.exp(-0.5 * ((np.arange(height) / height - 0.5) / _SPREAD) ** 2)
    xs = np.exp(-0.5 * ((np.arange(width) / width - 0.5) / _SPREAD) ** 2)
    return ys[:, None] * xs[None, :]


def _dilate(mask: np.ndarray, radius: int) -> np.ndarray:
    """`mask` grown by a square of `radius` pixels on each side."""
    kernel = np.ones((2 * radius + 1, 2 * radius + 1), np.uint8)
    return cv2.dilate(mask.astype(np.uint8), kernel).astype(bool)


def _erode(mask: np.ndarray, radius: int) -> np.ndarray:
    """`mask` shrunk by a square of `radius` pixels; the picture's rim does not shrink it."""
    return ~_dilate(~mask, radius)
