"""The largest face in a photo, by OpenCV's cascade: no weights, no network."""

from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from dreamspace.data.geometry import Box

_LARGEST_EDGE_PX = 640


def largest_face(picture: Image.Image) -> Box | None:
    """The largest face that looks at the camera, in the picture's px; None where none is found.

    Raises:
        ValueError: if OpenCV is missing, or carries no face cascade.
    """
    # A face fills enough of a photo that it is found just as well in a small copy, and far sooner.
    grey = picture.convert("L")
    grey.thumbnail((_LARGEST_EDGE_PX, _LARGEST_EDGE_PX))
    smallest = max(24, min(grey.size) // 12)
    faces = _cascade().detectMultiScale(np.asarray(grey), 1.1, 6, minSize=(smallest, smallest))
    if len(faces) == 0:
        return None
    left, top, width, height = max(faces, key=lambda face: face[2] * face[3]).tolist()
    per = picture.width / grey.width
    return Box(left * per, top * per, (left + width) * per, (top + height) * per)


@lru_cache(maxsize=1)
def _cascade() -> Any:
    install = "Install it with: pip install 'opencv-python-headless<5'"
    try:
        import cv2
    except ImportError:
        raise ValueError(f"crop_style 'face' needs OpenCV. {install}") from None
    path = Path(cv2.__file__).parent / "data" / "haarcascade_frontalface_default.xml"
    if not path.is_file():
        raise ValueError(
            f"crop_style 'face' needs OpenCV 4, since {cv2.__version__} has no cascade. {install}"
        )
    return cv2.CascadeClassifier(str(path))
