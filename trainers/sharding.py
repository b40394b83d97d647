"""States of networks and optimizers as one process has them, also where Fabric's `fsdp` spreads them over processes.

Every process must call these functions at the same point.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Any

from lightning_fabric.wrappers import _FabricModule, _FabricOptimizer
from torch import nn
from torch.distributed.fsdp import FullOptimStateDictConfig, FullyShardedDataParallel, StateDictType


def is_sharded(network: nn.Module) -> bool:
    """Whether a network that Fabric has set up is spread over processes."""
    return isinstance(network, _FabricModule) and isinstance(network._forward_module, FullyShardedDataParallel)


def whole_state(network: nn.Module) -> dict[str, Any]:
    """The network's state dict."""
    if not is_sharded(network):
        return network.state_dict()
    with FullyShardedDataParallel.summon_full_params(network._forward_module, writeback=False):
        return {key: value.cpu().clone() for key, value in network.state_dict().items()}


def load_whole_state(network: nn.Module, state: Mapping[str, Any]) -> None:
    """Take what `whole_state` gave."""
    whole = (
        FullyShardedDataParallel.summon_full_params(network._forward_module) if is_sharded(network) else nullcontext()
    )
    with whole:
        network.load_state_dict(state)


def whole_optimizer_state(network: nn.Module, optimizer: _FabricOptimizer) -> dict[str, Any]:
    """The state dict of the optimizer of `network`."""
    if not is_sharded(network):
        return optimizer.state_dict()
    with _whole_optimizers(network):
        return FullyShardedDataParallel.optim_state_dict(network._forward_module, optimizer.optimizer)


def load_whole_optimizer_state(network: nn.Module, optimizer: _FabricOptimizer, state: Mapping[str, Any]) -> None:
    """Take what `whole_optimizer_state` gave."""
    if is_sharded(network):
        with _whole_optimizers(network):
            state = FullyShardedDataParallel.optim_state_dict_to_load(
                network._forward_module, optimizer.optimizer, dict(state)
            )
    optimizer.load_state_dict(state)


def _whole_optimizers(network: _FabricModule) -> AbstractContextManager:
    # What is on the CPU already would not be copied, and torch writes the next state over it.
    offload = next(network.parameters()).device.type != "cpu"
    options = FullOptimStateDictConfig(offload_to_cpu=offload, rank0_only=False)
    return FullyShardedDataParallel.state_dict_type(
        network._forward_module, StateDictType.FULL_STATE_DICT, optim_state_dict_config=options
    )
