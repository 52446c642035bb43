"""Soft photos are told from sharp ones."""

from pathlib import Path

import pytest
from PIL import Image, ImageFilter, ImageOps
from tiny_runs import REPOSITORY, cropped_dataset, draw_photos

from dreamspace.data.photos import read_photo
from dreamspace.data.samples import read_samples
from dreamspace.data.sharpness import LEAST_SHARPNESS, sharpness, softness_warnings

REAL_PHOTOS = REPOSITORY.parent / "shared" / "photos"


@pytest.mark.skipif(not REAL_PHOTOS.is_dir(), reason="the photos of the DreamBooth paper are not here")
@pytest.mark.parametrize("edge_px", [256, 512, 1024])
def test_real_photos_are_sharp_and_their_blurred_versions_are_not(edge_px: int) -> None:
    paths = sorted(REAL_PHOTOS.glob("*/*.jpg"))
    assert len(paths) >= 19
    for path in paths:
        photo = ImageOps.fit(read_photo(path)[0], (edge_px, edge_px), Image.Resampling.LANCZOS)
        blurred = photo.filter(ImageFilter.GaussianBlur(2))
        assert sharpness(blurred) < LEAST_SHARPNESS < sharpness(photo), path.name


def test_enlarged_and_blurred_photos_get_one_warning_each(tmp_path: Path) -> None:
    folder = draw_photos(tmp_path / "photos", 4)
    with Image.open(folder / "01.png") as photo:
        photo.filter(ImageFilter.GaussianBlur(4)).save(folder / "01.png")
    with Image.open(folder / "02.png") as photo:
        photo.resize((64, 50)).save(folder / "02.png")
    with Image.open(folder / "03.png") as photo:
        photo.resize((40, 32)).save(folder / "03.png")
    dataset = cropped_dataset(folder)
    samples, remarks = read_samples(dataset, [dataset], 8, seed=0)
    assert softness_warnings(samples) == ["01.png: it is blurred.", "02.png: it is enlarged 1.3 times."]
    assert [remark.split(":")[0] for remark in remarks] == ["03.png"], "which every model gets"
