"""All contracts, run at once or one by one."""

from __future__ import annotations

from zoo import registry
from zoo.testing import codes, networks, refusals
from zoo.testing.contract import Contract
from zoo.tokenizer import Tokenizer

CONTRACTS: tuple[Contract, ...] = (*codes.CONTRACTS, *networks.CONTRACTS, *refusals.CONTRACTS)


def check(tokenizer: Tokenizer | str) -> None:
    """Check every contract that applies.

    Args:
        tokenizer: name of a variant, whose network is made small with random weights; or a tokenizer, of which a copy
            is checked.

    Raises:
        AssertionError: the contracts that do not hold, one a line, each with its name and what came instead.
        UnknownTokenizerError: a name that is not registered.
    """
    failures = []
    for contract in CONTRACTS:
        if contract.applies(tokenizer):
            try:
                contract(tokenizer)
            except AssertionError as error:
                failures.append(error)
    if failures:
        raise AssertionError("\n".join(map(str, failures))) from failures[0]


def parameters(*names: str) -> list[tuple[str, Contract]]:
    """Return what `pytest.mark.parametrize(("name", "contract"), ...)` takes.

    Args:
        names: names of variants; without any: all that are registered, also those of plug-ins.

    Returns:
        Each name with each contract that applies to it.
    """
    every = names or registry.list_tokenizers()
    return [(name, contract) for contract in CONTRACTS for name in every if contract.applies(name)]
