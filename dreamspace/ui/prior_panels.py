"""What the step of the prior shows: the choices, what they mean, and the class images."""

from dreamspace.config import Prior
from dreamspace.data.held_out import num_trained
from dreamspace.estimate.speed import prior_share
from dreamspace.ui.forecast import expected
from dreamspace.ui.media import class_image_url, class_url, event_picture_url, is_picture
from dreamspace.ui.new_training import Form, class_images, shown_config
from dreamspace.ui.overview import percent
from dreamspace.ui.page import Page, render

MAX_THUMBNAILS = 48

PRIORS: dict[Prior, tuple[str, str]] = {
    "base": (
        "Class images, as the model sees them",
        "It draws other things of the class and is held to its own view of them. The usual choice.",
    ),
    "noise": (
        "Class images, as in the DreamBooth paper",
        "It learns to draw them again, beside your subject. A little faster a step, and less exact.",
    ),
    "image-free": (
        "Without images",
        "It is held to what it saw in your own photos under the class word. Nothing has to be drawn.",
    ),
    "none": (
        "Nothing",
        "Every picture shows your subject. The fastest, and some subjects come out best this way.",
    ),
}
"""The ways to keep the prior: a title and a sentence each."""


def effect_panel(page: Page, form: Form) -> str:
    """What the choice means: the pictures, the mixture, and the time it adds."""
    if not page.photos or not form.class_word.strip():
        return ""
    try:
        config, found, wrong = form.config(), expected(page, form), ""
    except ValueError as error:
        config, found, wrong = shown_config(page), None, str(error)
    files = class_images(page, form)
    pictures = [class_image_url(file) for file in files[:3]]
    drawn = [class_url(form.class_word.strip(), seed) for seed in (1, 2, 3)]
    return str(
        render(
            "prior_effect.html",
            prior=form.prior,
            photos=page.photos,
            class_word=form.class_word.strip(),
            token=form.token.strip(),
            class_pictures=pictures or [url for url in drawn if url],
            share=prior_share(
                form.prior, num_trained(len(page.photos), config.held_out_photos), config.num_class_images
            ),
            num_rows=config.max_train_steps * config.train_batch_size * config.gradient_accumulation_steps,
            estimate=found,
            wrong=wrong,
        )
    )


def images_panel(page: Page, form: Form) -> str:
    """The class images, and the job that draws them."""
    if not form.needs_class_images or not form.class_word.strip():
        return ""
    files = class_images(page, form)
    job = page.prior_job(form.prior_dir(page.workspace))
    status = page.status(job) if job is not None else None
    coming = []
    if job is not None and status.status == "running":
        previews = page.history(job).previews
        coming = [
            event_picture_url(job, previews[index], 160) for index in sorted(previews) if index >= len(files)
        ]
    return str(
        render(
            "prior_images.html",
            urls=[class_image_url(file) for file in files[:MAX_THUMBNAILS] if is_picture(file)],
            num_files=len(files),
            num_wanted=int(form.num_class_images or 0),
            coming=coming,
            status=status,
            percent=percent(status) if status is not None else 0,
        )
    )
