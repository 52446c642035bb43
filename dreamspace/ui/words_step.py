"""Step 4: the word that the subject will answer to."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import gradio as gr
from gradio.components import Component
from markupsafe import Markup

from dreamspace.config import class_prompt
from dreamspace.jobs.launcher import stop
from dreamspace.jobs.secrecy import refuse_tokens
from dreamspace.prompts.names import bundled_names, tidy_names
from dreamspace.prompts.results import LOOKALIKES_NAME, TOKENS_NAME
from dreamspace.ui.changes import rename
from dreamspace.ui.guide import Guide
from dreamspace.ui.new_training import Form, check_base_model, check_disk, start_job
from dreamspace.ui.page import Page, View, render
from dreamspace.ui.words_panels import lookalikes_panel, tokens_panel, view_panel, words_job

NUM_TOKENS = 20
MAX_CHECKED = 8


@dataclass(frozen=True)
class WordsStep:
    """The step while it is built: its fields and what follows from them."""

    check: gr.Textbox
    find: gr.Button
    tokens: gr.HTML
    own_name: gr.Textbox
    names: gr.Textbox
    compare: gr.Button
    lookalikes: gr.HTML
    draws: gr.Checkbox


def build(guide: Guide) -> WordsStep:
    """Build the step; `wire` connects it, once the fields of the other steps are there."""
    guide.html(lambda page: render("words_intro.html"))
    with gr.Row(elem_classes="ds-columns"):
        with gr.Column(scale=7, min_width=300):
            with gr.Column(elem_classes="ds-card"):
                guide.html(lambda page: Markup('<h2 class="ds-overline">A rare word</h2>'))
                with gr.Row(elem_classes="ds-fields"):
                    check = gr.Textbox(
                        label="Judge these too", info="Words that others use, such as sks or ohwx.",
                        placeholder="sks ohwx zwx", max_length=200, elem_id="check-words",
                    )  # fmt: skip
                    find = gr.Button("Find rare words", elem_id="find-tokens")
                tokens = guide.html(None, events=("take", "stop_tokens"), elem_id="tokens")
            with gr.Column(elem_classes="ds-card"):
                guide.html(lambda page: Markup('<h2 class="ds-overline">A word that looks like it</h2>'))
                with gr.Row(elem_classes="ds-fields"):
                    own_name = gr.Textbox(
                        label="Its real name", info="If it has one that the model may know.",
                        max_length=100, elem_id="own-name",
                    )  # fmt: skip
                    names = gr.Textbox(
                        label="Names or looks to try", info="One a line; empty takes a list that fits.",
                        lines=2, max_lines=6, max_length=20_000, elem_id="names",
                    )  # fmt: skip
                    compare = gr.Button("Find look-alikes", elem_id="find-lookalikes")
                lookalikes = guide.html(None, events=("take", "stop_lookalikes"), elem_id="lookalikes")
        with gr.Column(scale=5, min_width=300, elem_classes="ds-sticky"):
            view = guide.html(None, elem_id="words-view")
            with gr.Column(elem_classes="ds-card"):
                draws = gr.Checkbox(
                    True, label="Let the model draw the best",
                    info="It takes longer, and shows what the model thinks of when it reads them.",
                    elem_id="draw-words",
                )  # fmt: skip
            go_on = gr.Button(
                "Continue to the model", variant="primary", elem_id="to-settings", elem_classes="ds-next"
            )
    guide.follow_fields([tokens, lookalikes, view], _described, _news)
    guide.link(go_on.click, lambda page, clicked: replace(page.view, step="settings"))
    for field in (check, own_name, names):
        guide.form(field, lambda page: "")
    return WordsStep(check, find, tokens, own_name, names, compare, lookalikes, draws)


def wire(
    guide: Guide,
    step: WordsStep,
    token: gr.Textbox,
    inputs: Sequence[Component],
    read: Callable[[tuple[Any, ...]], Form],
) -> None:
    """Connect the step.

    Args:
        token: the field of step 1 that a word is taken into.
        inputs: the fields of all steps, of which `read` makes a form.
    """

    def find(page: Page, clicked: dict[str, Any], check: str, draws: bool, *values: Any) -> View:
        _find(page, read(values), check, draws)
        return page.view

    def compare(
        page: Page, clicked: dict[str, Any], own_name: str, names: str, draws: bool, *values: Any
    ) -> View:
        _compare(page, read(values), own_name, names, draws)
        return page.view

    def take(page: Page, clicked: dict[str, Any], *values: Any) -> tuple[View, str]:
        return _take(page, read(values), str(clicked.get("word", "")))

    def stopper(kind: str) -> Callable[..., View]:
        def stop_job(page: Page, clicked: dict[str, Any], *values: Any) -> View:
            job = words_job(page, kind, read(values))
            if job is not None:
                stop(job)
            return page.view

        return stop_job

    guide.link(step.find.click, find, [step.check, step.draws, *inputs], busy=step.tokens)
    fields = [step.own_name, step.names, step.draws]
    guide.link(step.compare.click, compare, [*fields, *inputs], busy=step.lookalikes)
    for panel in (step.tokens, step.lookalikes):
        guide.link(panel.take, take, inputs, [token])
    guide.link(step.tokens.stop_tokens, stopper("tokens"), inputs)
    guide.link(step.lookalikes.stop_lookalikes, stopper("lookalikes"), inputs)


def _described(page: Page, form: Form) -> tuple[str, str, str]:
    """What follows from the fields, in the order in which it is sent to the page."""
    try:
        check_base_model(form.model)
    except ValueError:  # said where a job is asked for, and in the step of the model
        return "", "", ""
    return tokens_panel(page, form), lookalikes_panel(page, form), view_panel(page, form)


def _find(page: Page, form: Form, check: str, draws: bool) -> None:
    """Submit a job that looks for rare words.

    Raises:
        ValueError: if the class word or the base model is wrong, or it is at work already.
    """
    words = list(dict.fromkeys(check.replace(",", " ").split()))
    if len(words) > MAX_CHECKED:
        raise ValueError(f"At most {MAX_CHECKED} words are judged at once, got {len(words)}.")
    refuse_tokens("\n".join(words), "The words to judge")
    _check(page, form, "tokens")
    arguments = {**_common(form, draws), "count": NUM_TOKENS, "check": words}
    start_job(page.workspace, f"rare words {form.class_word}", "tokens", arguments)


def _compare(page: Page, form: Form, own_name: str, names: str, draws: bool) -> None:
    """Submit a job that compares names with the photos.

    Raises:
        ValueError: if there are no photos, the class word, a name or the base model is wrong, or it is at
            work already.
    """
    if page.subject is None or not page.photos:
        raise ValueError("There are no photos yet. Add some in step 1, or choose a sample subject there.")
    refuse_tokens(f"{own_name}\n{names}", "The names")
    chosen = tidy_names(names, "the list of names") or bundled_names(form.class_word.strip())
    _check(page, form, "lookalikes")
    arguments = {
        **_common(form, draws),
        "photos": str(page.subject.photos_dir),
        "names": chosen,
        "own_name": " ".join(own_name.split()) or None,
    }
    start_job(page.workspace, f"look-alikes {form.class_word}", "lookalikes", arguments)


def _check(page: Page, form: Form, kind: str) -> None:
    class_prompt(form.class_word)
    check_base_model(form.model)
    check_disk(page.workspace)
    job = words_job(page, kind, form)
    if job is not None and not page.status(job).is_final:
        raise ValueError("This is at work already. Wait for it, or stop it first.")


def _common(form: Form, draws: bool) -> dict[str, Any]:
    return {
        "model": form.model,
        "class_word": form.class_word.strip(),
        "probe": bool(draws),
        "clip": None,
    }


def _take(page: Page, form: Form, word: str) -> tuple[View, str]:
    """Call the subject by a word of the tables."""
    if page.subject is None or not word:
        return page.view, form.token
    return page.at(rename(page.workspace, page.subject, form.class_word.strip(), word)), word


def _news(page: Page) -> str:
    """Changes with every event and report of the newest jobs that look for words."""
    seen = []
    for kind, report in (("tokens", TOKENS_NAME), ("lookalikes", LOOKALIKES_NAME)):
        for job in page.all_jobs.get(kind, [])[:2]:
            file = job / report
            changed = file.stat().st_mtime_ns if file.exists() else 0
            seen.append((job.name, page.status(job), len(page.history(job).images), changed))
    return str(hash(repr(seen)))
