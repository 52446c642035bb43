"""Which previews a model has: by a tiny decoder, by a linear map, or by both."""

from torch import Tensor

from dreamspace.jobs.events import EventWriter
from dreamspace.models.base import BaseModel
from dreamspace.models.linear_preview import LinearDecoder, encoded_fields, fit_linear_decoder
from dreamspace.models.previews import Previewer
from dreamspace.models.tiny_vae import load_tiny_vae

NO_TINY_DECODER_HINT = (
    "If they are to be sharp, name a tiny decoder's folder or Hub id by validation_preview_model."
)


def new_previewer(
    model: BaseModel,
    events: EventWriter,
    name: str | None = None,
    latents: list[Tensor] | None = None,
    pictures: list[Tensor] | None = None,
) -> Previewer:
    """The previews of a model.

    Where its tiny decoder cannot be had, a warning says so, and a map takes its place.

    Args:
        name: of the tiny decoder; see `load_tiny_vae`.
        latents, pictures: (C, h, w) and (3, H, W) in [-1, 1] each, of photos that are at hand; None fits a
            map only where it is needed.
    """
    if model.family.vae_part is None:
        return Previewer(model.family)
    try:
        tiny = load_tiny_vae(model, name)
    except ValueError as error:
        message = f"Previews show colours alone: {error}."
        events.write("warning", message=message, hint=NO_TINY_DECODER_HINT)
        tiny = None
    needs_map = tiny is None or latents is not None
    return Previewer(model.family, tiny, _linear(model, latents or [], pictures or []) if needs_map else None)


def _linear(model: BaseModel, latents: list[Tensor], pictures: list[Tensor]) -> LinearDecoder:
    fields, colours = encoded_fields(model)
    return fit_linear_decoder([*latents, *fields], [*pictures, *colours])
