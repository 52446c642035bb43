"""Quantising the frozen parts of a base model, layer by layer.

The packages are imported where they are used: they take seconds, and most runs need none of them.
"""

import functools
import warnings
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from dreamspace.config.precision import Precision
from dreamspace.models.device import return_freed_memory

GROUP_SIZES: dict[Precision, int] = {"int4-quanto": 32, "int2-quanto": 32, "int4-torchao": 32, "nf4-bnb": 64}
"""A scale is for so many inputs; layers whose inputs are no multiple stay as they are.

bitsandbytes' CPU kernel (0.50.2) takes the scales of other inputs than those where 64 does not divide them.
"""


def quantise(
    module: nn.Module,
    precision: Precision,
    dtype: torch.dtype,
    start: torch.device,
    device: torch.device,
) -> None:
    """Quantise a part of a base model in place; its quantised layers move to the device, the rest stays.

    One layer after the other is moved and quantised, so that a device never holds more than the result and
    one layer more.

    Args:
        dtype: of the weights as they were loaded, and of what the quantised layers compute in.
        start: where a layer is quantised: a GPU is faster, the CPU needs no memory of it.
    """
    quantised = _quantiser(precision)
    for name, layer in quantised_layers(module, precision, dtype):
        module.set_submodule(name, quantised(layer.to(start), device))
        return_freed_memory()


def quantised_layers(
    module: nn.Module, precision: Precision, dtype: torch.dtype
) -> list[tuple[str, nn.Module]]:
    """The layers of a model that a level quantises, by name.

    Those are linear layers, and for quanto, which alone can, convolutions: two thirds of the weights in the
    UNet of Stable Diffusion 1, an eighth in that of SDXL. Left out is what is small and decides much: layers
    at the model's rim (its own children), those of embeddings, and those that the model keeps in another
    format; and what the groups of a level do not fit.
    """
    kinds = (nn.Linear, nn.Conv2d) if precision.endswith("quanto") else (nn.Linear,)
    multiple = GROUP_SIZES.get(precision, 1)
    return [
        (name, layer)
        for name, layer in module.named_modules()
        # Not subclasses: torch's own attention reads the weight of its one past the layer.
        if type(layer) in kinds
        and "." in name
        and "embed" not in name
        and layer.weight.dtype == dtype
        and layer.weight[0].numel() % multiple == 0
    ]


Quantiser = Callable[[Any, torch.device], nn.Module]
"""Makes the quantised layer on a device from one that lies where it is to be quantised."""


def _quantiser(precision: Precision) -> Quantiser:
    quantisers: dict[Precision, Callable[[], Quantiser]] = {
        "int8-quanto": lambda: _quanto("qint8"),
        "int4-quanto": lambda: _quanto("qint4"),
        "int2-quanto": lambda: _quanto("qint2"),
        "fp8-quanto": lambda: _quanto("qfloat8_e4m3fn"),
        "int8-torchao": lambda: _torchao("Int8WeightOnlyConfig"),
        "fp8-torchao": lambda: _torchao("Float8WeightOnlyConfig"),
        "int4-torchao": _torchao_int4,
        "nf4-bnb": _nf4,
    }
    return quantisers[precision]()


def _quanto(name: str) -> Quantiser:
    from optimum.quanto import QConv2d, QLinear, qtypes, quantize_weight

    _unpack_without_compiler()
    qtype = qtypes[name]

    def quantised(layer: nn.Linear | nn.Conv2d, device: torch.device) -> nn.Module:
        kind = QLinear if isinstance(layer, nn.Linear) else QConv2d
        layer = kind.from_module(layer, weights=qtype)
        group = {} if qtype.bits == 8 else {"group_size": layer.weight_group_size}
        found = layer.optimizer(layer.weight, qtype=qtype, axis=0, **group)
        scale, shift = (found, None) if qtype.bits == 8 else found
        # Not quanto's `freeze`, which takes faster kernels where it finds some: they do not know autocast,
        # refuse shapes, or are compiled when first used. It would make the weight trainable, too.
        weight = quantize_weight(
            layer.weight, qtype=qtype, axis=0, scale=scale, shift=shift, **group, optimized=False
        )
        names, description = weight.__tensor_flatten__()
        parts = {name: getattr(weight, name).to(device) for name in names}  # Moved whole, it would take them.
        weight = type(weight).__tensor_unflatten__(parts, description, None, None)
        layer.weight = nn.Parameter(weight, requires_grad=False)
        layer.register_forward_pre_hook(_contiguous)
        return layer.to(device)

    return quantised


def _contiguous(layer: nn.Module, inputs: tuple[Tensor]) -> tuple[Tensor]:
    """Ahead of quanto's layers: its kernel for 8 bits refuses the transposed pictures of SDXL in bf16.

    Until optimum-quanto (0.2.7) makes the input of torch's `_weight_int8pack_mm` contiguous.
    """
    return (inputs[0].contiguous(),)


@functools.cache
def _unpack_without_compiler() -> Any:
    """Unpacks quanto's 4-bit and 2-bit numbers by torch alone, on every device.

    quanto compiles an extension for it where it is installed, when a model first runs: that needs a compiler,
    on a GPU nvcc, and a folder that may be written to. The caller keeps the result: it is the registration.
    """

    def unpack(packed: Tensor, bits: int) -> Tensor:
        return torch.cat([packed >> shift & 2**bits - 1 for shift in range(0, 8, bits)])

    library = torch.library.Library("quanto", "IMPL")
    for device in ("CPU", "CUDA", "MPS"):
        library.impl("unpack", unpack, device)
    return library


class FrozenLinear(nn.Linear):
    """A linear layer with a weight that `dequantize` makes whole.

    torchao's own would keep the whole weight for the backward pass, so that in training the layers of a model
    together would take the memory that quantising them had saved.
    """

    def __init__(self, weight: Tensor, bias: Tensor | None) -> None:
        super().__init__(weight.shape[1], weight.shape[0], bias is not None, device="meta")
        self.weight = nn.Parameter(weight, requires_grad=False)
        self.bias = None if bias is None else nn.Parameter(bias, requires_grad=False)

    def forward(self, input: Tensor) -> Tensor:
        return _FrozenLinearFunction.apply(input, self.weight, self.bias)


class _FrozenLinearFunction(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, input: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        ctx.save_for_backward(weight)
        return nn.functional.linear(input, weight.dequantize(), bias)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        (weight,) = ctx.saved_tensors
        return gradient @ weight.dequantize().to(gradient.dtype), None, None


def _torchao(config_name: str) -> Quantiser:
    import torchao.quantization

    config = getattr(torchao.quantization, config_name)(set_inductor_config=False)
    _silence_peft()

    def quantised(layer: nn.Linear, device: torch.device) -> nn.Module:
        torchao.quantization.quantize_(layer, config)
        return FrozenLinear(layer.weight.data.to(device), layer.bias).to(device)

    return quantised


def _torchao_int4() -> Quantiser:
    from dreamspace.models.int4 import PackedInt4Tensor

    _silence_peft()

    def quantised(layer: nn.Linear, device: torch.device) -> nn.Module:
        return FrozenLinear(PackedInt4Tensor.quantised(layer.weight.data).to(device), layer.bias).to(device)

    return quantised


def _silence_peft() -> None:
    """PEFT warns at every layer that it could not merge an adapter into it, which is not done here."""
    warnings.filterwarnings("ignore", message=".*instantiated without `get_apply_tensor_subclass`")


def _nf4() -> Quantiser:
    from bitsandbytes.nn import Linear4bit, Params4bit

    def quantised(layer: nn.Linear, device: torch.device) -> nn.Module:
        weight = layer.weight.data
        quantised = Linear4bit(
            layer.in_features,
            layer.out_features,
            layer.bias is not None,
            compute_dtype=weight.dtype,  # else that of the first input, for good
            device="meta",
        )
        quantised.weight = Params4bit(
            weight,
            quant_type="nf4",
            quant_storage=weight.dtype,  # T5 makes its activations the weight's dtype: bytes, if they were
            module=quantised,
        )
        quantised.bias = layer.bias
        # On some CPUs it repacks the weight in evaluation, and passes no gradients on from then.
        quantised.support_avx512bf16_for_cpu = False
        return quantised.to(weight.device).to(device)

    return quantised
