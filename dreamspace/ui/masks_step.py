"""Step 2: which part of each photo is the subject."""

from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import gradio as gr
from markupsafe import Markup

from dreamspace.config import class_prompt, load_preset
from dreamspace.data.mask_shaping import MaskShaping
from dreamspace.jobs.launcher import stop
from dreamspace.ui.changes import choose_for, editable
from dreamspace.ui.framing import CELL_PX
from dreamspace.ui.guide import Guide
from dreamspace.ui.masks import save_painting
from dreamspace.ui.media import mask_url
from dreamspace.ui.new_training import DEFAULT_PRESET, shown_resolution, start_job
from dreamspace.ui.overview import percent
from dreamspace.ui.page import Page, View, render, thumbnail_url
from dreamspace.ui.subject import Subject

_EDITOR = (Path(__file__).parent / "editor.js").read_text(encoding="utf-8")


def build(guide: Guide, class_word: gr.Textbox) -> None:
    """Build the step; the class word comes from step 1."""
    largest_px = load_preset(DEFAULT_PRESET).resolution // 8
    guide.html(lambda page: render("masks_intro.html"))
    with gr.Row(elem_classes="ds-columns"):
        with gr.Column(scale=4, min_width=280):
            with gr.Column(elem_classes="ds-card"):
                find = gr.Button("Mask the subject", variant="primary", elem_id="mask")
                state = guide.html(_state, events=("stop_masking", "mask_again"), elem_id="mask-state")
                use = gr.Checkbox(
                    label="Train with masks",
                    info="Only what is bright is learned. Off, the whole photos are.",
                    elem_id="use-masks",
                )
            with gr.Column(elem_classes="ds-card", elem_id="mask-shape") as shaping:
                guide.html(lambda page: Markup('<h2 class="ds-overline">Shape all masks</h2>'))
                grow = gr.Slider(
                    -largest_px, largest_px, 0, step=1, label="Grow or shrink", elem_id="grow",
                    info="In px of the training picture; a little more than the subject is safer than less.",
                )  # fmt: skip
                feather = gr.Slider(
                    0, largest_px, 0, step=1, label="Soft edge", elem_id="feather",
                    info="Over how many px the mask fades out.",
                )  # fmt: skip
                invert = gr.Checkbox(
                    label="Invert", info="Learn what is around it instead.", elem_id="invert"
                )
        with gr.Column(scale=8, min_width=300):
            wall = guide.html(_wall, events=("save_mask", "forget_mask"), script=_EDITOR, elem_id="masks")
            go_on = gr.Button(
                "Continue to the prior", variant="primary", elem_id="to-prior", elem_classes="ds-next"
            )

    guide.follow(find, _find_button)
    guide.follow(use, _use_box)
    guide.follow(shaping, lambda page: gr.update(visible=_num_masks(page) > 0))
    for component in (grow, feather):
        guide.form(component, _in_px(component.elem_id), follows_size=True)
    guide.form(invert, lambda page: _chosen(page).invert)
    guide.link(find.click, _find, [class_word], busy=state)
    guide.link(state.mask_again, _find_again, [class_word], busy=state)
    guide.link(state.stop_masking, _stop)
    guide.link(use.input, _use, [use])
    for component in (grow, feather, invert):
        guide.link(component.input, _shape, [grow, feather, invert], trigger_mode="always_last")
    guide.link(wall.save_mask, _save)
    guide.link(wall.forget_mask, _forget)
    guide.link(go_on.click, _continue)


def _chosen(page: Page) -> Subject:
    """The subject whose choices the fields show; without one, the defaults."""
    return page.subject or Subject(Path())


def _in_px(name: str) -> Callable[[Page], dict[str, Any]]:
    """A slider of pixels of the training picture, for what is kept as a share of it."""

    def shown(page: Page) -> dict[str, Any]:
        resolution, share = shown_resolution(page), asdict(_chosen(page))[name]
        largest = resolution // 8
        smallest = -largest if name == "grow" else 0
        return gr.update(value=round(share * resolution), minimum=smallest, maximum=largest)

    return shown


def _num_masks(page: Page) -> int:
    return len(page.photos) - len(page.subject.unmasked()) if page.subject else 0


def _is_masking(page: Page) -> bool:
    return page.mask_job is not None and not page.status(page.mask_job).is_final


def _find_button(page: Page) -> dict[str, Any]:
    num_missing = len(page.photos) - _num_masks(page)
    if num_missing and num_missing < len(page.photos):
        label = f"Mask the {'other photo' if num_missing == 1 else f'{num_missing} others'}"
    else:
        label = "Mask the subject"
    return gr.update(value=label, visible=num_missing > 0 and not _is_masking(page))


def _use_box(page: Page) -> dict[str, Any]:
    is_on = page.subject is not None and page.subject.use_masks
    return gr.update(value=is_on, interactive=is_on or _num_masks(page) > 0)


def _find(page: Page, clicked: dict[str, Any], class_word: str) -> View:
    return _start(page, class_word, overwrite=False)


def _find_again(page: Page, clicked: dict[str, Any], class_word: str) -> View:
    return _start(page, class_word, overwrite=True)


def _start(page: Page, class_word: str, *, overwrite: bool) -> View:
    """Submit a job that finds the subject, and let the training use what it finds.

    Raises:
        ValueError: without a class word, or if it is at work already.
    """
    class_prompt(class_word)
    if page.subject is None:
        return page.view
    if _is_masking(page):
        raise ValueError("These photos are being masked already.")
    subject = choose_for(editable(page.workspace, page.subject), use_masks=True)
    arguments = {
        "photos": str(subject.photos_dir),
        "out": str(subject.raw_masks_dir),
        "subject_text": class_word.strip(),
        "method": "auto",
        "model": None,
        "overwrite": overwrite,
        **asdict(MaskShaping()),  # as they are found: shaping is for later, and can be changed back
    }
    start_job(page.workspace, f"masks {class_word}", "mask", arguments)
    return page.at(subject)


def _stop(page: Page, clicked: dict[str, Any]) -> View:
    if page.mask_job is not None:
        stop(page.mask_job)
    return page.view


def _use(page: Page, clicked: dict[str, Any], use_masks: bool) -> View:
    if page.subject is not None:
        choose_for(page.subject, use_masks=bool(use_masks))
    return page.view


def _shape(page: Page, clicked: dict[str, Any], grow_px: float, feather_px: float, invert: bool) -> View:
    if page.subject is None:
        return page.view
    resolution = shown_resolution(page)
    choices = {
        "grow": grow_px / resolution,
        "feather": max(0, feather_px) / resolution,
        "invert": bool(invert),
    }
    if replace(page.subject, **choices) == page.subject:
        return page.view
    return page.at(choose_for(editable(page.workspace, page.subject), **choices))


def _save(page: Page, clicked: dict[str, Any]) -> View:
    """Take a mask that was painted; it comes from the browser, so that all of it is checked."""
    photo_id = str(clicked.get("id", ""))
    if page.subject is None or page.subject.photo(photo_id) is None:
        return page.view
    subject = editable(page.workspace, page.subject)
    save_painting(subject, subject.photo(photo_id), str(clicked.get("painting", "")))
    return page.at(choose_for(subject, use_masks=True))


def _forget(page: Page, clicked: dict[str, Any]) -> View:
    photo = page.subject.photo(str(clicked.get("id", ""))) if page.subject else None
    if photo is None or page.subject.raw_mask(photo) is None:
        return page.view
    subject = editable(page.workspace, page.subject)
    (subject.raw_masks_dir / photo.name).unlink(missing_ok=True)
    return page.at(subject)


def _continue(page: Page, clicked: dict[str, Any]) -> View:
    return replace(page.view, step="prior")


def _state(page: Page) -> Markup:
    """How many photos have a mask, and how far the job is that finds them."""
    job = page.mask_job
    status = page.status(job) if job is not None else None
    warnings = page.history(job).warnings if job is not None else []
    return render(
        "mask_state.html",
        num_photos=len(page.photos),
        num_masks=_num_masks(page),
        status=status,
        percent=percent(status) if status is not None else 0,
        warnings=[_by_number(page, f"{w['message']} {w['hint'] or ''}") for w in warnings],
        is_masking=_is_masking(page),
    )


def _by_number(page: Page, text: str) -> str:
    """A sentence of the job with its photos called by their numbers, as the page calls them."""
    for number, photo in enumerate(page.photos, 1):
        text = text.replace(photo.stem, f"photo {number}")
    return text.strip()


def _wall(page: Page) -> Markup:
    """The photos with their masks laid over them."""
    subject, resolution = page.subject, shown_resolution(page)
    tiles = []
    for photo in page.photos:
        has_mask = subject.raw_mask(photo) is not None
        tiles.append(
            {
                "id": photo.stem,
                "photo": thumbnail_url(photo, 640),
                "shown": mask_url(subject, photo, "overlay") if has_mask else thumbnail_url(photo, 640),
                "cells": mask_url(subject, photo, "cells", resolution) if has_mask else None,
                "paint": mask_url(subject, photo, "paint"),
                "has_mask": has_mask,
            }
        )
    return render(
        "masks.html",
        tiles=tiles,
        is_masking=_is_masking(page),
        num_columns=resolution // CELL_PX,
        is_unused=_num_masks(page) > 0 and not subject.use_masks,
    )
