"""`python -m dreamspace mask`: masks of the subject, for all photos of a folder."""

import argparse

from dreamspace.commands.jobs import hub_token, run_job
from dreamspace.commands.options import given_name, given_path
from dreamspace.config import is_hub_id
from dreamspace.data.mask_shaping import MAX_PX, MaskShaping
from dreamspace.data.masks import MASK_METHODS
from dreamspace.data.photos import list_photos
from dreamspace.jobs.new_run import absolute_model, writable_folder


def add_mask_options(mask: argparse.ArgumentParser) -> None:
    mask.add_argument("photos_dir", type=given_path, metavar="PHOTOS_DIR", help="folder of the photos")
    mask.add_argument("--out", type=given_path, required=True, help="folder of the masks")
    mask.add_argument("--subject-text", default="", help="what to look for, such as dog (not for grabcut)")
    mask.add_argument(
        "--method",
        choices=MASK_METHODS,
        default="auto",
        help="auto takes the best whose weights are here",
    )
    mask.add_argument(
        "--model",
        type=given_name,
        help="its weights: a folder or a Hub id; two with a comma for grounded-sam2",
    )
    mask.add_argument("--threshold", type=float, help="make masks black and white at this value")
    mask.add_argument("--fill-holes", action="store_true", help="whiten what the subject encloses")
    mask.add_argument("--keep-largest", action="store_true", help="leave only the largest part")
    mask.add_argument(
        "--grow",
        type=int,
        default=0,
        metavar="PX",
        help=f"move the edge outwards (-PX: in), at most {MAX_PX}",
    )
    mask.add_argument("--feather", type=float, default=0, metavar="PX", help="fade out over so many pixels")
    mask.add_argument("--invert", action="store_true", help="learn what is outside instead")
    mask.add_argument("--overwrite", action="store_true", help="make the masks anew that are there")


def run_mask(options: argparse.Namespace) -> int:
    """Write a mask for each photo of a folder."""
    list_photos(options.photos_dir)
    shaping = MaskShaping(
        options.threshold,
        options.fill_holes,
        options.keep_largest,
        options.grow,
        options.feather,
        options.invert,
    )
    out = writable_folder(options.out)
    if out == options.photos_dir.resolve():
        raise ValueError(f"--out is the photos' own folder {out}. Name another one for the masks.")
    models = [absolute_model(name) for name in (options.model or "").split(",") if name]
    arguments = {
        "photos": str(options.photos_dir.resolve()),
        "out": str(out),
        "subject_text": options.subject_text,
        "method": options.method,
        "model": ",".join(models) or None,
        "overwrite": options.overwrite,
        **vars(shaping),
    }
    may_download = any(map(is_hub_id, models)) or options.method not in ("auto", "grabcut")
    return run_job("mask", arguments, secrets=hub_token() if may_download else {})
