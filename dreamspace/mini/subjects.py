"""The sample subjects: five individuals of mini's classes whose looks never occur in its training."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from dreamspace.files import replace_file
from dreamspace.mini.shapes import DARK, GOLD, METAL, Part, box, ellipse, sharp, soft
from dreamspace.mini.world import Look, render_look


@dataclass(frozen=True)
class Subject:
    """An individual: its name, the class it belongs to, how it looks, and one sentence about it."""

    name: str
    class_word: str
    description: str
    look: Look


def star(x: float, y: float, radius: float) -> np.ndarray:
    angles = np.arange(10) * np.pi / 5 - np.pi / 2
    radii = np.where(np.arange(10) % 2 == 0, radius, radius * 0.45)
    return np.stack([x + radii * np.cos(angles), y + radii * np.sin(angles)], axis=1)


SUBJECTS: dict[str, Subject] = {
    subject.name: subject
    for subject in (
        Subject(
            "biscuit", "dog", "A sandy dog with dark patches, one dark ear and a teal collar",
            Look(
                (226, 188, 136), (92, 58, 44), "patches", (226, 188, 136),
                fills={"ear": (70, 44, 36)},
                extras=(
                    Part("collar", soft((-0.78, -0.1), (-0.5, -0.02), (-0.18, -0.12), (-0.14, 0.04), (-0.5, 0.16), (-0.78, 0.06)), (22, 160, 160)),
                    Part("tag", ellipse(-0.52, 0.2, 0.1, 0.1), GOLD),
                ),
            ),
        ),
        Subject(
            "tinker", "robot", "An orange robot with a turquoise head, a zigzag chest and an antenna",
            Look(
                (244, 122, 52), (252, 214, 92), "zigzag",
                fills={"head": (60, 200, 190), "leg": (244, 122, 52), "arm": (60, 200, 190), "lamp": (255, 120, 140)},
                behind=(
                    Part("antenna", box(-0.04, -1.14, 0.04, -0.86, 0.02), METAL),
                    Part("bulb", ellipse(0, -1.16, 0.12, 0.12), (232, 60, 84)),
                ),
            ),
        ),
        Subject(
            "sunset", "mug", "A mug banded in plum, coral and gold with a cream heart",
            Look(
                (110, 44, 110), (238, 104, 92), "bands", (250, 196, 84),
                fills={"handle": (110, 44, 110), "rim": (84, 32, 86)},
                extras=(
                    Part("heart", soft((-0.12, 0.42), (-0.46, 0.08), (-0.42, -0.22), (-0.2, -0.24), (-0.12, -0.06), (-0.04, -0.24), (0.18, -0.22), (0.22, 0.08)), (252, 240, 222)),
                ),
            ),
        ),
        Subject(
            "comet", "backpack", "A backpack halved in teal and violet with fox ears and a golden star",
            Look(
                (26, 160, 156), (120, 66, 190), "halves",
                fills={"strap": (40, 44, 90), "pocket": (250, 236, 210)},
                behind=(
                    Part("ear", sharp((-0.62, -0.62), (-0.66, -1.12), (-0.16, -0.84)), (26, 160, 156)),
                    Part("ear", sharp((0.62, -0.62), (0.66, -1.12), (0.16, -0.84)), (120, 66, 190)),
                ),
                extras=(Part("star", star(0, 0.52, 0.26), GOLD),),
                without=("handle", "buckle"),
            ),
        ),
        Subject(
            "marmalade", "cat", "A calico cat in cream, ginger and charcoal with a green bow tie",
            Look(
                (248, 232, 206), (226, 128, 48), "patches", (66, 60, 66),
                extras=(
                    Part("bow", sharp((0, -0.04), (-0.3, -0.18), (-0.3, 0.12)), (40, 168, 92)),
                    Part("bow", sharp((0, -0.04), (0.3, -0.18), (0.3, 0.12)), (40, 168, 92)),
                    Part("knot", ellipse(0, -0.03, 0.08, 0.08), DARK),
                ),
            ),
        ),
    )
}  # fmt: skip

PHOTO_SCENES = ("beach", "table", "meadow", "studio", "wall", "snow")
HELD_OUT_SCENES = ("forest", "desert", "night")


def draw_subject(name: str, scene: str, seed: int, size_px: int = 256) -> tuple[Image.Image, Image.Image]:
    """A photo (RGB) and the true mask (L) of a sample subject in a scene."""
    subject = SUBJECTS[name]
    return render_look(subject.class_word, subject.look, scene, seed, size_px)


def subject_photos(name: str, *, held_out: bool = False) -> list[tuple[Image.Image, Image.Image]]:
    """The subject's six photos, or its three held-out ones in other scenes, each with its true mask."""
    first_seed = 1000 * (1 + list(SUBJECTS).index(name)) + (500 if held_out else 0)
    scenes = HELD_OUT_SCENES if held_out else PHOTO_SCENES
    return [draw_subject(name, scene, first_seed + index) for index, scene in enumerate(scenes)]


def write_photos(name: str, folder: Path, *, held_out: bool = False) -> list[Path]:
    """Write the subject's photos as PNG into `folder`; returns their paths."""
    paths = []
    for index, (image, _) in enumerate(subject_photos(name, held_out=held_out)):
        path = folder / f"{name}-{index}.png"
        with replace_file(path) as temporary:
            image.save(temporary)
        paths.append(path)
    return paths
