"""Tensors without values, and the memory that they would take."""

import copy
import weakref
from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import unset_fake_temporarily
from torch.utils._python_dispatch import TorchDispatchMode


class LiveBytes(TorchDispatchMode):
    """Counts the bytes of the tensors that were made in it and are alive.

    Args:
        module: its weights are not counted.

    Attributes:
        history: after each operation, the bytes of what grows with the number of rows, and of what does not:
            gradients of weights, and weights in another format.
    """

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.history = [(0, 0)]
        self._alive = [0, 0]
        weights = [*module.parameters(), *module.buffers()]
        self._weights = weakref.WeakSet(weight.untyped_storage() for weight in weights)
        self._seen = weakref.WeakSet(self._weights)
        self._kinds: dict[int, int] = {}
        for parameter in module.parameters():
            if parameter.requires_grad:
                parameter.register_post_accumulate_grad_hook(self._count_as_gradient)

    @property
    def peak(self) -> int:
        """The most bytes that were alive at once."""
        return max(map(sum, self.history))

    def __torch_dispatch__(self, function: Any, types: Any, arguments: Any = (), options: Any = None) -> Any:
        """Run an operation, and count what it made."""
        output = function(*arguments, **options or {})
        for tensor in output if isinstance(output, tuple | list) else (output,):
            if isinstance(tensor, Tensor) and (storage := tensor.untyped_storage()) not in self._seen:
                given = [value for value in arguments if isinstance(value, Tensor)]
                of_weights = bool(given) and all(value.untyped_storage() in self._weights for value in given)
                self._add(storage, int(of_weights))
        self.history.append((self._alive[0], self._alive[1]))
        return output

    def _add(self, storage: Any, kind: int) -> None:
        self._seen.add(storage)
        self._kinds[id(storage)] = kind
        self._alive[kind] += storage.nbytes()
        weakref.finalize(storage, self._free, id(storage), storage.nbytes())

    def _free(self, key: int, num_bytes: int) -> None:
        self._alive[self._kinds.pop(key)] -= num_bytes

    def _count_as_gradient(self, parameter: nn.Parameter) -> None:
        storage = parameter.grad.untyped_storage()
        if self._kinds.get(id(storage)) == 0:
            self._kinds[id(storage)] = 1
            self._alive[0] -= storage.nbytes()
            self._alive[1] += storage.nbytes()


def highest_moments(history: list[tuple[int, int]]) -> tuple[float, ...]:
    """Of (bytes a row, bytes besides) over time, the highest with many rows and with one, in one row."""
    many = max(history, key=lambda moment: 64 * moment[0] + moment[1])
    one = max(history, key=sum)
    return (*many, *one)


def imagined(module: nn.Module, dtype: torch.dtype) -> nn.Module:
    """A copy of a module whose tensors have no values, for the mode that is on; its adapter stays fp32."""
    with unset_fake_temporarily():
        module = copy.deepcopy(module)
    for name, part in module.named_modules():
        for own, parameter in part._parameters.items():
            if parameter is not None:
                value = torch.empty(parameter.shape, dtype=torch.float32 if "lora_" in name else dtype)
                part._parameters[own] = nn.Parameter(value, parameter.requires_grad)
        for own, buffer in part._buffers.items():
            part._buffers[own] = _like(buffer, dtype)
        for own, value in list(vars(part).items()):
            if isinstance(value, Tensor):
                setattr(part, own, _like(value, dtype))
    return module


def _like(tensor: Tensor | None, dtype: torch.dtype) -> Tensor | None:
    if tensor is None:
        return None
    return torch.empty(tensor.shape, dtype=dtype if tensor.dtype == torch.float32 else tensor.dtype)


class Known(Tensor):
    """A small tensor that keeps its values among those without, because a model asks for them: a mask."""

    @classmethod
    def __torch_function__(cls, function: Any, types: Any, arguments: Any = (), options: Any = None) -> Any:
        """Run an operation: really, where all tensors are known."""
        leaves = torch.utils._pytree.tree_leaves((arguments, options))
        if all(isinstance(leaf, cls) for leaf in leaves if isinstance(leaf, Tensor)):
            with unset_fake_temporarily():
                return super().__torch_function__(function, types, arguments, options or {})
        with torch._C.DisableTorchFunctionSubclass():
            # Beside tensors without values it has none either.
            arguments, options = torch.utils._pytree.tree_map_only(
                cls, lambda known: torch.empty(known.shape, dtype=known.dtype), (arguments, options or {})
            )
            return function(*arguments, **options)
