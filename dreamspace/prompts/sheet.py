"""A contact sheet: rows of pictures with what they are of. Free of torch."""

import textwrap
from collections.abc import Sequence
from pathlib import Path

from PIL import Image, ImageDraw, ImageOps

from dreamspace.files import replace_file

LABEL_PX, MAX_EDGE_PX = 300, 192


def write_sheet(rows: Sequence[tuple[str, str, Sequence[Image.Image]]], path: Path) -> None:
    """Write rows of a title, a sentence and their pictures as PNG."""
    edge = min(MAX_EDGE_PX, max(picture.width for _, _, pictures in rows for picture in pictures))
    width = LABEL_PX + edge * max(len(pictures) for _, _, pictures in rows)
    sheet = Image.new("RGB", (width, edge * len(rows)), "white")
    canvas = ImageDraw.Draw(sheet)
    for number, (title, sentence, pictures) in enumerate(rows):
        top = number * edge
        canvas.text((8, top + 6), textwrap.shorten(title, 34, placeholder="..."), "black", font_size=17)
        lines = textwrap.wrap(sentence, 42)[: (edge - 34) // 15]
        canvas.multiline_text((8, top + 30), "\n".join(lines), (90, 90, 90), font_size=12, spacing=3)
        for column, picture in enumerate(pictures):
            sheet.paste(ImageOps.fit(picture, (edge, edge)), (LABEL_PX + column * edge, top))
    with replace_file(path) as temporary:
        sheet.save(temporary)
