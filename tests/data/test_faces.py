"""Faces: the largest is found where it is, at any size of photo."""

import sys

import pytest
from PIL import Image, ImageDraw, ImageFilter

from dreamspace.data.faces import _cascade, largest_face

SKIN, HAIR, WHITE, DARK, LIPS = (225, 180, 150), (60, 40, 30), (250, 250, 250), (30, 20, 20), (150, 60, 60)


def draw_face(image: Image.Image, x: float, y: float, radius: float) -> Image.Image:
    """A face that looks at the camera, drawn around (x, y)."""
    draw = ImageDraw.Draw(image)

    def ellipse(dx: float, dy: float, rx: float, ry: float, colour: tuple[int, int, int]) -> None:
        dx, dy, rx, ry = dx * radius, dy * radius, rx * radius, ry * radius
        draw.ellipse((x + dx - rx, y + dy - ry, x + dx + rx, y + dy + ry), fill=colour)

    ellipse(0, 0, 0.78, 1, SKIN)
    draw.pieslice(
        (x - 0.82 * radius, y - 1.1 * radius, x + 0.82 * radius, y + 0.4 * radius), 180, 360, fill=HAIR
    )
    ellipse(0, -0.05, 0.66, 0.65, SKIN)
    for side in (-0.33, 0.33):
        ellipse(side, -0.33, 0.2, 0.05, HAIR)
        ellipse(side, -0.15, 0.16, 0.08, WHITE)
        ellipse(side, -0.15, 0.09, 0.09, DARK)
    ellipse(0, 0.15, 0.12, 0.12, (200, 150, 120))
    ellipse(0, 0.49, 0.28, 0.07, LIPS)
    return image.filter(ImageFilter.GaussianBlur(radius / 40))


@pytest.mark.parametrize(
    ("size", "face"),
    [((600, 300), (450, 150, 80)), ((600, 300), (130, 160, 80)), ((3000, 1500), (2250, 750, 400))],
)
def test_face_is_found_where_it_is(size: tuple[int, int], face: tuple[int, int, int]) -> None:
    x, y, radius = face
    box = largest_face(draw_face(Image.new("RGB", size, (120, 160, 200)), x, y, radius))
    assert box is not None
    assert abs((box.left + box.right) / 2 - x) < radius / 3
    assert abs((box.top + box.bottom) / 2 - y) < radius / 3
    assert radius < box.right - box.left < 3 * radius


def test_largest_face_wins() -> None:
    image = draw_face(Image.new("RGB", (600, 300), (120, 160, 200)), 120, 150, 50)
    box = largest_face(draw_face(image, 430, 150, 100))
    assert box is not None
    assert box.left < 430 < box.right


def test_no_face_is_none() -> None:
    assert largest_face(Image.linear_gradient("L").convert("RGB")) is None


def test_missing_opencv_names_the_command(monkeypatch: pytest.MonkeyPatch) -> None:
    _cascade.cache_clear()
    monkeypatch.setitem(sys.modules, "cv2", None)
    with pytest.raises(ValueError, match=r"crop_style 'face' needs OpenCV.* pip install 'opencv-python"):
        largest_face(Image.new("RGB", (50, 50)))
