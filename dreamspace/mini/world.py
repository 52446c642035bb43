"""Mini's illustrated world: pictures without end, each with its exact caption and mask.

Everything is a pure function of a `Scenery` (what is asked for) and a seed (how it turns out), drawn
with Pillow and NumPy, without torch: the app draws the sample subjects with the same code that trains
the model.
"""

import hashlib
from dataclasses import dataclass, field
from itertools import product

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

from dreamspace.mini.scenes import SCENES, paint_scene
from dreamspace.mini.shapes import OUTLINES, RGB, Part

SUPERSAMPLING = 2

COLOURS: dict[str, tuple[RGB, RGB]] = {
    "red": ((212, 46, 48), (250, 236, 220)),
    "orange": ((242, 132, 36), (252, 240, 222)),
    "yellow": ((248, 210, 58), (176, 108, 30)),
    "green": ((54, 158, 76), (236, 246, 222)),
    "blue": ((44, 102, 208), (232, 240, 252)),
    "purple": ((132, 70, 182), (240, 230, 250)),
    "pink": ((246, 140, 182), (255, 240, 246)),
    "brown": ((128, 80, 46), (240, 220, 186)),
    "white": ((242, 242, 240), (136, 158, 192)),
    "black": ((44, 44, 52), (214, 214, 222)),
}
"""Each colour word: the main colour, and the second one that patterns and trim take."""

PATTERNS: dict[str, str] = {"plain": "", "striped": "striped", "spotted": "spotted", "checkered": "checkered"}
"""Each pattern and its word in a caption; plain things are just called by their colour."""

CLASSES = tuple(OUTLINES)
FILLERS = ("nice", "small", "big", "old", "new", "pretty", "little", "good", "lovely", "simple")


@dataclass(frozen=True)
class Scenery:
    """What a picture shows: a class, its colour and pattern, and the scene it stands in."""

    class_word: str
    colour: str
    pattern: str
    scene: str

    def caption(self) -> str:
        words = [self.colour, PATTERNS[self.pattern], self.class_word, SCENES[self.scene][0]]
        return "a photo of a " + " ".join(word for word in words if word)


@dataclass(frozen=True)
class Look:
    """How a thing is painted: its texture, and what is its own.

    `fills` gives parts of that name another fill; `extras` are parts painted on top; `behind` are
    painted first; `without` leaves parts of that name out.
    """

    main: RGB
    second: RGB
    pattern: str
    third: RGB = (255, 255, 255)
    fills: dict[str, str | RGB] = field(default_factory=dict)
    extras: tuple[Part, ...] = ()
    behind: tuple[Part, ...] = ()
    without: tuple[str, ...] = ()


@dataclass(frozen=True)
class Render:
    """A picture (RGB), the mask of its thing (L, 255 inside), and its caption."""

    image: Image.Image
    mask: Image.Image
    caption: str


def all_sceneries() -> list[Scenery]:
    return [Scenery(*combination) for combination in product(CLASSES, COLOURS, PATTERNS, SCENES)]


def is_held_out(scenery: Scenery) -> bool:
    """Whether this combination is kept out of training: one in twenty, by the hash of its caption."""
    return hashlib.sha256(scenery.caption().encode()).digest()[0] < 256 // 20


def texture(
    look: Look, size: int, half_px: float, centre: tuple[float, float], turn: float, phase: float
) -> Image.Image:
    """The look's pattern over the whole picture, fixed to the thing and not to the picture.

    `plain`, `striped`, `spotted` and `checkered` belong to the training world; `patches`, `zigzag`,
    `bands` and `halves` are for sample subjects only.
    """
    ys, xs = np.mgrid[0:size, 0:size].astype(np.float32)
    xs, ys = (xs - centre[0]) / half_px, (ys - centre[1]) / half_px
    cos, sin = np.cos(turn), np.sin(turn)
    u, v = cos * xs + sin * ys + phase, -sin * xs + cos * ys + phase
    if look.pattern == "plain":
        chosen = np.zeros(u.shape, int)
    elif look.pattern == "striped":
        chosen = np.mod(v, 0.4) > 0.24
    elif look.pattern == "spotted":
        row = np.floor(v / 0.38)
        near_u = np.mod(u + 0.22 * np.mod(row, 2), 0.44) - 0.22
        chosen = near_u**2 + (np.mod(v, 0.38) - 0.19) ** 2 < 0.115**2
    elif look.pattern == "checkered":
        chosen = np.mod(np.floor(u / 0.27) + np.floor(v / 0.27), 2)
    elif look.pattern == "patches":
        waves = np.sin(3.1 * u + 1.3 * np.sin(2.3 * v)) + np.sin(2.7 * v - 1.1 * u + 0.8)
        chosen = np.where(waves > 0.75, 1, np.where(waves < -1.0, 2, 0))
    elif look.pattern == "zigzag":
        chosen = np.mod(v + 0.5 * np.abs(np.mod(u, 0.5) - 0.25), 0.36) > 0.18
    elif look.pattern == "bands":
        chosen = np.clip(np.floor((v - phase + 0.75) / 0.5), 0, 2)
    elif look.pattern == "halves":
        chosen = (u - phase) + 0.6 * (v - phase) > 0
    else:
        raise ValueError(f"There is no pattern '{look.pattern}'.")
    palette = np.array([look.main, look.second, look.third], np.uint8)
    return Image.fromarray(palette[chosen.astype(int)])


def darker(image: Image.Image, factor: float) -> Image.Image:
    return image.point(lambda value: round(value * factor))


def paint_thing(
    parts: list[Part], look: Look, pattern_image: Image.Image, transform
) -> tuple[Image.Image, Image.Image]:
    """Paint the parts of a thing; returns its flat colours (RGB) and its coverage (L), both supersampled."""
    size = pattern_image.size
    fills = {"main": pattern_image, "shade": darker(pattern_image, 0.74), "trim": look.second}
    # The canvas starts in the main colour, so that no dark fringe appears where the edge is averaged.
    colours, coverage = Image.new("RGB", size, look.main), Image.new("L", size)
    for part in (*look.behind, *parts, *look.extras):
        if part.name in look.without:
            continue
        outline = [tuple(point) for point in transform(part.points).tolist()]
        fill = look.fills.get(part.name, part.fill)
        fill = fills.get(fill, fill) if isinstance(fill, str) else fill
        if isinstance(fill, Image.Image):
            stencil = Image.new("L", size)
            ImageDraw.Draw(stencil).polygon(outline, fill=255)
            colours.paste(fill, (0, 0), stencil)
        else:
            ImageDraw.Draw(colours).polygon(outline, fill=fill)
        ImageDraw.Draw(coverage).polygon(outline, fill=255)
    return colours, coverage


def shade_thing(colours: np.ndarray, coverage: np.ndarray, light: np.ndarray) -> np.ndarray:
    """Light a flat drawing as if it were puffed up: the blurred coverage is a height field."""
    size = coverage.shape[0]
    height = Image.fromarray((coverage * 255).astype(np.uint8)).filter(ImageFilter.GaussianBlur(size * 0.035))
    slope_y, slope_x = np.gradient(np.asarray(height, np.float32) / 255)
    lit = -(slope_x * light[0] + slope_y * light[1]) * size * 0.05
    return colours * (1.0 + np.clip(lit, -0.34, 0.2))[..., None]


def render_look(
    class_word: str, look: Look, scene: str, seed: int, size_px: int = 128
) -> tuple[Image.Image, Image.Image]:
    """Draw a thing with the given look in a scene; returns the picture (RGB) and the thing's mask (L)."""
    rng = np.random.default_rng(seed)
    big = size_px * SUPERSAMPLING
    background, horizon = paint_scene(scene, big, rng)

    half = rng.uniform(0.29, 0.36)
    ground = rng.uniform(max(horizon + 0.12, 0.76), 0.9)
    x, y = rng.uniform(half + 0.02, 0.98 - half), ground - 0.9 * half
    turn, flip = rng.normal(0, 0.05), rng.choice([-1.0, 1.0])
    stretch = np.array([flip * rng.uniform(0.93, 1.07), rng.uniform(0.93, 1.07)])
    light = np.array([rng.choice([-0.75, 0.75]), -0.65])
    rotation = np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]])

    def transform(points: np.ndarray) -> np.ndarray:
        return ((points * stretch) @ rotation.T * half + (x, y)) * big

    pattern_image = texture(look, big, half * big, (x * big, y * big), turn, rng.uniform(-0.1, 0.1))
    colours, coverage = paint_thing(OUTLINES[class_word](), look, pattern_image, transform)

    shadow = Image.new("L", (size_px, size_px))
    left, right = x - half * 0.85 - light[0] * 0.06, x + half * 0.85 - light[0] * 0.06
    ellipse = [left * size_px, (ground - 0.035) * size_px, right * size_px, (ground + 0.055) * size_px]
    ImageDraw.Draw(shadow).ellipse(ellipse, fill=105)
    shadow = shadow.filter(ImageFilter.GaussianBlur(size_px * 0.022))

    reduced = [image.reduce(SUPERSAMPLING) for image in (background, colours, coverage)]
    scene_pixels, flat, cover = (np.asarray(image, np.float32) for image in reduced)
    cover = cover / 255
    ambient = {"night": 0.72, "underwater": 0.88, "forest": 0.9}.get(scene, 1.0)
    thing = shade_thing(flat, cover, light) * ambient
    ground_pixels = scene_pixels * (1 - np.asarray(shadow, np.float32) / 255)[..., None]
    picture = ground_pixels * (1 - cover[..., None]) + thing * cover[..., None]
    return Image.fromarray(np.clip(picture, 0, 255).astype(np.uint8)), reduced[2]


def render(scenery: Scenery, seed: int, size_px: int = 128) -> Render:
    """Draw what `scenery` says; the colours of the thing vary a little with the seed."""
    rng = np.random.default_rng((seed, 1))
    main, second = COLOURS[scenery.colour]
    gain = 1 + rng.normal(0, 0.025, 3)
    jittered = tuple(int(np.clip(value * factor, 0, 255)) for value, factor in zip(main, gain, strict=True))
    look = Look(jittered, second, scenery.pattern)
    image, mask = render_look(scenery.class_word, look, scenery.scene, seed, size_px)
    return Render(image, mask, scenery.caption())
