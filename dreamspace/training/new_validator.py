"""What draws a run's validation images, shows them as they come into focus, and sends them elsewhere."""

from pathlib import Path

from torch import nn

from dreamspace.config import RunConfig
from dreamspace.data.cache import pixels_of
from dreamspace.jobs.events import EventWriter
from dreamspace.jobs.webhook import Webhook, read_targets
from dreamspace.models.base import BaseModel
from dreamspace.models.preview_choice import new_previewer
from dreamspace.models.previews import Previewer
from dreamspace.models.sampling import SamplingSettings
from dreamspace.models.text import TextEncoders
from dreamspace.training.preparation import TrainingSet, validation_photos
from dreamspace.training.validation import Validator

NUM_PHOTOS = 16
"""In the fit of a map from latents to colours, of each dataset; more cost time and change little."""


def new_validator(
    config: RunConfig,
    run_dir: Path,
    events: EventWriter,
    model: BaseModel,
    denoiser: nn.Module,
    training_set: TrainingSet,
    prompts: list[str],
    settings: SamplingSettings,
    text: TextEncoders | None,
    is_seen: bool,
) -> Validator:
    """What draws the validation images of a run with the denoiser that is trained.

    Args:
        is_seen: whether this process is the one that draws.
    """
    vae = model.load_vae(model.denoiser_dtype)
    if vae is not None:
        vae.to("cpu")  # It is needed while images are drawn, beside the denoiser; see `Validator.images`.
    return Validator(
        config,
        run_dir,
        events,
        model.family,
        model.pipeline(denoiser, vae),
        vae,
        _previewer(config, model, training_set, events) if is_seen else None,
        prompts,
        training_set.conditioning,
        settings,
        validation_photos(model.family, prompts, training_set),
        text,
        _webhook(config, events) if is_seen else None,
    )


def _previewer(
    config: RunConfig, model: BaseModel, training_set: TrainingSet, events: EventWriter
) -> Previewer | None:
    """The previews of a run, fitted to its own photos; None where it shows none."""
    if not config.shows_previews:
        return None
    chosen = [
        (rows, sample)
        for latents, samples in zip(training_set.latents, training_set.samples, strict=True)
        for rows, sample in list(zip(latents, samples, strict=True))[:NUM_PHOTOS]
    ]
    pictures = [pixels_of(sample.picture()) for _, sample in chosen]
    name = config.validation_preview_model
    return new_previewer(model, events, name, [rows for rows, _ in chosen], pictures)


def _webhook(config: RunConfig, events: EventWriter) -> Webhook | None:
    """The webhook of a run, if it has one."""
    if config.webhook_config is None or config.validation_disable:
        return None
    return Webhook(
        read_targets(Path(config.webhook_config)),
        lambda message, hint: events.write("warning", message=message, hint=hint),
    )
