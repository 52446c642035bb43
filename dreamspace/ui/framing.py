"""What the training does to a photo: which part it sees, at which size, or why it leaves it out."""

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from PIL import Image

from dreamspace.config import subject_datasets
from dreamspace.data.geometry import GeometryRules, LeftOut, PhotoGeometry, plan_geometry, two_digits

CELL_PX = 8
"""The edge of a latent cell in px of the training picture, as every family of ours has it."""

SIZES_PX = range(64, 2049, 64)
"""The sizes of training pictures that the app offers; the shell takes any."""


@dataclass(frozen=True)
class Framing:
    """A photo's way into the training.

    Attributes:
        size: (width, height) of the photo in px.
        geometry: how it becomes a training picture, or why it does not.
    """

    size: tuple[int, int]
    geometry: PhotoGeometry | LeftOut

    @property
    def left_out(self) -> str:
        """Why it is left out, or ""."""
        return self.geometry.reason if isinstance(self.geometry, LeftOut) else ""

    @property
    def crop_percent(self) -> tuple[float, float, float, float]:
        """(left, top, width, height) of the part that is kept, in percent of the photo."""
        assert isinstance(self.geometry, PhotoGeometry)
        left, top, right, bottom = self.geometry.crop
        width, height = self.geometry.resized_size
        across, down = 100 / width, 100 / height
        return left * across, top * down, (right - left) * across, (bottom - top) * down

    @property
    def note(self) -> str:
        """The size that is used, and how far the photo is enlarged for it; or why it is left out."""
        if isinstance(self.geometry, LeftOut):
            return f"Left out: {self.geometry.reason}"
        size = "{} × {} px".format(*self.geometry.size)
        scale = self.geometry.scale
        return f"{size}, enlarged {two_digits(scale)}×" if scale > 1.005 else size

    @property
    def remarks(self) -> tuple[str, ...]:
        """What else to know about it, a sentence each that calls the photo "it"."""
        return () if isinstance(self.geometry, LeftOut) else self.geometry.remarks


@lru_cache(maxsize=4096)
def framing(photo: Path, resolution: int) -> Framing:
    """What becomes of a photo of a subject at a preset's resolution (px)."""
    with Image.open(photo) as image:
        size = image.size
    rules = _rules(resolution)
    return Framing(size, plan_geometry(*size, rules, CELL_PX))


@lru_cache
def _rules(resolution: int) -> GeometryRules:
    """Those of the datasets that the app writes; they know no folder."""
    return GeometryRules.of(subject_datasets(Path(), "a photo", resolution)[0])
