"""What stands out in a picture: what is unlike its border, and hard to reach from there."""

import cv2
import numpy as np

LONGEST_EDGE_PX = 160

# Weight of a place beside a colour, in CIELAB units for the whole edge: the border near by counts more.
_PLACE_WEIGHT = 10.0
_NUM_BORDER_COLOURS = 96
_BORDER_PX = 3
# At the bottom only this share on either side counts: people and animals often stand in the middle.
_BOTTOM_SHARE = 0.2
# A shadow is the ground's own colour, dimmed: each border colour is compared at these brightnesses too, and
# a full dimming (to 0) would cost so many units.
_DIMMINGS = (1.0, 0.85, 0.72, 0.6)
_DIMMING_COST = 8.0
# salience = distance ** share * barrier ** (1 - share).
_DISTANCE_SHARE = 0.8


def salience(pixels: np.ndarray) -> np.ndarray:
    """How much each pixel stands out from what lies along the picture's border.

    A weighted geometric mean of two cues: the distance in colour to the border, with shadows discounted, and
    the barrier on the way there. A brick in a wall has a high barrier and a small distance, a cloud the
    reverse; what is high in both is seldom background.

    Args:
        pixels: (H, W, 3) uint8 RGB.

    Returns:
        (H, W) float32 >= 0 in units of CIELAB: 2 is hardly seen, 30 is another colour.
    """
    height, width = pixels.shape[:2]
    small = _without_texture(fit_longest_edge(pixels, LONGEST_EDGE_PX))
    lab = cv2.cvtColor(small, cv2.COLOR_RGB2LAB)
    distance, barrier = _border_distance(lab), _border_barrier(lab)
    combined = distance**_DISTANCE_SHARE * barrier ** (1 - _DISTANCE_SHARE)
    return cv2.resize(combined, (width, height), interpolation=cv2.INTER_LINEAR)


def fit_longest_edge(image: np.ndarray, edge_px: int, smallest_px: int = 16) -> np.ndarray:
    """`image` resized so that its longer edge is `edge_px`, the other at least `smallest_px`."""
    height, width = image.shape[:2]
    scale = edge_px / max(height, width)
    size = max(smallest_px, round(width * scale)), max(smallest_px, round(height * scale))
    shrinks = size[0] * size[1] < width * height
    return cv2.resize(image, size, interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_CUBIC)


def _without_texture(pixels: np.ndarray) -> np.ndarray:
    """`pixels` as float32 in [0, 1], smoothed between its edges."""
    smooth = pixels.astype(np.float32) / 255
    for _ in range(3):
        smooth = cv2.bilateralFilter(smooth, 7, 0.12, 3)
    return np.clip(smooth, 0, 1)


def _border(height: int, width: int, thickness: int) -> np.ndarray:
    """The strip along the edges, (height, width) bool, but for the bottom's middle."""
    border = np.ones((height, width), bool)
    border[thickness:-thickness, thickness:-thickness] = False
    margin = round(width * _BOTTOM_SHARE)
    border[-thickness:, margin : width - margin] = False
    return border


def _border_distance(lab: np.ndarray) -> np.ndarray:
    """Distance of each pixel to the nearest colour of the border, bright or in shadow; (H, W)."""
    height, width = lab.shape[:2]
    ys, xs = np.mgrid[0:height, 0:width].astype(np.float32)
    places = np.stack([xs / width, ys / height], axis=-1) * _PLACE_WEIGHT
    points = np.concatenate([lab, places], axis=-1)
    cv2.setRNGSeed(0)
    stop_after = (cv2.TERM_CRITERIA_COUNT + cv2.TERM_CRITERIA_EPS, 8, 0.5)
    border = points[_border(height, width, _BORDER_PX)]
    count = min(_NUM_BORDER_COLOURS, len(border))
    _, _, centres = cv2.kmeans(border, count, None, stop_after, 1, cv2.KMEANS_PP_CENTERS)
    colours = cv2.cvtColor(centres[None, :, :3], cv2.COLOR_LAB2RGB)
    points = points.reshape(-1, points.shape[-1])
    nearest = np.full(len(points), np.inf, np.float32)
    for dimming in _DIMMINGS:
        dimmed = cv2.cvtColor(colours * np.float32(dimming), cv2.COLOR_RGB2LAB)[0]
        samples = np.concatenate([dimmed, centres[:, 3:]], axis=1)
        squared = (samples**2).sum(1) - 2 * points @ samples.T  # |point|² is added below
        np.minimum(nearest, squared.min(1) + ((1 - dimming) * _DIMMING_COST) ** 2, out=nearest)
    nearest += (points**2).sum(1)
    return np.sqrt(np.maximum(nearest, 0)).reshape(height, width)


def _border_barrier(lab: np.ndarray, num_rounds: int = 2) -> np.ndarray:
    """The minimum barrier distance to the border: the least range of values on any path there; (H, W).

    By sweeps over the picture, as in "Minimum Barrier Salient Object Detection at 80 FPS" (Zhang et al.,
    ICCV 2015), a row at a time; each channel on its own, joined by their Euclidean norm.
    """
    highest, lowest = lab.copy(), lab.copy()
    barrier = np.full(lab.shape, np.inf, np.float32)
    barrier[_border(*lab.shape[:2], 1)] = 0
    for _ in range(num_rounds):
        for turn in range(4):
            turned = (np.rot90(array, turn) for array in (lab, highest, lowest, barrier))
            _sweep_down(*turned)
    return np.sqrt((barrier**2).sum(-1))


def _sweep_down(values: np.ndarray, highest: np.ndarray, lowest: np.ndarray, barrier: np.ndarray) -> None:
    """Let each pixel take, in place, the best path among those of its three neighbours above."""
    pairs = ((slice(None), slice(None)), (slice(1, None), slice(None, -1)), (slice(None, -1), slice(1, None)))
    for y in range(1, len(values)):
        for here, above in pairs:
            value = values[y, here]
            high = np.maximum(highest[y - 1, above], value)
            low = np.minimum(lowest[y - 1, above], value)
            better = high - low < barrier[y, here]
            np.copyto(highest[y, here], high, where=better)
            np.copyto(lowest[y, here], low, where=better)
            np.copyto(barrier[y, here], high - low, where=better)
