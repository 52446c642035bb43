"""`python -m dreamspace caption`: captions of photos by an image-to-text model."""

import argparse

from dreamspace.commands.jobs import run_job, secrets_for
from dreamspace.commands.options import given_name, given_path
from dreamspace.data.captions import DEFAULT_CAPTIONER
from dreamspace.jobs.new_run import absolute_model, writable_folder


def add_caption_options(caption: argparse.ArgumentParser) -> None:
    caption.add_argument("photos_dir", type=given_path, metavar="PHOTOS_DIR", help="folder of the photos")
    caption.add_argument(
        "--model",
        type=given_name,
        default=DEFAULT_CAPTIONER,
        help=f"image-to-text model: a folder, or a Hub id ({DEFAULT_CAPTIONER})",
    )
    caption.add_argument(
        "--prompt-before",
        default="",
        metavar="TEXT",
        help="text put before each caption, such as 'a photo of a sks dog,'",
    )
    caption.add_argument("--overwrite", action="store_true", help="write the captions anew that are there")


def run_caption(options: argparse.Namespace) -> int:
    """Write a caption beside each photo of a folder."""
    if not options.photos_dir.is_dir():
        raise ValueError(f"There is no folder {options.photos_dir}. Give the folder that holds the photos.")
    arguments = {
        "photos": str(writable_folder(options.photos_dir)),
        "model": absolute_model(options.model),
        "prefix": options.prompt_before,
        "overwrite": options.overwrite,
    }
    return run_job("caption", arguments, secrets=secrets_for(arguments["model"]))
