"""What shows a run's validation images as they come into focus, and where else they are shown."""

from pathlib import Path

from dreamspace.config import RunConfig
from dreamspace.data.cache import pixels_of
from dreamspace.jobs.events import EventWriter
from dreamspace.jobs.webhook import Webhook, read_targets
from dreamspace.models.base import BaseModel
from dreamspace.models.preview_choice import new_previewer
from dreamspace.models.previews import Previewer
from dreamspace.training.preparation import TrainingSet

NUM_PHOTOS = 16
"""In the fit of a map from latents to colours, of each dataset; more cost time and change little."""


def previewer_of(
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


def webhook_of(config: RunConfig, events: EventWriter) -> Webhook | None:
    """The webhook of a run, if it has one."""
    if config.webhook_config is None or config.validation_disable:
        return None
    return Webhook(
        read_targets(Path(config.webhook_config)),
        lambda message, hint: events.write("warning", message=message, hint=hint),
    )
