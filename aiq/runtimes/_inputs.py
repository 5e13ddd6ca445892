"""What a network takes in one pass."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from aiq.quantize._simulate import first, tensors
from aiq.runtimes._protocol import Arrays, DeployError
from roofline.errors import InputError


@dataclass(frozen=True, slots=True)
class InputForm:
    """One input of one pass.

    Attributes:
        name: Its name; empty where inputs are told apart by position.
        shape: Its shape, batch first.
        dtype: Its type.
    """

    name: str
    shape: tuple[int, ...]
    dtype: np.dtype[Any]


def repeated(inputs: Any, count: int) -> Any:
    """Return the first examples of inputs, repeated where there are fewer; a tensor, tuple or dict as given."""

    def enough(tensor: torch.Tensor) -> torch.Tensor:
        return torch.cat([tensor] * -(-count // len(tensor)))[:count]

    given = first(inputs, count)
    if isinstance(given, torch.Tensor):
        return enough(given)
    if isinstance(given, Mapping):
        return {name: enough(tensor) for name, tensor in given.items()}
    return tuple(map(enough, given))


def input_forms(inputs: Any, batch: int) -> tuple[InputForm, ...]:
    """Return the form of each input of a pass.

    Args:
        inputs: A tensor, tuple or dict of tensors, batch first.
        batch: Samples in one pass.

    Raises:
        InputError: The batch is below 1.
    """
    if batch < 1:
        raise InputError(f"a pass takes at least 1 sample, got batch {batch}. Next: raise the batch.")
    names = list(inputs) if isinstance(inputs, Mapping) else []
    arrays = [tensor[:1].numpy() for tensor in tensors(inputs)]
    return tuple(
        InputForm(name, (batch, *array.shape[1:]), array.dtype)
        for name, array in zip(names or [""] * len(arrays), arrays, strict=True)
    )


def check_inputs(inputs: Arrays, forms: Sequence[InputForm]) -> None:
    """Check what is given to a pass.

    Raises:
        DeployError: Too few or too many inputs, or one of another shape or type.
    """
    if len(inputs) != len(forms):
        raise DeployError(f"the network takes {len(forms)} inputs, got {len(inputs)}. Next: give one array for each.")
    for position, (array, form) in enumerate(zip(inputs, forms, strict=True)):
        if array.shape != form.shape or array.dtype != form.dtype:
            raise DeployError(
                f"input {form.name or position} must be {form.dtype} {list(form.shape)}, "
                f"got {array.dtype} {list(array.shape)}. Next: prepare the network for that batch, or mend the input."
            )
