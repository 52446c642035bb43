"""Masks: the right one for each photo, and cells that lie exactly where the photo's do."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageFilter

from dreamspace.data.geometry import Box, GeometryRules, PhotoGeometry, apply_geometry, plan_geometry
from dreamspace.data.masks import Mask, find_mask


def planned(size: tuple[int, int], rules: GeometryRules, **more) -> PhotoGeometry:
    geometry = plan_geometry(*size, rules, 8, **more)
    assert isinstance(geometry, PhotoGeometry)
    return geometry


def saved(image: Image.Image, path: Path) -> Path:
    image.save(path)
    return path


def blob(size: tuple[int, int]) -> Image.Image:
    """A soft blob, off the centre."""
    image = Image.new("L", size, 0)
    width, height = size
    ImageDraw.Draw(image).ellipse((width * 0.3, height * 0.2, width * 0.8, height * 0.65), fill=255)
    return image.filter(ImageFilter.GaussianBlur(max(size) / 50))


# Which mask


def test_identical_name_comes_before_the_same_stem(tmp_path: Path) -> None:
    (tmp_path / "01.png").touch()
    assert find_mask(Path("photos/01.jpg"), [tmp_path]) == tmp_path / "01.png"
    (tmp_path / "01.jpg").touch()
    assert find_mask(Path("photos/01.jpg"), [tmp_path]) == tmp_path / "01.jpg"


def test_first_folder_that_has_a_mask_serves(tmp_path: Path) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    for folder in (first, second):
        folder.mkdir()
        (folder / "01.png").touch()
    (second / "02.png").touch()
    assert find_mask(Path("01.jpg"), [first, second]) == first / "01.png"
    assert find_mask(Path("02.jpg"), [first, second]) == second / "02.png"


def test_missing_mask_names_the_photo_and_what_to_do(tmp_path: Path) -> None:
    (tmp_path / "02.png").touch()
    with pytest.raises(ValueError) as caught:  # noqa: PT011, the sentence is compared whole
        find_mask(Path("photos/01.jpg"), [tmp_path])
    assert str(caught.value) == (
        f"The photo 01.jpg has no mask in {tmp_path}. Add 01.png, all white where nothing is to be masked."
    )


# Where its cells lie


@pytest.mark.parametrize("size", [(300, 200), (131, 397), (64, 64), (1200, 900)])
@pytest.mark.parametrize(
    "rules",
    [
        GeometryRules(128),
        GeometryRules(64, crop=True, crop_style="corner"),
        GeometryRules(128, crop=True, crop_style="random", crop_aspect="random"),
        GeometryRules(
            128, crop=True, crop_style="subject", maximum_image_size=200, target_downsample_size=256
        ),
    ],
)
def test_cells_lie_where_the_photos_red_lies(
    tmp_path: Path, size: tuple[int, int], rules: GeometryRules
) -> None:
    mask_image = blob(size)
    mask = Mask(saved(mask_image, tmp_path / "mask.png"), "mask")
    photo = Image.merge("RGB", (mask_image, Image.new("L", size, 99), Image.new("L", size, 7)))
    geometry = planned(size, rules, seed_key=11, focus=mask.box(*size))
    width, height = geometry.size[0] // 8, geometry.size[1] // 8
    cells = mask.cells(geometry, width, height)
    assert cells.shape == (height, width)
    assert cells.dtype == np.float32
    red = np.asarray(apply_geometry(photo, geometry))[:, :, 0] / 255
    oracle = red.reshape(height, 8, width, 8).mean((1, 3))
    assert np.abs(cells - oracle).max() < 0.03
    assert 0 <= cells.min() < 0.05
    assert 0.9 < cells.max() <= 1


@pytest.mark.parametrize("mask_size", [(75, 50), (300, 200), (600, 400), (450, 301)])
def test_mask_of_another_size_serves_as_well(tmp_path: Path, mask_size: tuple[int, int]) -> None:
    geometry = planned((300, 200), GeometryRules(128, crop=True))
    images = (blob((300, 200)), blob((300, 200)).resize(mask_size, Image.Resampling.BOX))
    cells = [
        Mask(saved(image, tmp_path / f"{number}.png"), "mask").cells(geometry, 16, 16)
        for number, image in enumerate(images)
    ]
    assert np.abs(cells[0] - cells[1]).max() < 0.05


def test_each_cell_is_the_mean_of_what_it_covers(tmp_path: Path) -> None:
    values = np.random.default_rng(0).integers(0, 256, (64, 64), dtype=np.uint8)
    mask = Mask(saved(Image.fromarray(values), tmp_path / "mask.png"), "mask")
    cells = mask.cells(planned((64, 64), GeometryRules(64)), 8, 8)
    np.testing.assert_allclose(cells, values.reshape(8, 8, 8, 8).mean((1, 3)) / 255, atol=1e-6)


def test_segmentation_is_black_and_white_and_a_mask_stays_soft(tmp_path: Path) -> None:
    grey = Image.linear_gradient("L").resize((64, 64))
    path, geometry = saved(grey, tmp_path / "mask.png"), planned((64, 64), GeometryRules(64))
    soft, hard = (Mask(path, kind).cells(geometry, 8, 8) for kind in ("mask", "segmentation"))
    np.testing.assert_array_equal(hard, soft >= 0.5)
    assert hard.dtype == np.float32
    assert len(np.unique(soft)) == 8


def test_red_channel_counts_and_black_is_zero_and_white_one(tmp_path: Path) -> None:
    image = Image.new("RGB", (64, 64), (0, 255, 255))
    image.paste((255, 0, 0), (32, 0, 64, 64))
    mask = Mask(saved(image, tmp_path / "mask.png"), "mask")
    cells = mask.cells(planned((64, 64), GeometryRules(64)), 8, 8)
    assert cells.tolist() == [[0.0] * 4 + [1.0] * 4] * 8


# What it shows


@pytest.mark.parametrize("scale", [1, 2])
def test_box_is_what_is_at_least_half_as_bright_as_the_brightest(tmp_path: Path, scale: int) -> None:
    image = Image.new("L", (100 * scale, 50 * scale), 0)
    image.paste(90, (0, 0, 60 * scale, 50 * scale))
    image.paste(200, (20 * scale, 10 * scale, 40 * scale, 30 * scale))
    path = saved(image, tmp_path / "mask.png")
    assert Mask(path, "mask").box(100, 50) == Box(20, 10, 40, 30)
    image.paste(120, (0, 0, 100 * scale, 50 * scale))
    saved(image, path)
    assert Mask(path, "mask").box(100, 50) == Box(0, 0, 100, 50)
    assert Mask(path, "segmentation").box(100, 50) is None, "nothing is half white"


def test_black_mask_shows_nothing(tmp_path: Path) -> None:
    mask = Mask(saved(Image.new("L", (100, 50), 0), tmp_path / "mask.png"), "mask")
    assert mask.box(100, 50) is None
    assert mask.cells(planned((100, 50), GeometryRules(64)), 8, 8).max() == 0


def test_mask_of_another_shape_is_refused(tmp_path: Path) -> None:
    mask = Mask(saved(Image.new("L", (200, 300), 255), tmp_path / "01.png"), "mask")
    with pytest.raises(ValueError) as caught:  # noqa: PT011, the sentence is compared whole
        mask.box(300, 200)
    assert str(caught.value) == (
        f"The mask {mask.path} has 200 x 300 px and its photo 300 x 200 px, which is another shape. "
        "Make the mask again from this photo."
    )
    with pytest.raises(ValueError, match="another shape"):
        mask.box(204, 300)
    assert mask.box(201, 300) is not None
    assert mask.box(2000, 3000) is not None
    small = Mask(saved(Image.new("L", (38, 25), 255), tmp_path / "small.png"), "mask")
    assert small.box(1500, 1000) is not None, "1.52 to 1 is as near to 1.5 to 1 as its pixels allow"


def test_file_that_is_no_mask_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "01.png"
    path.write_text("no picture")
    with pytest.raises(
        ValueError,
        match=rf"^The mask {path} cannot be used: this is not a JPEG.*make it again, for example by",
    ):
        Mask(path, "mask").box(10, 10)
