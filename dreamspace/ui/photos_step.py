"""Step 1: photos of the subject, and the words for it."""

import time
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import gradio as gr
from markupsafe import Markup

from dreamspace.config import class_prompt, instance_prompt
from dreamspace.data.captions import MAX_CAPTION_CHARACTERS
from dreamspace.data.photos import ImportReport
from dreamspace.mini.subjects import SUBJECTS
from dreamspace.ui.changes import (
    add_photos,
    caption_photo,
    choose_sample,
    remove_photo,
    rename,
)
from dreamspace.ui.framing import framing
from dreamspace.ui.guide import Guide
from dreamspace.ui.media import subject_url
from dreamspace.ui.new_training import shown_resolution
from dreamspace.ui.page import Page, View, render

FEW_PHOTOS = 4

# A caption is saved when its field is left, or by Enter.
_CAPTION_SCRIPT = """
element.addEventListener("change", ({ target }) => {
  if (!target.matches("[data-caption]")) return;
  trigger("write_caption", { id: target.dataset.caption, text: target.value });
});
element.addEventListener("keydown", (event) => {
  if (event.key !== "Enter" || event.shiftKey || !event.target.matches("[data-caption]")) return;
  event.preventDefault();
  event.target.blur();
});
"""


def build(guide: Guide) -> tuple[gr.Textbox, gr.Textbox]:
    """Build the step; returns the fields for class word and token."""
    guide.html(lambda page: render("photos_intro.html", has_photos=bool(page.photos)))
    with gr.Row(elem_classes="ds-columns"):
        with gr.Column(scale=5, min_width=300), gr.Column(elem_classes="ds-card"):
            guide.html(lambda page: Markup('<h2 class="ds-overline">Add photos</h2>'))
            files = gr.File(
                file_count="multiple",
                show_label=False,
                height=168,
                elem_id="upload",
                elem_classes="ds-drop",
            )
            samples = guide.html(_samples, events=("choose_sample",))
        with gr.Column(scale=7, min_width=300):
            report = guide.html(None, elem_id="import-report")
            wall = guide.html(
                _wall, events=("remove_photo", "write_caption"), script=_CAPTION_SCRIPT, elem_id="wall"
            )
            with gr.Column(elem_classes="ds-card"):
                guide.html(lambda page: Markup('<h2 class="ds-overline">Name it</h2>'))
                with gr.Row(elem_classes="ds-fields"):
                    class_word = gr.Textbox(
                        label="What is it?",
                        info="Its everyday word: dog, mug, person.",
                        placeholder="dog",
                        elem_id="class-word",
                        max_length=60,
                    )
                    token = gr.Textbox(
                        label="Its own word",
                        info="A rare word that means nothing yet.",
                        value="sks",
                        elem_id="token",
                        max_length=60,
                    )
                phrase = guide.html(None, elem_id="phrase")
            go_on = gr.Button(
                "Continue to masks", variant="primary", elem_id="to-masks", elem_classes="ds-next"
            )

    guide.form(class_word, lambda page: _words(page)[0])
    guide.form(token, lambda page: _words(page)[1])
    guide.form(report, lambda page: "")
    guide.follow(go_on, lambda page: gr.update(interactive=bool(page.photos)))
    guide.link(files.upload, _add, [files], [files, report], busy=files)
    guide.link(samples.choose_sample, _choose, fills_form=True)
    guide.link(wall.remove_photo, _remove)
    guide.link(wall.write_caption, _caption)
    guide.link(go_on.click, _continue, [class_word, token])
    guide.follow_fields([phrase], lambda page, form: [_phrase(form.token, form.class_word)])
    return class_word, token


def _words(page: Page) -> tuple[str, str]:
    if page.run is not None:
        return page.run.config.class_word or "", page.run.config.token or ""
    return (page.subject.class_word, page.subject.token) if page.subject else ("", "sks")


def _samples(page: Page) -> Markup:
    chosen = page.subject.sample if page.subject else None
    cards = [
        {"name": s.name, "class_word": s.class_word, "description": s.description, "url": subject_url(s.name)}
        for s in SUBJECTS.values()
    ]
    return render("samples.html", cards=cards, chosen=chosen)


def _wall(page: Page) -> Markup:
    resolution = shown_resolution(page)
    captions = page.subject.captions() if page.subject else {}
    photos = [
        {
            "id": path.stem,
            "path": path,
            "framing": framing(path, resolution),
            "caption": captions.get(path.stem, ""),
        }
        for path in page.photos
    ]
    return render(
        "wall.html",
        photos=photos,
        elsewhere=page.run.photos_dir if page.run is not None and page.subject is None else None,
        few=FEW_PHOTOS,
        num_captioned=len(captions),
        prompt=page.subject.prompt if page.subject else "",
        max_characters=MAX_CAPTION_CHARACTERS,
    )


def _phrase(token: str, class_word: str) -> str:
    if not class_word.strip():
        return ""
    return str(render("phrase.html", prompt=instance_prompt(token, class_word), token=token.strip()))


def _add(
    page: Page, clicked: dict[str, Any], files: list[str] | None, progress: gr.Progress
) -> tuple[View, None, str]:
    paths = [Path(file) for file in files or []]
    try:
        subject_dir, report = add_photos(
            page.workspace,
            page.subject.dir if page.subject else None,
            paths,
            on_progress=lambda done, total: progress((done, total), desc="Reading photos", unit="photos"),
        )
    finally:
        forget_uploads(paths)
    view = page.view if subject_dir is None else page.with_photos(subject_dir)
    return view, None, report_of(report)


def forget_uploads(paths: list[Path]) -> None:
    """Remove Gradio's copies of uploaded files; what is wanted of them is in the workspace."""
    for path in paths:
        path.unlink(missing_ok=True)
        with suppress(OSError):  # Another upload may share the folder.
            path.parent.rmdir()
    # gr.File (6.31) makes an empty temporary file for each, and forgets it. A young one may belong to an
    # upload that just begins.
    for file in sorted({file for path in paths for file in path.parents[1].glob("tmp*")}):
        with suppress(FileNotFoundError):
            if file.stat().st_size == 0 and time.time() - file.stat().st_mtime > 60:
                file.unlink()


def report_of(report: ImportReport) -> str:
    """What became of the files of an upload, as HTML."""
    return str(render("import_report.html", report=report))


def _choose(page: Page, clicked: dict[str, Any]) -> View:
    return page.view.of_subject(choose_sample(page.workspace, clicked.get("name", "")).name)


def _remove(page: Page, clicked: dict[str, Any]) -> View:
    if page.subject is None:
        return page.view
    return page.at(remove_photo(page.workspace, page.subject, clicked.get("id", "")))


def _caption(page: Page, clicked: dict[str, Any]) -> View:
    if page.subject is None:
        return page.view
    photo_id, text = str(clicked.get("id", "")), str(clicked.get("text", ""))
    return page.at(caption_photo(page.workspace, page.subject, photo_id, text))


def _continue(page: Page, clicked: dict[str, Any], class_word: str, token: str) -> View:
    class_prompt(class_word)
    instance_prompt(token, class_word)
    view = page.view
    if page.subject is not None:
        view = page.at(rename(page.workspace, page.subject, class_word.strip(), token.strip()))
    return replace(view, step="masks" if page.subject is not None else "prior")
