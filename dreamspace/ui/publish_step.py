"""Step 8: what was trained becomes a model repository on the Hugging Face Hub."""

import os
import re
from functools import partial
from typing import Any
from urllib.parse import urlsplit

import gradio as gr
from markupsafe import Markup

from dreamspace.config import RunConfig
from dreamspace.config.exports import kind_of_weights
from dreamspace.hub.card import TAGS
from dreamspace.run_folder import EMBEDS_NAME, WEIGHTS_NAME
from dreamspace.ui import evaluation_panel
from dreamspace.ui.guide import Guide
from dreamspace.ui.media import event_picture_url
from dreamspace.ui.new_training import start_job
from dreamspace.ui.page import Page, View, render
from dreamspace.ui.result_step import checkpoint_to_use, chosen_step, takes_average

# Publishing has seconds to tidy up; a Hub that does not answer must not hold it.
GRACE_SECONDS = 10.0


def build(guide: Guide, lends_token: bool) -> None:
    """Build the step.

    Args:
        lends_token: whether a visitor without a token publishes with the one of this machine. Where others
            can reach the app they would publish in its owner's name.
    """
    guide.html(lambda page: render("publish_intro.html"))
    with gr.Row(elem_classes="ds-columns"):
        with gr.Column(scale=6, min_width=300):
            guide.html(_preview, elem_id="publish-preview")
        with gr.Column(scale=6, min_width=300):
            with gr.Column(elem_classes="ds-card"):
                gr.HTML('<h2 class="ds-overline">Where to</h2>', apply_default_css=False)
                repo = gr.Textbox(
                    label="Repository", elem_id="repo", max_length=200,
                    info="A name, which goes to the account of the token, or account/name.",
                )  # fmt: skip
                private = gr.Checkbox(
                    label="Private",
                    value=True,
                    elem_id="private",
                    info="Only you can see it. You can open it on the Hub.",
                )
                token = gr.Textbox(
                    label="Access token", type="password", elem_id="hub-token", max_length=500,
                    placeholder="the one of this machine" if lends_token and _machine_token() else "hf_...",
                    info="With write access, from huggingface.co/settings/tokens. It is used for this upload "
                    "and never stored." + (" Leave it empty to use the one of this machine." * lends_token),
                )  # fmt: skip
                push = gr.Button("Publish", variant="primary", elem_id="publish")
            state = guide.html(_state, elem_id="publish-state")

    guide.form(repo, lambda page: _proposed_name(page))
    guide.form(token, lambda page: "")
    guide.follow(push, lambda page: gr.update(interactive=not _is_busy(page)))
    publish = partial(_publish, lends_token=lends_token)
    guide.link(push.click, publish, [repo, private, token], [token], busy=state)


def _proposed_name(page: Page) -> str:
    return re.sub(r"[^a-z0-9]+", "-", page.run.title.lower()).strip("-") if page.run else ""


def _is_busy(page: Page) -> bool:
    return any(not page.status(job).is_final for job in page.jobs("publish")[:1])


def _machine_token() -> str:
    return os.environ.get("HF_TOKEN", "").strip()


def _publish(
    page: Page, clicked: dict[str, Any], repo: str, private: bool, token: str, *, lends_token: bool
) -> tuple[View, str]:
    """Submit a `publish` job; the token goes into its environment and nowhere else.

    Raises:
        ValueError: without a name for the repository, without a token where none is lent, or where the step
            that was chosen in Result was not saved.
    """
    if page.run is None:
        return page.view, ""
    if not repo.strip():
        raise ValueError("The repository has no name yet. Give it one, such as 'my-dog'.")
    if not token.strip() and not lends_token:
        # Without one the job would also find that of `hf auth login`.
        raise ValueError(
            "The access token is missing, and an app that other machines can reach does not lend its own. "
            "Make one with write access at huggingface.co/settings/tokens and type it in."
        )
    secret = token.strip() or _machine_token()
    arguments = {
        "run_dir": str(page.run.dir),
        "checkpoint": checkpoint_to_use(page, page.run),
        "ema": takes_average(page),
        "repo_id": repo.strip(),
        "private": bool(private),
    }
    start_job(
        page.workspace,
        f"publish {page.run.title}",
        "publish",
        arguments,
        needs_gpu=False,
        grace_seconds=GRACE_SECONDS,
        secrets={"HF_TOKEN": secret} if secret else {},
    )
    return page.view, ""


def _preview(page: Page) -> Markup:
    """What will be on the repository's page."""
    if page.run is None:
        return Markup("")
    history, step, is_averaged = page.run_history, chosen_step(page), takes_average(page)
    pictures = [
        (shot.prompt, event_picture_url(page.run.dir, found[-1 if is_averaged else 0], 320))
        for shot in history.shots
        if step and (found := history.shown(step, shot))
    ] or [
        (pair["prompt"], pair["after"])
        for pair in evaluation_panel.evaluated_pairs(page, step)
        if (pair["label"] == "averaged") == is_averaged
    ]
    kind = kind_of_weights(page.run.config)
    return render(
        "publish_preview.html",
        pictures=pictures,
        step=step,
        is_averaged=is_averaged,
        is_recommended=step == evaluation_panel.recommended_step(page),
        title=page.run.title,
        config=page.run.config,
        tags=[tag for tag in TAGS[kind] if ":" not in tag],
        files=_files(page.run.config),
        refusal=_refusal(page),
    )


def _refusal(page: Page) -> str:
    """Why the chosen step cannot be published, where others can; else empty."""
    try:
        checkpoint_to_use(page, page.run)
    except ValueError as error:
        return str(error) if page.saved_steps else ""
    return ""


def _files(config: RunConfig) -> str:
    """The names of the weights' files on the repository's page."""
    if config.model_type == "full":
        return "all files of the model"
    names = [WEIGHTS_NAME] if config.model_type == "lora" else []
    return ", ".join([*names, EMBEDS_NAME] if config.num_token_vectors else names)


def _state(page: Page) -> Markup:
    """The newest upload of this run."""
    jobs = page.jobs("publish")[:1]
    if not jobs:
        return Markup("")
    status, history = page.status(jobs[0]), page.history(jobs[0])
    final = history.final or {}
    url = final.get("path") if status.status == "done" else None
    is_link = bool(url) and urlsplit(url).scheme in ("http", "https")
    return render(
        "publish_state.html", status=status, url=url if is_link else None, warnings=history.warnings
    )
