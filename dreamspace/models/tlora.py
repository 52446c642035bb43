"""LyCORIS' T-LoRA (arXiv:2507.05964), of which the fewer ranks are active, the more noise there is.

LyCORIS 4.1.3 knows one mask of ranks for a whole batch, which the trainer is to set. Here each row has its
own, by the timestep that the denoiser is told of it: in training, and wherever images are drawn.
"""

import gc
import inspect
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from lycoris.modules import MODULE_LIST
from lycoris.modules.tlora import TLoraModule
from lycoris.wrapper import network_module_dict
from torch import Tensor, nn

from dreamspace.models.family import Family


class ActiveRanks:
    """How many ranks are active in each row of a batch, as LyCORIS' `compute_timestep_mask` counts them.

    Args:
        min_rank: with noise alone.
        exponent: of the share of the picture, which scales the others; 1 is the paper's straight line.
    """

    def __init__(self, min_rank: int, exponent: float) -> None:
        self.min_rank, self.exponent = min_rank, exponent
        self._picture: Tensor | None = None
        self._masks: dict[int, Tensor] = {}

    def follow(self, denoiser: nn.Module, family: Family) -> None:
        """Look at the timesteps before every prediction of a denoiser, until the next one."""
        names = list(inspect.signature(denoiser.forward).parameters)
        name = "timestep" if "timestep" in names else "t"
        clean, noise = family.noise_times

        def look(module: nn.Module, positional: tuple[Any, ...], named: dict[str, Any]) -> None:
            times = named[name] if name in named else positional[names.index(name)]
            self.look(1 - (torch.as_tensor(times).float().reshape(-1) - clean) / (noise - clean))

        denoiser.register_forward_pre_hook(look, with_kwargs=True)

    def look(self, picture: Tensor) -> None:
        """The (B,) shares of the picture in the rows of the next batch: 0 with noise alone, 1 without."""
        self._picture, self._masks = picture.clamp(0, 1), {}

    def mask(self, rank: int) -> Tensor:
        """(B, rank), 1 where a row's rank is active."""
        if rank not in self._masks:
            fewest = min(self.min_rank, rank)
            # A whole number may be a little less in fp32.
            more = torch.floor(self._picture**self.exponent * (rank - fewest) + 1e-4)
            ranks = torch.arange(rank, device=self._picture.device)
            self._masks[rank] = (ranks < fewest + more[:, None]).float()
        return self._masks[rank]


class TLora(TLoraModule):
    """LyCORIS' layer with a mask for each row.

    Attributes:
        ranks: None has all of them active, as LyCORIS' own loader draws.
    """

    ranks: ActiveRanks | None = None

    def forward(self, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        """What the layer beneath says, and the adapter's difference."""
        output = self.org_forward(x, *args, **kwargs)
        if self.module_dropout and self.training and torch.rand(1) < self.module_dropout:
            return output
        return output + self.bypass_forward_diff(x, self.multiplier)

    def bypass_forward_diff(self, x: Tensor, scale: float = 1.0) -> Tensor:
        """The difference to what it started from, of the same ranks: P λ Q x - P0 λ0 Q0 x."""
        trained = self._scaled(self.lambda_layer, self.q_layer.weight)
        start = self._scaled(self.base_lambda, self.base_q)
        # As a sum of differences of weights: half precision would round away what was learned of outputs.
        difference = self._through(x, trained, self.p_layer.weight - self.base_p)
        difference = difference + self._through(x, trained - start, self.base_p)
        return self.dropout(difference * self.scale * scale)

    def _scaled(self, lambdas: Tensor, down: Tensor) -> Tensor:
        return lambdas.view(-1, *(1,) * (down.dim() - 1)) * down

    def _through(self, x: Tensor, down: Tensor, up: Tensor) -> Tensor:
        if not self.isconv:
            hidden = self.down_op(x, down.to(x.dtype))
            return self.up_op(self._masked(hidden, -1), up.to(hidden.dtype))
        hidden = self.down_op(x, down.to(x.dtype), None, **self.kw_dict_down)
        return self.up_op(self._masked(hidden, 1), up.to(hidden.dtype), None, **self.kw_dict_up)

    def _masked(self, hidden: Tensor, dimension: int) -> Tensor:
        if self.ranks is None:
            return hidden
        mask = self.ranks.mask(self.lora_dim)
        if len(mask) not in (1, len(hidden)):
            # A layer in which the rows lie in one: the fewest ranks that any of them has.
            mask = mask.amin(dim=0, keepdim=True)
        shape = [1] * hidden.dim()
        shape[0], shape[dimension] = mask.shape
        return hidden * mask.view(shape).to(hidden.dtype)


@contextmanager
def little_garbage() -> Iterator[None]:
    """While T-LoRA layers are made, after each of which LyCORIS 4.1.3 looks through all objects there are."""
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()


network_module_dict["tlora"] = TLora
MODULE_LIST[MODULE_LIST.index(TLoraModule)] = TLora
