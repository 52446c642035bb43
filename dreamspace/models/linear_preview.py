"""Latents to colours by one matrix, fitted to pictures that are at hand: a preview that needs no weights."""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from dreamspace.data.cache import TensorCache
from dreamspace.models.base import BaseModel

NUM_FIELDS = 16
"""Synthetic pictures in the fit. With a few photos alone, colours that none of them has come out wrong."""

_FIELD_PX, _BLOTS = 128, 4
_RIDGE = 1e-4
"""Relative to the mean square of the latents: keeps channels that hardly vary from large coefficients."""


@dataclass(frozen=True)
class LinearDecoder:
    """A map from each latent to the mean colour of the pixels behind it.

    Attributes:
        weight: (C, 3).
        bias: (3,).
    """

    weight: Tensor
    bias: Tensor

    def decode(self, latents: Tensor) -> Tensor:
        """Latents (B, C, h, w) to as many pixels (B, 3, h, w), about in [-1, 1]."""
        weight, bias = (each.to(latents.device) for each in (self.weight, self.bias))
        return torch.einsum("bchw,cr->brhw", latents.float(), weight) + bias.view(1, 3, 1, 1)


def fit_linear_decoder(latents: list[Tensor], pictures: list[Tensor]) -> LinearDecoder:
    """The map with the least squared error.

    Args:
        latents: (C, h, w) each, in sizes of any kind.
        pictures: (3, H, W) each in [-1, 1], what they were encoded from.
    """
    cells, colours = [], []
    for rows, picture in zip(latents, pictures, strict=True):
        small = functional.adaptive_avg_pool2d(picture.float(), rows.shape[-2:])
        cells.append(rows.float().flatten(1).T)
        colours.append(small.flatten(1).T)
    # In double precision: a family's latents may have a hundred channels, some of them nearly alike.
    x, y = torch.cat(cells).double().cpu(), torch.cat(colours).double().cpu()
    x = torch.cat([x, torch.ones(len(x), 1, dtype=x.dtype)], dim=1)
    gram = x.T @ x
    ridge = _RIDGE * gram.diagonal()[:-1].mean() * torch.eye(len(gram), dtype=x.dtype)
    ridge[-1, -1] = 0  # The mean colour is free.
    solution = torch.linalg.solve(gram + ridge, x.T @ y).float()
    return LinearDecoder(solution[:-1], solution[-1])


def colour_fields(edge_px: int) -> Tensor:
    """(16, 3, edge, edge) in [-1, 1]: blots of random colours that run into one another."""
    generator = torch.Generator().manual_seed(0)
    colours = torch.rand(NUM_FIELDS, 3, _BLOTS, _BLOTS, generator=generator) * 2 - 1
    fields = functional.interpolate(colours, (edge_px, edge_px), mode="bicubic", align_corners=False)
    return fields.clamp(-1, 1)


def encoded_fields(model: BaseModel) -> tuple[list[Tensor], list[Tensor]]:
    """The latents of the colour fields, kept in the workspace's cache, and the fields themselves."""
    edge = max(_FIELD_PX // model.multiple_px, 4) * model.multiple_px
    fields = colour_fields(edge)
    cache, key = TensorCache(model.cache / "latents"), f"colour fields:{edge}:{model.vae_fingerprint}"
    stored = cache.load(key)
    if stored is None:
        vae = model.load_vae()
        encoded = [model.family.encode_image(vae, field[None].to(model.device)) for field in fields]
        stored = {"latents": torch.cat(encoded).float().cpu()}
        cache.save(key, stored)
    return list(stored["latents"]), list(fields)
