"""Optimizers and their learning rates."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import torch
from lightning_fabric import Fabric
from torch import Tensor, nn
from torch.optim import Optimizer

from zoo.trainers.recipe import AdamW


def make_optimizer(network: nn.Module, options: AdamW) -> torch.optim.AdamW:
    """AdamW for the parameters that are trained, without weight decay for vectors (biases, norms, gains)."""
    parameters = [parameter for parameter in network.parameters() if parameter.requires_grad]
    vectors = [parameter for parameter in parameters if parameter.numel() == max(parameter.shape, default=1)]
    others = [parameter for parameter in parameters if parameter.numel() > max(parameter.shape, default=1)]
    groups: list[dict[str, Any]] = [{"params": others}, {"params": vectors, "weight_decay": 0.0}]
    return torch.optim.AdamW(
        [group for group in groups if group["params"]],
        lr=options.learning_rate,
        betas=options.betas,
        weight_decay=options.weight_decay,
        fused=True,
    )


def learning_rate(step: int, options: AdamW, steps: int) -> float:
    """Learning rate of the step with this number, counted from 0, of a run of `steps` steps."""
    if step < options.warmup_steps:
        return options.learning_rate * (step + 1) / options.warmup_steps
    done = (step - options.warmup_steps) / max(1, steps - options.warmup_steps)
    low, high = options.final_learning_rate, options.learning_rate
    return low + (high - low) * (1 + math.cos(math.pi * done)) / 2


def set_learning_rate(optimizer: Optimizer, rate: float) -> None:
    """Give all parameters of `optimizer` the same learning rate."""
    for group in optimizer.param_groups:
        group["lr"] = rate


def average_gradients(fabric: Fabric, parameters: Iterable[nn.Parameter]) -> None:
    """Replace the gradients of these parameters by their means over processes; every process must call this."""
    gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
    if fabric.world_size > 1 and gradients:
        averaged = fabric.all_reduce(nn.utils.parameters_to_vector(gradients), reduce_op="mean")
        assert isinstance(averaged, Tensor)
        nn.utils.vector_to_parameters(averaged, gradients)
