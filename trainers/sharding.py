"""States of networks and optimizers as one process has them, also if Fabric's `fsdp` spreads them over processes.

Every process must call these functions at the same point.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Any

from torch import nn
from torch.distributed.fsdp import FullOptimStateDictConfig, FullyShardedDataParallel, StateDictType
from torch.optim import Optimizer


def sharded_root(network: nn.Module) -> FullyShardedDataParallel | None:
    """The outermost module of `network` whose parameters are spread over processes; None: it is not spread."""
    return next((module for module in network.modules() if isinstance(module, FullyShardedDataParallel)), None)


def whole_state(network: nn.Module) -> dict[str, Any]:
    """The network's state dict."""
    root = sharded_root(network)
    if root is None:
        return network.state_dict()
    with FullyShardedDataParallel.summon_full_params(root, writeback=False):
        return {key: value.cpu().clone() for key, value in network.state_dict().items()}


def load_whole_state(network: nn.Module, state: Mapping[str, Any]) -> None:
    """Load a state dict that `whole_state` returned."""
    root = sharded_root(network)
    with nullcontext() if root is None else FullyShardedDataParallel.summon_full_params(root):
        network.load_state_dict(state)


def whole_optimizer_state(network: nn.Module, optimizer: Optimizer) -> dict[str, Any]:
    """The state dict of the optimizer of `network`: of torch's optimizer, not of the wrapper that Fabric makes."""
    root = sharded_root(network)
    if root is None:
        return optimizer.state_dict()
    with _whole_optimizers(root):
        return FullyShardedDataParallel.optim_state_dict(root, optimizer)


def load_whole_optimizer_state(network: nn.Module, optimizer: Optimizer, state: Mapping[str, Any]) -> None:
    """Load a state dict that `whole_optimizer_state` returned."""
    root, state = sharded_root(network), dict(state)
    if root is not None:
        with _whole_optimizers(root):
            state = FullyShardedDataParallel.optim_state_dict_to_load(root, optimizer, state)
    optimizer.load_state_dict(state)


def _whole_optimizers(root: FullyShardedDataParallel) -> AbstractContextManager:
    # A state that is on the CPU already would not be copied, and torch would write the next one over it.
    offload = next(root.parameters()).device.type != "cpu"
    options = FullOptimStateDictConfig(offload_to_cpu=offload, rank0_only=False)
    return FullyShardedDataParallel.state_dict_type(
        root, StateDictType.FULL_STATE_DICT, optim_state_dict_config=options
    )
