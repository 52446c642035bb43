"""The whole page: the list of runs beside the guide with its eight steps."""

import gradio as gr

from dreamspace.jobs.workspace import Workspace
from dreamspace.ui import (
    masks_step,
    overview,
    photos_step,
    prior_step,
    publish_step,
    result_step,
    settings_step,
    train_step,
    words_step,
)
from dreamspace.ui.guide import Guide

# Uploads are moved into the workspace at once; what a broken upload leaves goes after a day.
_DELETE_CACHE_SECONDS = (3600, 86_400)


def build_page(workspace: Workspace, is_local: bool) -> gr.Blocks:
    """The Blocks of the app; `is_local` says whether only this machine can reach it."""
    with gr.Blocks(title="Dreamspace", analytics_enabled=False, delete_cache=_DELETE_CACHE_SECONDS) as demo:
        guide = Guide(workspace, gr.Textbox(visible="hidden", elem_id="address"))
        with gr.Row(elem_id="frame"):
            with gr.Column(elem_id="side", scale=0, min_width=0):
                overview.build_side(guide)
            with gr.Column(elem_id="main", min_width=0):
                overview.build_heading(guide)
                walkthrough = _build_steps(guide, is_local)
        guide.wire(demo, walkthrough)
    return demo


def _build_steps(guide: Guide, is_local: bool) -> gr.Walkthrough:
    with gr.Walkthrough(selected=0, elem_id="guide") as walkthrough:
        with gr.Step("Photos", id=0):
            class_word, token = photos_step.build(guide)
        with gr.Step("Masks", id=1):
            masks_step.build(guide, class_word)
        with gr.Step("Prior", id=2):
            prior = prior_step.build(guide)
        with gr.Step("Words", id=3):
            words = words_step.build(guide)
        with gr.Step("Model and precision", id=4):
            settings_step.build(guide, class_word, token, prior, words)
        with gr.Step("Train", id=5):
            train_step.build(guide)
        with gr.Step("Result", id=6):
            result_step.build(guide)
        with gr.Step("Publish", id=7):
            publish_step.build(guide, lends_token=is_local)
    return walkthrough
