"""What the step of the words shows: rare words, look-alikes, and what the model reads of a prompt."""

from functools import cache
from pathlib import Path
from typing import Any

from dreamspace.config import instance_prompt
from dreamspace.jobs.workspace import JobStatus
from dreamspace.prompts.pieces import PromptTokenizer, tokenizers_of
from dreamspace.prompts.preview import Word, cut_off, words_of
from dreamspace.prompts.results import LOOKALIKES_NAME, TOKENS_NAME, read_report, tokens_advice
from dreamspace.ui.media import picture_url
from dreamspace.ui.new_training import Form, check_base_model
from dreamspace.ui.overview import percent
from dreamspace.ui.page import Page, render

NUM_SHOWN = 12
"""Of the names and tokens of a report; more are in the job's folder."""


def words_job(page: Page, kind: str, form: Form) -> Path | None:
    """The newest job of a kind for this model and class word; `lookalikes` for these photos, too."""
    wanted = {"model": form.model, "class_word": form.class_word.strip()}
    if kind == "lookalikes" and page.subject is not None:
        wanted["photos"] = str(page.subject.photos_dir)
    return page.newest_job(kind, wanted)


def tokens_panel(page: Page, form: Form) -> str:
    """The rare words that were found, and how far the job is that looks for them."""
    job = words_job(page, "tokens", form)
    report = read_report(job / TOKENS_NAME) if job is not None else None
    rows = report["tokens"] if report else []
    shown = [row for row in rows if row["is_checked"]] + [row for row in rows if not row["is_checked"]]
    return str(
        render(
            "words_tokens.html",
            **_state(page, job),
            rows=[_with_pictures(job, row) for row in shown[:NUM_SHOWN]],
            class_urls=_urls(job, report["class_pictures"]) if report else [],
            advice=tokens_advice(report) if report else "",
            token=form.token.strip(),
            class_word=form.class_word.strip(),
        )
    )


def lookalikes_panel(page: Page, form: Form) -> str:
    """The names and looks in their order, and how far the job is that compares them."""
    job = words_job(page, "lookalikes", form)
    report = read_report(job / LOOKALIKES_NAME) if job is not None else None
    return str(
        render(
            "words_lookalikes.html",
            **_state(page, job),
            rows=[_with_pictures(job, row) for row in report["names"][:NUM_SHOWN]] if report else [],
            recommended=report["recommended"] if report else None,
            advice=report["advice"] if report else "",
            photos_likeness=report["photos_likeness"] if report else None,
            token=form.token.strip(),
            class_word=form.class_word.strip(),
        )
    )


def view_panel(page: Page, form: Form) -> str:
    """What each tokenizer of the model makes of the prompt, and of captions that it does not read whole."""
    if not form.class_word.strip():
        return ""
    prompt = instance_prompt(form.token, form.class_word)
    tokenizers = local_tokenizers(form.model)
    captions = page.subject.captions() if page.subject else {}
    numbered = [(number, captions.get(photo.stem, prompt)) for number, photo in enumerate(page.photos, 1)]
    return str(
        render(
            "words_view.html",
            prompt=prompt,
            model=form.model,
            views=[_view(tokenizer, prompt) for tokenizer in tokenizers],
            captions=numbered,
            cut_captions=[
                (number, sentence)
                for number, caption in numbered
                if caption != prompt
                for sentence in (cut_off(tokenizer.view(caption)) for tokenizer in tokenizers)
                if sentence is not None
            ],
        )
    )


def local_tokenizers(model: str) -> list[PromptTokenizer]:
    """The tokenizers of a model that is on this machine; none where it would have to be downloaded.

    Raises:
        ValueError: if the model is a path, which no browser may open.
    """
    check_base_model(model)
    if model == "mini":
        return _tokenizers("mini")
    from huggingface_hub import try_to_load_from_cache

    index = try_to_load_from_cache(model, "model_index.json")
    if not isinstance(index, str):
        return []
    try:
        return _tokenizers(str(Path(index).parent))
    except ValueError:  # a download that was cut off; the next job completes it, or says what is wrong
        return []


@cache
def _tokenizers(model: str) -> list[PromptTokenizer]:
    return tokenizers_of(model)


def _view(tokenizer: PromptTokenizer, prompt: str) -> dict[str, Any]:
    view = tokenizer.view(prompt)
    return {
        "part": view.part,
        "is_clip": tokenizer.is_clip,
        "words": [_shown(word) for word in words_of(view)],
        "num_pieces": len(view.pieces),
        "num_read": view.num_read,
        "cut_off": cut_off(view),
    }


def _shown(word: Word) -> dict[str, Any]:
    pieces = [piece.removesuffix("</w>").lstrip("Ġ▁") or "·" for piece in word.pieces]
    return {"text": word.text, "role": word.role, "pieces": pieces}


def _state(page: Page, job: Path | None) -> dict[str, Any]:
    """What a panel says of its job."""
    status: JobStatus | None = page.status(job) if job is not None else None
    warnings = page.history(job).warnings if job is not None else []
    coming = []
    if job is not None and status is not None and not status.is_final:
        coming = _urls(job, list(page.history(job).images)[-4:])
    return {
        "status": status,
        "percent": percent(status) if status is not None else 0,
        "warnings": [f"{warning['message']} {warning['hint'] or ''}".strip() for warning in warnings],
        "coming": coming,
    }


def _with_pictures(job: Path, row: dict[str, Any]) -> dict[str, Any]:
    return {**row, "urls": _urls(job, row["pictures"])}


def _urls(job: Path, paths: list[str]) -> list[str]:
    return [picture_url(job, path, width_px=160) for path in paths]
