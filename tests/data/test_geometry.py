"""Geometry: one function decides where a photo lands, and photo and mask follow it alike."""

import pytest
from PIL import Image, ImageChops

from dreamspace.data.geometry import PhotoGeometry, apply_geometry, plan_geometry


def gradient(width: int, height: int) -> Image.Image:
    across = Image.linear_gradient("L").rotate(90).resize((width, height))
    down = Image.linear_gradient("L").resize((width, height))
    return Image.merge("RGB", (across, down, ImageChops.difference(across, down)))


def test_landscape_photo_is_cropped_at_its_centre() -> None:
    assert plan_geometry(400, 200, resolution=128, multiple_px=8) == PhotoGeometry(
        resized_size=(256, 128), crop=(64, 0, 192, 128), size=(128, 128), scale=0.64
    )


def test_small_portrait_photo_is_enlarged() -> None:
    geometry = plan_geometry(50, 75, resolution=128, multiple_px=8)
    assert geometry == PhotoGeometry((128, 192), (0, 32, 128, 160), (128, 128), 2.56)


@pytest.mark.parametrize(
    "size", [(1, 1), (1, 4000), (4000, 1), (131, 97), (4032, 3024), (128, 128), (129, 128)]
)
def test_crop_is_centred_and_inside_the_resized_photo(size: tuple[int, int]) -> None:
    geometry = plan_geometry(*size, resolution=128, multiple_px=8)
    left, top, right, bottom = geometry.crop
    width, height = geometry.resized_size
    assert min(width, height) == 128
    assert 0 <= left < right <= width
    assert 0 <= top < bottom <= height
    assert abs(left - (width - right)) <= 1
    assert abs(top - (height - bottom)) <= 1
    assert (right - left, bottom - top) == geometry.size == (128, 128)
    assert apply_geometry(Image.new("RGB", size), geometry).size == (128, 128)


@pytest.mark.parametrize(
    ("resolution", "resolution_type", "edge"),
    [
        (512, "pixel", 512),
        (512.0, "pixel_area", 512),
        (1.0, "area", 1024),
        (0.25, "area", 512),
        (1.048576, "area", 1024),
    ],
)
def test_resolution_types_name_the_same_edge(resolution: float, resolution_type: str, edge: int) -> None:
    geometry = plan_geometry(600, 900, resolution=resolution, resolution_type=resolution_type, multiple_px=64)
    assert geometry.size == (edge, edge)
    assert all(isinstance(value, int) for value in geometry.size)


@pytest.mark.parametrize(
    ("resolution", "nearest"), [(100, 104), (99, 96), (4, 8), (0, 8), (-8, 8), (128.5, 128), (7.9, 8)]
)
def test_resolution_that_does_not_fit_names_the_nearest(resolution: float, nearest: int) -> None:
    with pytest.raises(ValueError, match=rf"multiple of 8 px .*got {resolution}\. Try {nearest}\.$"):
        plan_geometry(200, 200, resolution=resolution, multiple_px=8)


@pytest.mark.parametrize("megapixels", [0, -1, 1e-6])
def test_area_below_one_cell_is_refused(megapixels: float) -> None:
    with pytest.raises(ValueError, match="Try 8"):
        plan_geometry(200, 200, resolution=megapixels, resolution_type="area", multiple_px=8)


@pytest.mark.parametrize("size", [(300, 200), (90, 131), (640, 127)])
def test_one_resampling_equals_resize_then_crop(size: tuple[int, int]) -> None:
    photo = gradient(*size)
    geometry = plan_geometry(*size, resolution=96, multiple_px=8)
    in_two_steps = photo.resize(geometry.resized_size, Image.Resampling.LANCZOS).crop(geometry.crop)
    difference = ImageChops.difference(apply_geometry(photo, geometry), in_two_steps)
    assert max(high for _, high in difference.getextrema()) <= 1


def test_photo_that_fits_is_left_as_it_is() -> None:
    photo = gradient(128, 128)
    geometry = plan_geometry(128, 128, resolution=128, multiple_px=8)
    assert apply_geometry(photo, geometry).tobytes() == photo.tobytes()


def test_mask_follows_its_photo_even_at_another_size() -> None:
    geometry = plan_geometry(400, 200, resolution=64, multiple_px=8)
    mask = Image.new("L", (400, 200), 0)
    mask.paste(255, (200, 0, 400, 200))
    expected = Image.new("L", (64, 64), 0)
    expected.paste(255, (32, 0, 64, 64))
    for size in [(400, 200), (800, 400), (200, 100)]:
        sized = mask.resize(size, Image.Resampling.NEAREST)
        result = apply_geometry(sized, geometry, Image.Resampling.BOX)
        assert result.mode == "L"
        assert result.tobytes() == expected.tobytes()
