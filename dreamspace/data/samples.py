"""The samples of a run: every photo of every dataset, with caption and geometry."""

import hashlib
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from dreamspace.config import DatasetConfig
from dreamspace.data.geometry import PhotoGeometry, apply_geometry, plan_geometry
from dreamspace.data.photos import PhotoError, list_photos, read_photo


@dataclass(frozen=True)
class Sample:
    """A photo as it is trained on.

    Attributes:
        captions: of which each row takes one.
        uses_base_target: the target is the base model's own prediction (regularisation).
    """

    path: Path
    content_id: str
    captions: tuple[str, ...]
    geometry: PhotoGeometry
    uses_base_target: bool

    def picture(self) -> Image.Image:
        """The cropped picture, RGB."""
        return apply_geometry(read_photo(self.path)[0], self.geometry)


def read_samples(dataset: DatasetConfig, multiple_px: int) -> tuple[list[Sample], list[str]]:
    """The samples of a dataset, sorted by file name, and a warning for each photo that is odd or left out.

    Args:
        multiple_px: the edges of the model's images are multiples of this.

    Raises:
        ValueError: if the folder is empty or unreadable, no photo in it can be used, or the resolution does
            not fit the model.
    """
    samples, warnings = [], []
    paths = list_photos(dataset.instance_data_dir)[: dataset.max_num_samples]
    for path in paths:
        try:
            image, remarks = read_photo(path)
        except PhotoError as error:
            warnings.append(f"Left out {error}")
            continue
        geometry = plan_geometry(
            *image.size,
            resolution=dataset.resolution,
            multiple_px=multiple_px,
            resolution_type=dataset.resolution_type,
        )
        content_id = hashlib.sha256(path.read_bytes()).hexdigest()[:16]
        captions = tuple(dataset.instance_prompts)
        samples.append(Sample(path, content_id, captions, geometry, dataset.is_regularisation_data))
        warnings += remarks
    if not samples:
        raise ValueError(
            f"None of the {len(paths)} photos in {dataset.instance_data_dir} can be used. {warnings[0]}"
        )
    return samples, warnings
