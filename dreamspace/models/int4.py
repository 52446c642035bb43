"""torchao's int4 weights, two in a byte."""

from typing import ClassVar, Self

import torch
from torch import Tensor
from torchao.quantization import IntxUnpackedToInt8Tensor, MappingType
from torchao.utils import TorchAOBaseTensor

GROUP_SIZE = 32


class PackedInt4Tensor(TorchAOBaseTensor):
    """A weight (out, in) whose rows have a scale and a zero point for each 32 inputs.

    torchao 0.18 has nothing to train over: its own packed tensors need CUDA kernels of mslk or tinygemm, or
    those of its CPU prototype, none of which passes gradients on, and the tensor that computes everywhere
    takes a byte for each number. That one is what is packed here.

    Args:
        packed: (out, in / 2) uint8, an input of even number in the low bits.
        scale, zero_point: (out, in / 32), floating point and int8.
    """

    tensor_data_names: ClassVar = ["packed", "scale", "zero_point"]
    tensor_attribute_names: ClassVar = []

    @staticmethod
    def __new__(cls, packed: Tensor, scale: Tensor, zero_point: Tensor) -> Self:
        shape = (packed.shape[0], 2 * packed.shape[1])
        return torch.Tensor._make_wrapper_subclass(cls, shape, dtype=scale.dtype, device=packed.device)

    def __init__(self, packed: Tensor, scale: Tensor, zero_point: Tensor) -> None:
        self.packed, self.scale, self.zero_point = packed, scale, zero_point

    @classmethod
    def quantised(cls, weight: Tensor) -> Self:
        """A weight (out, in), where 32 divides the number of inputs."""
        unpacked = IntxUnpackedToInt8Tensor.from_hp(
            weight, (1, GROUP_SIZE), torch.int4, mapping_type=MappingType.ASYMMETRIC
        )
        nibbles = unpacked.qdata.bitwise_and(15).view(torch.uint8)
        return cls(nibbles[:, ::2] | nibbles[:, 1::2] << 4, unpacked.scale, unpacked.zero_point)

    def dequantize(self) -> Tensor:
        """The weight as it is computed with."""
        nibbles = torch.stack([self.packed & 15, self.packed >> 4], dim=-1).flatten(1)
        numbers = ((nibbles ^ 8) - 8).view(torch.int8)  # The fourth bit is the sign.
        return IntxUnpackedToInt8Tensor(
            numbers, self.scale, self.zero_point, torch.int4, (1, GROUP_SIZE), self.dtype, None
        ).dequantize()
