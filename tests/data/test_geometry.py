"""Geometry: one function decides where a photo lands, and photo and mask follow it alike."""

import math
import random
from itertools import product

import numpy as np
import pytest
from PIL import Image, ImageChops

from dreamspace.config import DatasetConfig
from dreamspace.data.geometry import (
    COMMON_SHAPES,
    Box,
    GeometryRules,
    LeftOut,
    PhotoGeometry,
    apply_geometry,
    edge_px,
    plan_geometry,
)

ODD_SIZES = [(1, 1), (1, 4000), (4000, 1), (131, 97), (4032, 3024), (128, 128), (129, 128), (1001, 667)]
STYLES = ("center", "corner", "random", "face", "subject")


def square(resolution: float, **rules) -> GeometryRules:
    return GeometryRules(resolution, **{"resolution_type": "pixel", "crop": True} | rules)


def planned(width: int, height: int, rules: GeometryRules, multiple_px: int = 8, **more) -> PhotoGeometry:
    geometry = plan_geometry(width, height, rules, multiple_px, **more)
    assert isinstance(geometry, PhotoGeometry), geometry
    return geometry


def gradient(width: int, height: int) -> Image.Image:
    across = Image.linear_gradient("L").rotate(90).resize((width, height))
    down = Image.linear_gradient("L").resize((width, height))
    return Image.merge("RGB", (across, down, ImageChops.difference(across, down)))


# Square crops


def test_landscape_photo_is_cropped_at_its_centre() -> None:
    assert planned(400, 200, square(128)) == PhotoGeometry(
        original_size=(400, 200),
        resized_size=(256, 128),
        crop=(64, 0, 192, 128),
        size=(128, 128),
        scale=0.64,
    )


def test_small_portrait_photo_is_enlarged_and_that_is_said() -> None:
    geometry = planned(50, 75, square(128))
    assert (geometry.resized_size, geometry.crop, geometry.scale) == ((128, 192), (0, 32, 128, 160), 2.56)
    (remark,) = geometry.remarks
    assert remark.startswith("it is enlarged 2.6 times and will look soft.")
    assert planned(90, 100, square(128)).remarks == ()


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
@pytest.mark.parametrize("multiple_px", [8, 32, 64])
def test_resolution_types_name_the_same_square(
    resolution: float, resolution_type: str, edge: int, multiple_px: int
) -> None:
    assert edge_px(resolution, resolution_type, multiple_px) == edge
    for crop in (True, False):
        rules = square(resolution, resolution_type=resolution_type, crop=crop)
        size = planned(1600, 1600, rules, multiple_px).size
        assert size == (edge, edge)
        assert all(isinstance(value, int) for value in size)


@pytest.mark.parametrize(
    ("resolution", "nearest"), [(100, 104), (99, 96), (4, 8), (0, 8), (-8, 8), (128.5, 128), (7.9, 8)]
)
@pytest.mark.parametrize("crop", [True, False])
def test_resolution_that_does_not_fit_names_the_nearest(resolution: float, nearest: int, crop: bool) -> None:
    with pytest.raises(ValueError, match=rf"multiple of 8 px .*got {resolution}\. Try {nearest}\.$"):
        plan_geometry(200, 200, square(resolution, crop=crop), 8)


@pytest.mark.parametrize("megapixels", [0, -1, 1e-6])
def test_area_below_one_cell_is_refused(megapixels: float) -> None:
    with pytest.raises(ValueError, match="Try 8"):
        edge_px(megapixels, "area", 8)


# Buckets


@pytest.mark.parametrize(
    ("resolution", "multiple_px", "photo", "bucket"),
    [
        (512, 8, (1000, 1000), (512, 512)),
        (512, 8, (4000, 3000), (576, 448)),
        (512, 8, (3000, 4000), (448, 576)),
        (1024, 8, (1920, 1080), (1344, 768)),
        (128, 32, (400, 300), (128, 96)),
        (128, 8, (400, 300), (152, 112)),
        (528, 48, (300, 200), (576, 384)),  # 96 is the smallest multiple of 48 from 64 on
    ],
)
def test_without_crop_a_photo_takes_the_nearest_bucket(
    resolution: int, multiple_px: int, photo: tuple[int, int], bucket: tuple[int, int]
) -> None:
    assert planned(*photo, GeometryRules(resolution), multiple_px).size == bucket


@pytest.mark.parametrize(
    ("resolution", "multiple_px"), [(128, 8), (128, 32), (512, 8), (1024, 32), (1024, 64)]
)
def test_buckets_have_the_area_of_the_resolution_and_about_the_photos_shape(
    resolution: int, multiple_px: int
) -> None:
    step = math.ceil(64 / multiple_px) * multiple_px if resolution >= 512 else multiple_px
    for width, height in product(range(100, 2000, 130), repeat=2):
        shape = width / height
        if not 1 / 4 <= shape <= 4:
            continue
        geometry = planned(width, height, GeometryRules(resolution), multiple_px)
        across, down = geometry.size
        assert across % step == down % step == 0
        # Each edge is one of the two multiples beside the wanted one.
        assert abs(across - resolution * math.sqrt(shape)) < step
        assert abs(down - resolution / math.sqrt(shape)) < step

        # Nowhere else would less be cut off at a smaller difference in area: the oracle tries all sizes.
        def cost(size: tuple[int, int], shape: float = shape) -> float:
            area = math.log(size[0] * size[1] / resolution**2)
            return 2 * abs(math.log(size[0] / size[1] / shape)) + abs(area)

        nearby = [
            (a, d)
            for a in range(step, 4 * resolution, step)
            for d in range(step, 4 * resolution, step)
            if abs(a - resolution * math.sqrt(shape)) < step and abs(d - resolution / math.sqrt(shape)) < step
        ]
        assert cost(geometry.size) == pytest.approx(min(map(cost, nearby)), abs=1e-6)
        turned = planned(height, width, GeometryRules(resolution), multiple_px)
        assert turned.size == (down, across)


def test_few_photos_fall_into_few_buckets() -> None:
    shapes = [(4032, 3024), (4000, 3000), (3008, 2250), (1600, 1199), (2048, 1536)]
    assert len({planned(*photo, GeometryRules(1024)).size for photo in shapes}) == 1


@pytest.mark.parametrize(
    ("photo", "size"), [((900, 600), (768, 512)), ((600, 900), (512, 768)), ((521, 520), (512, 512))]
)
def test_pixel_names_the_shorter_edge(photo: tuple[int, int], size: tuple[int, int]) -> None:
    assert planned(*photo, GeometryRules(512, "pixel")).size == size


def test_panorama_is_cut_to_four_to_one_and_that_is_said() -> None:
    for resolution_type in ("pixel", "pixel_area"):
        geometry = planned(8000, 1000, GeometryRules(512, resolution_type))
        assert geometry.size[0] == 4 * geometry.size[1]
        assert "it is longer than 4 to 1, so only its middle part is kept." in geometry.remarks


# Any rules


def random_rules(draw: random.Random) -> GeometryRules:
    return GeometryRules(
        draw.choice([64, 256, 512]),
        draw.choice(["pixel", "pixel_area"]),
        maximum_image_size=draw.choice([None, 300]),
        target_downsample_size=draw.choice([100, 250, 600]),
        crop=draw.random() < 0.7,
        crop_aspect=draw.choice(["square", "preserve", "closest", "random"]),
        crop_style=draw.choice(STYLES),
    )


def test_crop_lies_inside_the_resized_photo_whatever_the_rules_are() -> None:
    draw = random.Random(0)
    for number in range(3000):
        photo = draw.choice([*ODD_SIZES, (draw.randint(1, 900), draw.randint(1, 900))])
        left, top = draw.uniform(0, photo[0] - 0.5), draw.uniform(0, photo[1] - 0.5)
        focus = Box(left, top, draw.uniform(left + 0.1, photo[0]), draw.uniform(top + 0.1, photo[1]))
        rules = random_rules(draw)
        focus = draw.choice([None, focus])
        geometry = planned(*photo, rules, 16, seed_key=number, focus=focus)
        left, top, right, bottom = geometry.crop
        width, height = geometry.resized_size
        assert 0 <= left < right <= width, (photo, rules)
        assert 0 <= top < bottom <= height, (photo, rules)
        assert (right - left, bottom - top) == geometry.size
        assert geometry.size[0] % 16 == geometry.size[1] % 16 == 0
        # Both edges are scaled alike, up to a pixel.
        assert abs(width - photo[0] * geometry.scale) <= 1
        assert abs(height - photo[1] * geometry.scale) <= 1
        if not rules.crop or rules.crop_style == "center":
            assert abs(left - (width - right)) <= 1
            assert abs(top - (height - bottom)) <= 1


# What a crop keeps


def test_crop_shapes() -> None:
    def size(shape: str, photo: tuple[int, int] = (800, 600), **rules) -> tuple[int, int]:
        return planned(*photo, square(512, resolution_type="pixel_area", crop_aspect=shape, **rules)).size

    assert size("square") == (512, 512)
    assert size("preserve") == planned(800, 600, GeometryRules(512)).size == (576, 448)
    assert size("closest", crop_aspect_buckets=(0.5, 1.0, 2.0)) == (512, 512)
    assert size("closest", (900, 600), crop_aspect_buckets=(0.5, 1.0, 2.0)) == (768, 384)
    assert size("closest") == planned(4000, 3000, GeometryRules(512)).size


def test_random_shape_is_fixed_for_a_photo_and_takes_each_in_turn() -> None:
    rules = square(512, resolution_type="pixel_area", crop_aspect="random")
    sizes = [planned(800, 600, rules, seed_key=key).size for key in range(200)]
    assert sizes == [planned(800, 600, rules, seed_key=key).size for key in range(200)]
    expected = {planned(round(1200 * shape), 1200, GeometryRules(512)).size for shape in COMMON_SHAPES}
    assert set(sizes) == expected


def test_crop_styles_choose_the_part() -> None:
    def left(style: str, **more) -> int:
        return planned(400, 200, square(128, crop_style=style), **more).crop[0]

    assert (left("center"), left("corner")) == (64, 0)
    drawn = {left("random", seed_key=key) for key in range(300)}
    assert min(drawn) < 10
    assert max(drawn) > 118
    assert left("random", seed_key=5) == left("random", seed_key=5)
    # The face's centre, at 300 px of 400, lies at 192 px of 256: the crop is around it, 128 px wide.
    assert left("face", focus=Box(280, 20, 320, 60)) == 128
    assert left("face", focus=Box(220, 20, 260, 60)) == 240 * 0.64 - 64 + 0.4
    assert left("face", focus=Box(0, 20, 40, 60)) == 0


def test_missing_face_or_subject_keeps_the_centre() -> None:
    # Of a mask that is black the training says that nothing is learned: where the crop is does not matter.
    for style, remarks in (("face", ("no face was found in it, so its centre is kept.",)), ("subject", ())):
        geometry = planned(400, 200, square(128, crop_style=style))
        assert geometry.crop == (64, 0, 192, 128)
        assert geometry.remarks == remarks


def test_huge_scale_is_a_number_that_people_read() -> None:
    for edge, said in ((512, "16"), (8192, "260")):
        (remark,) = planned(32, 32, square(edge)).remarks
        assert remark.startswith(f"it is enlarged {said} times")


def test_subject_stays_whole_and_centred_wherever_it_fits() -> None:
    draw = random.Random(1)
    num_fitting = 0
    for _ in range(2000):
        photo = (draw.randint(40, 900), draw.randint(40, 900))
        left, top = draw.uniform(0, photo[0] - 2), draw.uniform(0, photo[1] - 2)
        subject = Box(left, top, draw.uniform(left + 1, photo[0]), draw.uniform(top + 1, photo[1]))
        rules = square(256, crop_style="subject", maximum_image_size=200, target_downsample_size=600)
        geometry = planned(*photo, rules, focus=subject)
        per = [geometry.resized_size[axis] / photo[axis] for axis in (0, 1)]
        box = [subject[side] * per[side % 2] for side in range(4)]
        # The largest crop of this shape is a square over the photo's shorter edge.
        longest_px = max(subject.right - subject.left, subject.bottom - subject.top)
        fits = longest_px <= min(photo)
        is_whole = all(box[side] >= geometry.crop[side] - 1 for side in (0, 1)) and all(
            box[side] <= geometry.crop[side] + 1 for side in (2, 3)
        )
        assert is_whole or not fits, (photo, subject, geometry)
        if longest_px > min(photo) * 1.02:
            assert any("does not fit" in remark for remark in geometry.remarks)
        num_fitting += fits
        for axis in (0, 1):
            middle = (box[axis] + box[axis + 2]) / 2
            crop_middle = (geometry.crop[axis] + geometry.crop[axis + 2]) / 2
            at_border = geometry.crop[axis] == 0 or geometry.crop[axis + 2] == geometry.resized_size[axis]
            assert abs(middle - crop_middle) <= 1 or at_border
    assert num_fitting > 500


def test_target_size_makes_a_tighter_crop_of_photos_above_the_maximum_only() -> None:
    rules = square(512, resolution_type="pixel_area", maximum_image_size=1200, target_downsample_size=1024)
    tight = planned(3000, 3000, rules)
    assert tight.resized_size == (1024, 1024)
    assert tight.crop == (256, 256, 768, 768)
    assert planned(1200, 1200, rules).resized_size == (512, 512), "not above the maximum"
    wide = planned(4000, 2000, rules)
    assert wide.resized_size == (1448, 724), "1024² px in area"
    # The guide's own: a target of the training's size is no tighter crop than none.
    same = square(512, resolution_type="pixel_area", maximum_image_size=512, target_downsample_size=512)
    assert planned(3000, 2000, same) == planned(3000, 2000, square(512, resolution_type="pixel_area"))
    # It never enlarges, and without crop it changes nothing.
    far = square(512, resolution_type="pixel_area", maximum_image_size=512, target_downsample_size=4096)
    assert planned(600, 600, far).scale == 1.0
    uncropped = GeometryRules(512, maximum_image_size=1200, target_downsample_size=1024)
    assert planned(3000, 2000, uncropped) == planned(3000, 2000, GeometryRules(512))


def test_target_size_by_the_shorter_edge() -> None:
    rules = square(64, maximum_image_size=256, target_downsample_size=128)
    assert planned(600, 300, rules).resized_size == (256, 128)
    assert planned(257, 200, rules).resized_size == (164, 128), "one edge above the maximum is enough"
    assert planned(256, 200, rules).resized_size == (82, 64)


# What is left out


@pytest.mark.parametrize(
    ("rules", "photo", "reason"),
    [
        (GeometryRules(512, minimum_image_size=192), (192, 192), None),
        (GeometryRules(512, minimum_image_size=192), (100, 400), None),
        (GeometryRules(512, minimum_image_size=192), (100, 300), "an area of 192 x 192 px"),
        (square(512, resolution_type="pixel_area", minimum_image_size=192), (100, 4000), "192 px in both"),
        (GeometryRules(512, "pixel", minimum_image_size=192), (191, 900), "192 px in both"),
        (GeometryRules(512, "pixel", minimum_image_size=192), (192, 900), None),
        (GeometryRules(0.25, "area", minimum_image_size=0.04), (100, 400), None),
        (GeometryRules(0.25, "area", minimum_image_size=0.04), (100, 399), "an area of 200 x 200 px"),
        (GeometryRules(512, minimum_aspect_ratio=0.5), (50, 101), "below minimum_aspect_ratio 0.5"),
        (GeometryRules(512, minimum_aspect_ratio=0.5), (50, 100), None),
        (GeometryRules(512, maximum_aspect_ratio=2), (201, 100), "2.01, above maximum_aspect_ratio 2."),
    ],
)
def test_photos_are_left_out_for_a_reason(
    rules: GeometryRules, photo: tuple[int, int], reason: str | None
) -> None:
    geometry = plan_geometry(*photo, rules, 8)
    assert isinstance(geometry, LeftOut) == (reason is not None)
    if isinstance(geometry, LeftOut):
        assert reason in geometry.reason


def test_rules_of_a_dataset_are_its_keys() -> None:
    keys = {
        "resolution": 0.5,
        "resolution_type": "area",
        "minimum_image_size": 0.1,
        "maximum_image_size": 2.0,
        "target_downsample_size": 1.0,
        "minimum_aspect_ratio": 0.5,
        "maximum_aspect_ratio": 2.0,
        "crop": True,
        "crop_aspect": "closest",
        "crop_style": "random",
    }
    dataset = DatasetConfig(id="a", instance_data_dir="photos", instance_prompt="a", **keys)
    assert GeometryRules.of(dataset) == GeometryRules(**keys)
    listed = dataset.model_copy(update={"crop_aspect_buckets": [1.0, 2.0]})
    assert GeometryRules.of(listed).crop_aspect_buckets == (1.0, 2.0)


# One resampling


@pytest.mark.parametrize("size", [(300, 200), (90, 131), (640, 127)])
@pytest.mark.parametrize("rules", [square(96), GeometryRules(96), square(96, crop_style="corner")])
def test_one_resampling_equals_resize_then_crop(size: tuple[int, int], rules: GeometryRules) -> None:
    photo = gradient(*size)
    geometry = planned(*size, rules)
    in_two_steps = photo.resize(geometry.resized_size, Image.Resampling.LANCZOS).crop(geometry.crop)
    difference = ImageChops.difference(apply_geometry(photo, geometry), in_two_steps)
    assert max(high for _, high in difference.getextrema()) <= 1


@pytest.mark.parametrize("size", ODD_SIZES)
def test_result_has_the_size_of_the_bucket(size: tuple[int, int]) -> None:
    for rules in (square(128), GeometryRules(128), GeometryRules(128, "pixel")):
        geometry = planned(*size, rules)
        assert apply_geometry(Image.new("RGB", size), geometry).size == geometry.size


def test_photo_that_fits_is_left_as_it_is() -> None:
    photo = gradient(128, 128)
    assert apply_geometry(photo, planned(128, 128, square(128))).tobytes() == photo.tobytes()


def test_mask_follows_its_photo_even_at_another_size() -> None:
    geometry = planned(400, 200, square(64))
    mask = Image.new("L", (400, 200), 0)
    mask.paste(255, (200, 0, 400, 200))
    expected = Image.new("L", (64, 64), 0)
    expected.paste(255, (32, 0, 64, 64))
    for size in [(400, 200), (800, 400), (200, 100)]:
        sized = mask.resize(size, Image.Resampling.NEAREST)
        result = apply_geometry(sized, geometry, Image.Resampling.BILINEAR)
        assert result.mode == "L"
        difference = np.abs(np.asarray(result, dtype=int) - np.asarray(expected))
        assert difference[:, :31].max() == difference[:, 33:].max() == 0
        assert np.asarray(result)[:, 31:33].mean() == pytest.approx(127.5, abs=1)
