"""What runs drew while they trained, in one picture: a column for each step, a row for each prompt.

python -m benchmarks.contact_sheet RUN_DIR [RUN_DIR ...] --out docs/real_photos.png
"""

import argparse
from pathlib import Path

from PIL import Image

GAP_PX = 16


def block(run_dir: Path) -> Image.Image:
    """The validation images of a run, the base model's first.

    Raises:
        ValueError: if the run has drawn none.
    """
    steps = [sorted(folder.glob("*.png")) for folder in sorted((run_dir / "validation").glob("step-*"))]
    if not steps or not steps[0]:
        raise ValueError(f"{run_dir} has no validation images. Name the folder of a run that drew some.")
    columns = [[Image.open(path) for path in paths] for paths in steps]
    width, height = columns[0][0].size
    sheet = Image.new("RGB", (width * len(columns), height * len(columns[0])), "white")
    for column, images in enumerate(columns):
        for row, image in enumerate(images):
            sheet.paste(image, (width * column, height * row))
    return sheet


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("runs", nargs="+", type=Path, metavar="RUN_DIR")
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    blocks = [block(run_dir) for run_dir in options.runs]
    width = sum(image.width for image in blocks) + GAP_PX * (len(blocks) - 1)
    sheet = Image.new("RGB", (width, max(image.height for image in blocks)), "white")
    left = 0
    for image in blocks:
        sheet.paste(image, (left, 0))
        left += image.width + GAP_PX
    sheet.save(options.out)


if __name__ == "__main__":
    main()
