"""The ten places of mini's world, painted at any size.

A scene painter gets a canvas, draws its own variation from `rng` and leaves an RGB image without
fine noise: what a small autoencoder cannot keep must not be there.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

from dreamspace.mini.shapes import RGB


@dataclass
class Canvas:
    """A square picture in unit coordinates: (0, 0) is the top left corner, (1, 1) the bottom right."""

    size_px: int
    horizon: float
    rng: np.random.Generator
    image: Image.Image

    def gradient(self, top: RGB, bottom: RGB, start: float = 0.0, end: float = 1.0) -> None:
        """Fill the rows between `start` and `end` with a vertical gradient."""
        first, last = round(start * self.size_px), round(end * self.size_px)
        weights = np.linspace(0, 1, max(last - first, 1))[:, None, None]
        rows = (1 - weights) * np.array(top) + weights * np.array(bottom)
        band = Image.fromarray(rows.astype(np.uint8)).resize((self.size_px, max(last - first, 1)))
        self.image.paste(band, (0, first))

    def polygon(self, points: list[tuple[float, float]], fill: RGB) -> None:
        ImageDraw.Draw(self.image).polygon(
            [(x * self.size_px, y * self.size_px) for x, y in points], fill=fill
        )

    def disc(
        self, x: float, y: float, rx: float, ry: float, fill: RGB, opacity: float = 1.0, blur: float = 0.0
    ) -> None:
        """A filled ellipse; `blur` is the standard deviation of its soft edge in units of the picture."""
        self.soft_shape(
            lambda draw, s: draw.ellipse([(x - rx) * s, (y - ry) * s, (x + rx) * s, (y + ry) * s], fill=255),
            fill, opacity, blur,
        )  # fmt: skip

    def soft_shape(self, paint: Callable, fill: RGB, opacity: float = 1.0, blur: float = 0.0) -> None:
        """Paint a shape through a mask of half the size, which is enough for soft edges and is cheap."""
        size = self.size_px // 2
        mask = Image.new("L", (size, size))
        paint(ImageDraw.Draw(mask), size)
        if blur:
            mask = mask.filter(ImageFilter.GaussianBlur(blur * size))
        mask = mask.point(lambda value: round(value * opacity)).resize(self.image.size)
        self.image.paste(fill, (0, 0), mask)

    def soft_polygon(
        self, points: list[tuple[float, float]], fill: RGB, opacity: float = 1.0, blur: float = 0.0
    ) -> None:
        def paint(draw: ImageDraw.ImageDraw, size: int) -> None:
            draw.polygon([(x * size, y * size) for x, y in points], fill=255)

        self.soft_shape(paint, fill, opacity, blur)

    def hill(self, height: float, amplitude: float, fill: RGB) -> None:
        """Ground from a rolling line around `height` down to the bottom."""
        xs = np.linspace(0, 1, 33)
        phase, waves = self.rng.uniform(0, 6.28), self.rng.uniform(0.7, 1.3)
        line = height + amplitude * np.sin(phase + 6.28 * waves * xs)
        self.polygon([(0, 1), *zip(xs.tolist(), line.tolist(), strict=True), (1, 1)], fill)

    def clouds(self, count: int, fill: RGB = (255, 255, 255)) -> None:
        for _ in range(count):
            x, y = self.rng.uniform(0, 1), self.rng.uniform(0.06, self.horizon * 0.5)
            width = self.rng.uniform(0.09, 0.17)
            self.disc(x, y, width, width * 0.28, fill, 0.75, 0.018)
            self.disc(x + width * 0.2, y - width * 0.2, width * 0.5, width * 0.3, fill, 0.75, 0.018)


def beach(canvas: Canvas) -> None:
    canvas.gradient((104, 178, 232), (198, 230, 244), 0, canvas.horizon - 0.12)
    canvas.clouds(2)
    canvas.gradient((38, 142, 176), (84, 190, 200), canvas.horizon - 0.12, canvas.horizon + 0.05)
    canvas.hill(canvas.horizon + 0.03, 0.012, (250, 246, 230))
    canvas.hill(canvas.horizon + 0.05, 0.012, (240, 214, 158))


def meadow(canvas: Canvas) -> None:
    canvas.gradient((120, 190, 240), (214, 236, 246), 0, 1)
    canvas.clouds(2)
    canvas.hill(canvas.horizon - 0.05, 0.04, (134, 190, 108))
    canvas.hill(canvas.horizon + 0.04, 0.02, (96, 166, 74))
    for _ in range(5):
        x, y = canvas.rng.uniform(0.03, 0.97), canvas.rng.uniform(canvas.horizon + 0.12, 0.97)
        canvas.disc(x, y, 0.018, 0.014, (250, 232, 120), blur=0.004)


def snow(canvas: Canvas) -> None:
    canvas.gradient((168, 188, 212), (222, 230, 240), 0, 1)
    for _ in range(3):
        x, height = canvas.rng.uniform(0.02, 0.98), canvas.rng.uniform(0.16, 0.26)
        foot = canvas.horizon + 0.03
        for level in range(2):
            top, half = foot - height * (1 - 0.35 * level), height * (0.2 + 0.09 * level)
            canvas.polygon(
                [(x, top), (x - half, top + height * 0.65), (x + half, top + height * 0.65)], (126, 158, 160)
            )
    canvas.hill(canvas.horizon, 0.025, (230, 236, 246))
    canvas.hill(canvas.horizon + 0.12, 0.02, (244, 247, 252))


def desert(canvas: Canvas) -> None:
    canvas.gradient((236, 126, 84), (252, 212, 140), 0, canvas.horizon + 0.1)
    canvas.disc(canvas.rng.uniform(0.1, 0.9), canvas.horizon - 0.16, 0.09, 0.09, (255, 240, 190), blur=0.008)
    canvas.hill(canvas.horizon - 0.02, 0.035, (214, 132, 76))
    canvas.hill(canvas.horizon + 0.07, 0.025, (198, 112, 62))


def forest(canvas: Canvas) -> None:
    canvas.gradient((116, 150, 104), (66, 104, 74), 0, 1)
    for shade, count, width in (((84, 118, 84), 4, 0.05), ((52, 62, 50), 3, 0.075)):
        for place in range(count):
            x, foot = (place + canvas.rng.uniform(0.1, 0.9)) / count, canvas.horizon + 0.1
            top, bottom = width * 0.4, width * 0.55
            canvas.polygon([(x - top, 0), (x + top, 0), (x + bottom, foot), (x - bottom, foot)], shade)
    canvas.hill(canvas.horizon + 0.02, 0.02, (58, 88, 52))
    canvas.hill(canvas.horizon + 0.1, 0.015, (72, 106, 58))


def underwater(canvas: Canvas) -> None:
    canvas.gradient((58, 182, 206), (14, 70, 130), 0, 1)
    for _ in range(2):
        x, width = canvas.rng.uniform(0.1, 0.9), canvas.rng.uniform(0.05, 0.1)
        ray = [(x, 0), (x + width, 0), (x + width - 0.12, 0.8), (x - width - 0.16, 0.8)]
        canvas.soft_polygon(ray, (150, 226, 232), 0.28, 0.02)
    canvas.hill(canvas.horizon + 0.08, 0.03, (36, 104, 138))
    for _ in range(4):
        radius = canvas.rng.uniform(0.012, 0.022)
        x, y = canvas.rng.uniform(0, 1), canvas.rng.uniform(0.05, 0.7)
        canvas.disc(x, y, radius, radius, (176, 232, 240), 0.7, 0.003)


def night(canvas: Canvas) -> None:
    canvas.gradient((14, 16, 48), (52, 50, 104), 0, 1)
    side = canvas.rng.choice([canvas.rng.uniform(0.08, 0.26), canvas.rng.uniform(0.74, 0.92)])
    canvas.disc(side, 0.15, 0.085, 0.085, (246, 240, 206), blur=0.004)
    for _ in range(9):
        x, y = canvas.rng.uniform(0, 1), canvas.rng.uniform(0.02, canvas.horizon - 0.1)
        canvas.disc(x, y, 0.011, 0.011, (236, 236, 255), 0.85, 0.003)
    canvas.hill(canvas.horizon, 0.025, (26, 30, 58))
    canvas.hill(canvas.horizon + 0.1, 0.02, (34, 38, 66))


def table(canvas: Canvas) -> None:
    canvas.gradient((246, 234, 208), (232, 214, 182), 0, canvas.horizon)
    x = canvas.rng.uniform(0.0, 0.6)
    window_light = [(x, 0), (x + 0.3, 0), (x + 0.5, 0.7), (x + 0.2, 0.7)]
    canvas.soft_polygon(window_light, (255, 248, 228), 0.8, 0.02)
    canvas.gradient((166, 108, 62), (138, 84, 46), canvas.horizon, 1)
    for line in (0.24, 0.56):
        y = canvas.horizon + (1 - canvas.horizon) * line
        canvas.polygon([(0, y), (1, y), (1, y + 0.016), (0, y + 0.016)], (118, 70, 38))


def studio(canvas: Canvas) -> None:
    canvas.gradient((206, 208, 212), (226, 227, 230), 0, canvas.horizon)
    canvas.gradient((190, 192, 197), (206, 208, 212), canvas.horizon, 1)
    canvas.disc(0.5, canvas.horizon, 0.6, 0.05, (206, 208, 212), blur=0.05)
    canvas.disc(canvas.rng.uniform(0.2, 0.8), 0.2, 0.3, 0.22, (244, 245, 247), 0.7, 0.1)


def brick_wall(canvas: Canvas) -> None:
    canvas.image.paste((196, 150, 132), (0, 0, canvas.size_px, canvas.size_px))
    height, width = 0.11, 0.25
    shift = canvas.rng.uniform(0, width)
    for row in range(int(canvas.horizon / height) + 1):
        for column in range(-1, 6):
            x, y = column * width + shift - (row % 2) * width / 2, row * height
            fill = (172, 92, 74) if (row + 2 * column) % 3 else (160, 82, 68)
            right, bottom = x + width - 0.022, y + height - 0.022
            canvas.polygon([(x, y), (right, y), (right, bottom), (x, bottom)], fill)
    canvas.gradient((150, 148, 146), (128, 126, 126), canvas.horizon, 1)


SCENES: dict[str, tuple[str, Callable[[Canvas], None]]] = {
    "beach": ("on a beach", beach),
    "meadow": ("in a meadow", meadow),
    "snow": ("in the snow", snow),
    "desert": ("in the desert", desert),
    "forest": ("in a forest", forest),
    "underwater": ("under water", underwater),
    "night": ("at night", night),
    "table": ("on a wooden table", table),
    "studio": ("in a studio", studio),
    "wall": ("in front of a brick wall", brick_wall),
}
"""Name of each scene: the words of its caption, and its painter."""


def paint_scene(name: str, size_px: int, rng: np.random.Generator) -> tuple[Image.Image, float]:
    """Paint a scene; returns the RGB picture and the height of its horizon in units of the picture."""
    horizon = rng.uniform(0.52, 0.62)
    canvas = Canvas(size_px, horizon, rng, Image.new("RGB", (size_px, size_px)))
    SCENES[name][1](canvas)
    return canvas.image, horizon
