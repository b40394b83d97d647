"""Every registered variant keeps the contracts of `zoo.testing`, with its own code and its configuration made small."""

import pytest

import zoo


@pytest.mark.parametrize(("name", "contract"), zoo.testing.parameters())
def test_the_contract_holds(name, contract):
    contract(name)
