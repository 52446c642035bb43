"""Outlines of the things in mini's world, as lists of parts in unit coordinates.

A thing lives in [-1, 1] x [-1, 1], x to the right, y down, its foot on y = 0.9. Parts are painted in
order. A fill is a role ("main" carries colour and pattern, "shade" is a darker main, "trim" the second
colour) or a fixed RGB triple.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

RGB = tuple[int, int, int]

DARK: RGB = (52, 44, 48)
GLASS: RGB = (178, 218, 236)
CREAM: RGB = (245, 234, 214)
METAL: RGB = (150, 156, 168)
GOLD: RGB = (240, 176, 48)


@dataclass(frozen=True)
class Part:
    """One filled outline: `points` (N, 2) in unit coordinates."""

    name: str
    points: np.ndarray
    fill: str | RGB = "main"


def ellipse(x: float, y: float, rx: float, ry: float, turn: float = 0.0) -> np.ndarray:
    """An ellipse around (x, y), turned by `turn` radians."""
    angles = np.linspace(0, 2 * np.pi, 40, endpoint=False)
    px, py = rx * np.cos(angles), ry * np.sin(angles)
    cos, sin = np.cos(turn), np.sin(turn)
    return np.stack([x + cos * px - sin * py, y + sin * px + cos * py], axis=1)


def box(left: float, top: float, right: float, bottom: float, radius: float = 0.08) -> np.ndarray:
    """A rectangle with rounded corners."""
    corners = [(right - radius, top + radius, -90), (right - radius, bottom - radius, 0),
               (left + radius, bottom - radius, 90), (left + radius, top + radius, 180)]  # fmt: skip
    angles = [(x, y, np.deg2rad(start + step)) for x, y, start in corners for step in range(0, 91, 15)]
    return np.array([(x + radius * np.cos(a), y + radius * np.sin(a)) for x, y, a in angles])


def soft(*points: tuple[float, float]) -> np.ndarray:
    """A smooth closed outline through the middle of the given polygon (Chaikin's corner cutting)."""
    outline = np.array(points, dtype=float)
    for _ in range(3):
        following = np.roll(outline, -1, axis=0)
        outline = np.stack([0.75 * outline + 0.25 * following, 0.25 * outline + 0.75 * following], 1).reshape(-1, 2)
    return outline


def sharp(*points: tuple[float, float]) -> np.ndarray:
    return np.array(points, dtype=float)


def ring(x: float, y: float, rx: float, ry: float, width: float) -> np.ndarray:
    """A closed band around an ellipse, as one outline that runs around and back."""
    outer, inner = ellipse(x, y, rx, ry), ellipse(x, y, rx - width, ry - width)
    return np.concatenate([outer, outer[:1], inner[:1], inner[::-1]])


def eye(x: float, y: float, size: float = 0.07) -> list[Part]:
    return [
        Part("eye", ellipse(x, y, size, size * 1.1), DARK),
        Part("glint", ellipse(x - size * 0.3, y - size * 0.35, size * 0.32, size * 0.32), (255, 255, 255)),
    ]


def dog() -> list[Part]:
    return [
        Part("tail", soft((0.55, 0.1), (0.72, 0.05), (0.85, -0.5), (1.0, -0.45), (0.9, 0.1), (0.65, 0.35))),
        Part("far_leg", box(-0.28, 0.3, -0.08, 0.86, 0.08), "shade"),
        Part("far_leg", box(0.28, 0.3, 0.48, 0.86, 0.08), "shade"),
        Part("body", soft((-0.6, -0.12), (0.5, -0.08), (0.85, 0.1), (0.8, 0.55), (0.3, 0.56), (-0.5, 0.6), (-0.7, 0.3))),
        Part("leg", box(-0.52, 0.3, -0.28, 0.92, 0.09)),
        Part("leg", box(0.5, 0.3, 0.74, 0.92, 0.09)),
        Part("head", ellipse(-0.5, -0.42, 0.4, 0.36)),
        Part("snout", ellipse(-0.82, -0.3, 0.22, 0.17), CREAM),
        Part("nose", ellipse(-0.98, -0.37, 0.08, 0.07), DARK),
        *eye(-0.62, -0.52),
        Part("ear", ellipse(-0.22, -0.36, 0.15, 0.34, -0.25), "shade"),
    ]


def cat() -> list[Part]:
    return [
        Part("tail", soft((0.3, 0.8), (0.75, 0.8), (0.85, 0.3), (0.7, -0.1), (0.92, -0.2), (1.05, 0.4), (0.9, 0.98), (0.3, 0.98))),
        Part("body", soft((-0.35, -0.3), (0.35, -0.3), (0.7, 0.6), (0.55, 0.96), (-0.55, 0.96), (-0.7, 0.6))),
        Part("ear", sharp((-0.5, -0.5), (-0.5, -1.02), (-0.08, -0.72))),
        Part("ear", sharp((0.5, -0.5), (0.5, -1.02), (0.08, -0.72))),
        Part("inner_ear", sharp((-0.43, -0.66), (-0.43, -0.88), (-0.24, -0.74)), (246, 170, 170)),
        Part("inner_ear", sharp((0.43, -0.66), (0.43, -0.88), (0.24, -0.74)), (246, 170, 170)),
        Part("head", ellipse(0, -0.42, 0.52, 0.42)),
        Part("belly", ellipse(0, 0.5, 0.26, 0.36), CREAM),
        *eye(-0.22, -0.46, 0.1),
        *eye(0.22, -0.46, 0.1),
        Part("muzzle", ellipse(0, -0.24, 0.17, 0.11), CREAM),
        Part("nose", ellipse(0, -0.29, 0.06, 0.04), (226, 110, 120)),
        Part("leg", box(-0.36, 0.66, -0.12, 0.96, 0.1), "shade"),
        Part("leg", box(0.12, 0.66, 0.36, 0.96, 0.1), "shade"),
    ]


def bird() -> list[Part]:
    return [
        Part("foot", box(-0.18, 0.6, -0.1, 0.9, 0.03), GOLD),
        Part("foot", box(0.12, 0.6, 0.2, 0.9, 0.03), GOLD),
        Part("foot", box(-0.32, 0.84, -0.06, 0.92, 0.03), GOLD),
        Part("foot", box(-0.02, 0.84, 0.24, 0.92, 0.03), GOLD),
        Part("tail", soft((0.45, 0.0), (1.1, -0.42), (1.08, -0.05), (0.5, 0.35)), "shade"),
        Part("body", soft((-0.4, -0.35), (0.2, -0.3), (0.75, 0.05), (0.5, 0.65), (-0.1, 0.78), (-0.55, 0.5), (-0.65, 0.0))),
        Part("beak", sharp((-0.7, -0.58), (-1.08, -0.4), (-0.68, -0.3)), GOLD),
        Part("head", ellipse(-0.4, -0.46, 0.36, 0.34)),
        Part("crest", soft((-0.45, -0.72), (-0.25, -1.02), (-0.12, -0.95), (-0.2, -0.65)), "shade"),
        *eye(-0.5, -0.5, 0.08),
        Part("wing", soft((-0.2, 0.0), (0.35, -0.08), (0.72, 0.3), (0.2, 0.48), (-0.2, 0.35)), "trim"),
    ]


def fish() -> list[Part]:
    return [
        Part("tail", soft((0.4, 0.02), (0.7, -0.2), (1.1, -0.6), (1.0, 0.05), (1.1, 0.65), (0.7, 0.25)), "shade"),
        Part("fin", soft((-0.3, -0.4), (0.1, -0.88), (0.45, -0.7), (0.35, -0.3)), "shade"),
        Part("fin", soft((-0.1, 0.4), (0.1, 0.8), (0.35, 0.7), (0.3, 0.35)), "shade"),
        Part("body", soft((-1.05, 0.05), (-0.6, -0.55), (0.1, -0.58), (0.75, -0.1), (0.75, 0.14), (0.1, 0.6), (-0.6, 0.6))),
        Part("cheek", soft((-0.95, 0.05), (-0.62, -0.42), (-0.5, 0.02), (-0.62, 0.45)), CREAM),
        *eye(-0.66, -0.08, 0.1),
        Part("side_fin", soft((-0.15, 0.1), (0.25, 0.05), (0.25, 0.36), (0.0, 0.35)), "trim"),
    ]


def robot() -> list[Part]:
    return [
        Part("leg", box(-0.38, 0.5, -0.1, 0.92, 0.06), "shade"),
        Part("leg", box(0.1, 0.5, 0.38, 0.92, 0.06), "shade"),
        Part("arm", box(-0.86, -0.14, -0.6, 0.5, 0.1), "shade"),
        Part("arm", box(0.6, -0.14, 0.86, 0.5, 0.1), "shade"),
        Part("hand", ellipse(-0.73, 0.54, 0.15, 0.13), METAL),
        Part("hand", ellipse(0.73, 0.54, 0.15, 0.13), METAL),
        Part("neck", box(-0.14, -0.34, 0.14, -0.1, 0.02), METAL),
        Part("body", box(-0.56, -0.2, 0.56, 0.6, 0.1)),
        Part("head", box(-0.46, -0.9, 0.46, -0.26, 0.12)),
        Part("face", box(-0.34, -0.76, 0.34, -0.42, 0.1), DARK),
        Part("lamp", ellipse(-0.16, -0.59, 0.09, 0.09), (250, 226, 110)),
        Part("lamp", ellipse(0.16, -0.59, 0.09, 0.09), (250, 226, 110)),
    ]


def mug() -> list[Part]:
    return [
        Part("handle", ring(0.5, 0.08, 0.48, 0.44, 0.17), "shade"),
        Part("body", np.concatenate([ellipse(-0.12, -0.66, 0.64, 0.16)[20:], ellipse(-0.12, 0.72, 0.58, 0.18)[:21]])),
        Part("rim", ellipse(-0.12, -0.66, 0.64, 0.17), "shade"),
        Part("drink", ellipse(-0.12, -0.64, 0.54, 0.12), (92, 58, 40)),
    ]


def teapot() -> list[Part]:
    return [
        Part("handle", ring(0.66, 0.1, 0.4, 0.42, 0.14), "shade"),
        Part("spout", soft((-0.5, 0.5), (-0.5, 0.1), (-0.82, -0.1), (-0.88, -0.45), (-1.12, -0.42), (-1.0, 0.15), (-0.7, 0.6)), "shade"),
        Part("foot", ellipse(0, 0.82, 0.42, 0.1), "shade"),
        Part("body", ellipse(0, 0.2, 0.68, 0.64)),
        Part("lid", np.concatenate([ellipse(0, -0.34, 0.42, 0.26)[20:], ellipse(0, -0.34, 0.42, 0.08)[:21]]), "shade"),
        Part("knob", ellipse(0, -0.66, 0.12, 0.12), "trim"),
    ]


def car() -> list[Part]:
    return [
        Part("cabin", soft((-0.62, 0.0), (-0.5, -0.62), (-0.1, -0.74), (0.4, -0.72), (0.72, 0.0), (0.3, 0.1)), "shade"),
        Part("window", soft((-0.48, -0.04), (-0.4, -0.5), (-0.02, -0.56), (-0.02, -0.04)), GLASS),
        Part("window", soft((0.06, -0.04), (0.06, -0.56), (0.36, -0.54), (0.54, -0.04)), GLASS),
        Part("body", soft((-1.1, 0.25), (-1.02, -0.06), (-0.5, -0.14), (0.6, -0.14), (1.05, 0.02), (1.1, 0.6), (0.9, 0.66), (-1.0, 0.66))),
        Part("light", ellipse(-0.95, 0.2, 0.09, 0.09), (252, 236, 150)),
        Part("wheel", ellipse(-0.56, 0.64, 0.27, 0.27), DARK),
        Part("wheel", ellipse(0.58, 0.64, 0.27, 0.27), DARK),
        Part("hub", ellipse(-0.56, 0.64, 0.12, 0.12), METAL),
        Part("hub", ellipse(0.58, 0.64, 0.12, 0.12), METAL),
    ]


def boat() -> list[Part]:
    return [
        Part("mast", box(-0.05, -1.0, 0.05, 0.5, 0.02), (120, 84, 56)),
        Part("sail", soft((0.1, -1.05), (0.1, -0.95), (0.62, -0.1), (0.85, 0.28), (0.1, 0.3), (0.1, 0.2))),
        Part("small_sail", soft((-0.1, -0.85), (-0.1, -0.75), (-0.5, 0.0), (-0.62, 0.26), (-0.1, 0.28), (-0.1, 0.2)), CREAM),
        Part("hull", soft((-1.05, 0.38), (-0.9, 0.4), (0.9, 0.4), (1.08, 0.36), (0.8, 0.88), (0.5, 0.94), (-0.55, 0.94), (-0.8, 0.86))),
        Part("rail", box(-0.98, 0.36, 1.0, 0.47, 0.04), "shade"),
    ]


def house() -> list[Part]:
    return [
        Part("chimney", box(0.34, -0.86, 0.56, -0.3, 0.02), (150, 92, 78)),
        Part("wall", box(-0.66, -0.2, 0.66, 0.92, 0.03)),
        Part("roof", sharp((-0.92, -0.14), (0.0, -0.96), (0.92, -0.14)), "shade"),
        Part("door", box(-0.16, 0.34, 0.16, 0.92, 0.04), (112, 74, 52)),
        Part("window", box(-0.54, 0.06, -0.26, 0.36, 0.03), GLASS),
        Part("window", box(0.26, 0.06, 0.54, 0.36, 0.03), GLASS),
    ]


def backpack() -> list[Part]:
    return [
        Part("handle", ring(0, -0.8, 0.24, 0.2, 0.09), DARK),
        Part("strap", box(-0.82, -0.3, -0.54, 0.7, 0.12), "shade"),
        Part("strap", box(0.54, -0.3, 0.82, 0.7, 0.12), "shade"),
        Part("body", soft((-0.66, -0.3), (-0.56, -0.88), (0.0, -0.92), (0.56, -0.88), (0.66, -0.3), (0.74, 0.9), (0.3, 0.96), (-0.3, 0.96), (-0.74, 0.9))),
        Part("zip", box(-0.46, -0.36, 0.46, -0.29, 0.03), DARK),
        Part("pocket", box(-0.44, 0.2, 0.44, 0.8, 0.12), "shade"),
        Part("buckle", box(-0.08, 0.14, 0.08, 0.34, 0.03), GOLD),
    ]


def mushroom() -> list[Part]:
    return [
        Part("stem", soft((-0.22, 0.0), (0.22, 0.0), (0.24, 0.5), (0.42, 0.94), (-0.42, 0.94), (-0.24, 0.5)), CREAM),
        Part("gills", ellipse(0, 0.1, 0.78, 0.16), (222, 200, 170)),
        Part("cap", np.concatenate([ellipse(0, 0.06, 0.94, 0.96)[20:], ellipse(0, 0.06, 0.94, 0.1)[:21]])),
    ]


OUTLINES: dict[str, Callable[[], list[Part]]] = {
    "dog": dog, "cat": cat, "bird": bird, "fish": fish, "robot": robot, "mug": mug, "teapot": teapot, "car": car,
    "boat": boat, "house": house, "backpack": backpack, "mushroom": mushroom,
}  # fmt: skip
