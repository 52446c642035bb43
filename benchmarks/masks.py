"""How good masks without weights are, on drawings whose true masks are known.

    python -m benchmarks.masks --out docs [--photos DIR]

Masks every photo of the sample subjects and 100 random drawings of mini's world by `grabcut`, and by one
plain GrabCut from a centred ellipse, and prints the intersection over union with the true masks by class.
Writes `masks.json` and `masks.png` (the sample subjects' masks over their photos). With --photos, a folder of
folders of real photos, it writes `real_masks.png` as well: their true masks are not known, so look at them.
"""

import argparse
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import cv2
import numpy as np
from PIL import Image, ImageOps

from dreamspace.data.grabcut import centred_ellipse, cut, grabcut, overlap
from dreamspace.data.photos import photo_files, read_photo
from dreamspace.files import replace_file, write_json
from dreamspace.mini.subjects import SUBJECTS, subject_photos
from dreamspace.mini.world import all_sceneries, render

NUM_DRAWINGS = 100
SIZE_PX = 256
TILE_PX = 160
SEED = 10_000


def ellipse_grabcut(pixels: np.ndarray) -> np.ndarray:
    """What one GrabCut makes of a centred ellipse; (H, W) bool."""
    inside = centred_ellipse(*pixels.shape[:2])
    return cut(pixels, np.where(inside, cv2.GC_PR_FGD, cv2.GC_BGD).astype(np.uint8), 5)


METHODS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "grabcut": lambda pixels: grabcut(pixels) >= 0.5,
    "ellipse": ellipse_grabcut,
}


def drawings() -> Iterator[tuple[str, Image.Image, Image.Image]]:
    """(class, picture, true mask) of each photo of the sample subjects and of the random drawings."""
    for name, subject in SUBJECTS.items():
        for held_out in (False, True):
            for image, mask in subject_photos(name, held_out=held_out):
                yield subject.class_word, image, mask
    sceneries = all_sceneries()
    chosen = np.random.default_rng(SEED).integers(len(sceneries), size=NUM_DRAWINGS)
    for offset, index in enumerate(chosen):
        drawing = render(sceneries[index], SEED + offset, SIZE_PX)
        yield sceneries[index].class_word, drawing.image, drawing.mask


def measure() -> dict:
    """For each method its mean over all drawings, by class, the lowest class, and its seconds a drawing."""
    overlaps: dict[str, dict[str, list[float]]] = {method: {} for method in METHODS}
    seconds = dict.fromkeys(METHODS, 0.0)
    for class_word, image, mask in drawings():
        pixels, truth = np.asarray(image), np.asarray(mask) >= 128
        for method, find in METHODS.items():
            started = time.process_time()
            found = find(pixels)
            seconds[method] += time.process_time() - started
            overlaps[method].setdefault(class_word, []).append(overlap(found, truth))
    results = {}
    for method, by_class in overlaps.items():
        everything = [value for values in by_class.values() for value in values]
        means = {word: round(float(np.mean(values)), 4) for word, values in sorted(by_class.items())}
        results[method] = {
            "mean": round(float(np.mean(everything)), 4),
            "lowest_class": min(means.values()),
            "by_class": means,
            "cpu_seconds": round(seconds[method] / len(everything), 3),
        }
    counts = {word: len(values) for word, values in sorted(overlaps["grabcut"].items())}
    return {"num_drawings": counts, "methods": results}


def table(results: dict) -> str:
    """The figures of `measure` as lines of text."""
    methods = results["methods"]
    lines = [f"{'class':<10} {'drawings':>8} " + " ".join(f"{method:>8}" for method in methods)]
    for word, count in results["num_drawings"].items():
        values = " ".join(f"{methods[method]['by_class'][word]:8.3f}" for method in methods)
        lines.append(f"{word:<10} {count:8} {values}")
    total = sum(results["num_drawings"].values())
    lines.append(f"{'all':<10} {total:8} " + " ".join(f"{entry['mean']:8.3f}" for entry in methods.values()))
    times = " ".join(f"{entry['cpu_seconds']:8.2f}" for entry in methods.values())
    lines.append(f"{'seconds':<10} {'':8} {times}")
    return "\n".join(lines)


def overlay(image: Image.Image) -> Image.Image:
    """A tile of the picture with what its mask leaves out dimmed and the outline drawn."""
    mask = grabcut(np.asarray(image))
    tile = np.asarray(ImageOps.pad(image, (TILE_PX, TILE_PX), color="white"), np.float32)
    grey = Image.fromarray(np.round(mask * 255).astype(np.uint8))
    inside = np.asarray(ImageOps.pad(grey, (TILE_PX, TILE_PX)), np.float32)[..., None] / 255
    dimmed = 0.25 * tile + 0.35 * np.array((190, 60, 200), np.float32)
    mixed = tile * inside + dimmed * (1 - inside)
    outline = cv2.morphologyEx((inside[..., 0] > 0.5).astype(np.uint8), cv2.MORPH_GRADIENT, np.ones((2, 2)))
    mixed[outline > 0] = (60, 230, 90)
    return Image.fromarray(mixed.astype(np.uint8))


def write_sheet(rows: list[list[Image.Image]], path: Path) -> None:
    """Write the overlays of all pictures as one picture, a row for each list."""
    columns = max(len(row) for row in rows)
    sheet = Image.new("RGB", (columns * TILE_PX, len(rows) * TILE_PX), "white")
    for top, row in enumerate(rows):
        for left, image in enumerate(row):
            sheet.paste(overlay(image), (left * TILE_PX, top * TILE_PX))
    with replace_file(path) as temporary:
        sheet.save(temporary)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, default=Path("docs"))
    parser.add_argument("--photos", type=Path, help="a folder of folders of real photos")
    options = parser.parse_args()
    cv2.setNumThreads(1)
    results = measure()
    write_json(options.out / "masks.json", results)
    print(table(results))
    subjects = [
        [image for held_out in (False, True) for image, _ in subject_photos(name, held_out=held_out)]
        for name in SUBJECTS
    ]
    write_sheet(subjects, options.out / "masks.png")
    if options.photos:
        folders = [folder for folder in sorted(options.photos.iterdir()) if folder.is_dir()]
        rows = [[read_photo(path)[0] for path in photo_files(folder)] for folder in folders]
        write_sheet(rows, options.out / "real_masks.png")


if __name__ == "__main__":
    main()
