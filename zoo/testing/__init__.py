"""The contracts of every tokenizer, as checks that run on any tokenizer: zoo's own, a plug-in's, or one just trained.

    zoo.testing.check("my-tokenizer")            # raises AssertionError with every contract that does not hold

With pytest, each contract of each tokenizer is a test of its own:

    @pytest.mark.parametrize(("name", "contract"), zoo.testing.parameters("my-tokenizer"))
    def test_my_tokenizer_keeps_its_contracts(name, contract):
        contract(name)
"""

from zoo.testing.checking import CONTRACTS, check, parameters
from zoo.testing.contract import Contract
from zoo.testing.subject import decode_options, signal, sizes, small

__all__ = ["CONTRACTS", "Contract", "check", "decode_options", "parameters", "signal", "sizes", "small"]
