"""What a picture of mini's world truly shows: a small network that reads the renderer's attributes.

It learns from pictures that the renderer draws with looks at random, whose colours, pattern, class and scene
are known exactly. CLIP has no part in it, so that it can tell whether CLIP's verdict is right.
"""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageFilter
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from dreamspace.mini.scenes import SCENES
from dreamspace.mini.subjects import SUBJECTS
from dreamspace.mini.world import CLASSES, Look, render_look

EDGE_PX = 64
NUM_PICTURES = 8000
NUM_EPOCHS = 14
BATCH_SIZE = 64
PATTERNS = ("plain", "striped", "spotted", "checkered", "patches", "zigzag", "bands", "halves")
SCENE_NAMES = tuple(SCENES)
COLOUR_TOLERANCE = 0.4
"""The distance of two colours, each channel in [0, 1], from which on they have nothing in common."""

_HEADS = {"colours": 6, "pattern": len(PATTERNS), "class_word": len(CLASSES), "scene": len(SCENE_NAMES)}


class AttributeReader(nn.Module):
    """Pictures (B, 3, 64, 64) in [0, 1] to the logits, or colours, of each attribute."""

    def __init__(self) -> None:
        super().__init__()
        widths = (3, 24, 48, 96, 128)
        layers: list[nn.Module] = []
        for before, after in itertools.pairwise(widths):
            layers += [nn.Conv2d(before, after, 3, stride=2, padding=1), nn.GroupNorm(8, after), nn.SiLU()]
            layers += [nn.Conv2d(after, after, 3, padding=1), nn.GroupNorm(8, after), nn.SiLU()]
        self.body = nn.Sequential(*layers, nn.Flatten(), nn.Linear(128 * 16, 256), nn.SiLU())
        self.heads = nn.ModuleDict({name: nn.Linear(256, width) for name, width in _HEADS.items()})

    def forward(self, pixels: Tensor) -> dict[str, Tensor]:
        features = self.body(pixels)
        return {name: head(features) for name, head in self.heads.items()}


@dataclass(frozen=True)
class Truth:
    """What a picture shows of a subject and of the scene that was asked for, each from 0 to 1."""

    subject: float
    scene: float


def read_truth(
    reader: AttributeReader, pictures: Sequence[Image.Image], subject: str, scenes: Sequence[str]
) -> list[Truth]:
    """How much of a sample subject's attributes each picture shows, and of its scene.

    Args:
        scenes: that each picture was to show.
    """
    look, class_word = SUBJECTS[subject].look, SUBJECTS[subject].class_word
    with torch.no_grad():
        seen = reader(torch.stack([_pixels(picture) for picture in pictures]))
    colours = torch.tensor([*look.main, *look.second]).float().div(255)
    apart = (seen["colours"] - colours).unflatten(1, (2, 3)).norm(dim=2)
    likeness = (1 - apart / COLOUR_TOLERANCE).clamp(0, 1).mean(dim=1)
    pattern = seen["pattern"].softmax(dim=1)[:, PATTERNS.index(look.pattern)]
    of_class = seen["class_word"].softmax(dim=1)[:, CLASSES.index(class_word)]
    in_scene = seen["scene"].softmax(dim=1)
    shown = of_class * (likeness + pattern) / 2
    return [
        Truth(shown[index].item(), in_scene[index, SCENE_NAMES.index(scene)].item())
        for index, scene in enumerate(scenes)
    ]


def trained_reader(folder: Path) -> AttributeReader:
    """The reader, trained once and kept in a folder."""
    file, reader = folder / "attributes.safetensors", AttributeReader()
    if file.exists():
        reader.load_state_dict(load_file(file))
        return reader.eval()
    pictures, labels = _random_pictures(NUM_PICTURES)
    optimizer = torch.optim.AdamW(reader.parameters(), 1e-3)
    num_steps = NUM_EPOCHS * (len(pictures) // BATCH_SIZE)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 2e-3, total_steps=num_steps)
    generator = torch.Generator().manual_seed(0)
    for _ in range(NUM_EPOCHS):
        order = torch.randperm(len(pictures), generator=generator)
        for rows in order.split(BATCH_SIZE):
            if len(rows) < BATCH_SIZE:
                continue
            loss = _loss(reader(pictures[rows]), {name: values[rows] for name, values in labels.items()})
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
    folder.mkdir(parents=True, exist_ok=True)
    save_file(reader.state_dict(), file)
    return reader.eval()


def accuracy(reader: AttributeReader, num_pictures: int = 500) -> dict[str, float]:
    """On pictures that it never saw: how many attributes are right, and the colours' error."""
    pictures, labels = _random_pictures(num_pictures, first_seed=1_000_000)
    with torch.no_grad():
        seen = reader(pictures)
    right = {
        name: (seen[name].argmax(dim=1) == labels[name]).float().mean().item()
        for name in ("pattern", "class_word", "scene")
    }
    return right | {"colour error": (seen["colours"] - labels["colours"]).abs().mean().item()}


def _loss(seen: dict[str, Tensor], labels: dict[str, Tensor]) -> Tensor:
    chosen = [
        nn.functional.cross_entropy(seen[name], labels[name]) for name in ("pattern", "class_word", "scene")
    ]
    return sum(chosen) + 10 * nn.functional.smooth_l1_loss(seen["colours"], labels["colours"], beta=0.1)


def _random_pictures(count: int, first_seed: int = 0) -> tuple[Tensor, dict[str, Tensor]]:
    """Pictures of things with random colours and patterns, as soft as generated ones, and what they show."""
    rng = np.random.default_rng(first_seed)
    pictures, labels = [], {name: [] for name in _HEADS}
    for index in range(count):
        class_word, scene = str(rng.choice(CLASSES)), str(rng.choice(SCENE_NAMES))
        pattern = int(rng.integers(len(PATTERNS)))
        main, second, third = (tuple(map(int, rng.integers(20, 250, 3))) for _ in range(3))
        look = Look(main, second, PATTERNS[pattern], third)
        picture, _ = render_look(class_word, look, scene, first_seed + index, EDGE_PX)
        blur = rng.uniform(0, 0.8)
        pictures.append(_pixels(picture.filter(ImageFilter.GaussianBlur(blur))))
        labels["colours"].append([channel / 255 for channel in (*main, *second)])
        labels["pattern"].append(pattern)
        labels["class_word"].append(CLASSES.index(class_word))
        labels["scene"].append(SCENE_NAMES.index(scene))
    return torch.stack(pictures), {name: torch.tensor(values) for name, values in labels.items()}


def _pixels(picture: Image.Image) -> Tensor:
    small = picture.convert("RGB").resize((EDGE_PX, EDGE_PX), Image.Resampling.BOX)
    return torch.from_numpy(np.asarray(small, np.float32).copy()).permute(2, 0, 1) / 255
