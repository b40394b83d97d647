"""Tokenizers in other processes, in memory twice, on other devices and in compiled graphs."""

import copy
import pickle
import warnings

import pytest
import torch
from torch._subclasses import FakeTensorMode
from torch.fx.experimental.symbolic_shapes import ShapeEnv

import zoo
from tests.support.variants import distinct, one_each, slow_but, traceable
from zoo.testing import decode_options, signal, sizes, small


def encode_to(queue: torch.multiprocessing.SimpleQueue, tokenizer: zoo.Tokenizer, x: torch.Tensor) -> None:
    queue.put(tokenizer.encode(x).tolist())


@pytest.mark.parametrize("name", zoo.list_tokenizers())
def test_a_pickled_and_a_copied_tokenizer_give_the_same_codes(name):
    tokenizer = small(name)
    x = signal(tokenizer, 1, sizes(tokenizer)[-1])
    codes = tokenizer.encode(x)
    for other in (pickle.loads(pickle.dumps(tokenizer)), copy.deepcopy(tokenizer)):
        assert other.spec == tokenizer.spec
        assert torch.equal(other.encode(x), codes)


@pytest.mark.parametrize("name", slow_but(one_each(), zoo.list_tokenizers()))
def test_datasets_hash_a_tokenizer_the_same_twice(name):
    fingerprint = pytest.importorskip("datasets.fingerprint")
    tokenizer = small(name)
    x = signal(tokenizer, 1, sizes(tokenizer)[-1])
    before = fingerprint.Hasher.hash(tokenizer.encode)
    tokenizer.encode(x)
    assert fingerprint.Hasher.hash(tokenizer.encode) == before
    assert fingerprint.Hasher.hash(copy.deepcopy(tokenizer).encode) == before


@pytest.mark.parametrize("name", ["wavtokenizer-nano"])
def test_a_spawned_worker_encodes_with_a_tokenizer_that_it_was_sent(name):
    tokenizer = small(name)
    x = signal(tokenizer, 1, sizes(tokenizer)[0])
    context = torch.multiprocessing.get_context("spawn")
    queue = context.SimpleQueue()
    worker = context.Process(target=encode_to, args=(queue, tokenizer, x))
    worker.start()
    assert queue.get() == tokenizer.encode(x).tolist()
    worker.join()


@pytest.mark.parametrize("name", slow_but(traceable(one_each()), traceable(distinct())))
def test_no_tensor_is_made_on_another_device(name):
    example = small(name)
    shape = signal(example, 2, sizes(example)[-1]).shape
    # Without cuDNN, which PyTorch asks about a GPU even where its tensors are fake.
    with FakeTensorMode(shape_env=ShapeEnv()), torch.backends.cudnn.flags(enabled=False), warnings.catch_warnings():
        warnings.simplefilter("error")
        with torch.device("cuda"):
            tokenizer = zoo.create(name, small=True).eval()
        x = torch.empty(shape, device="cuda")
        codes = tokenizer.encode(x)
        assert codes.device.type == "cuda"
        if tokenizer.encode_only is None:
            output = tokenizer(x)
            for tensor in (tokenizer.decode(codes), output.reconstruction, output.codes):
                assert tensor.device.type == "cuda"


@pytest.mark.parametrize("name", slow_but(("foldseek-3di", "wavtokenizer-nano", "wetok-nano"), traceable(distinct())))
def test_encode_and_decode_compile_to_one_graph_each(name):
    check_compiled(name, "aot_eager")


@pytest.mark.slow
@pytest.mark.parametrize("name", ["wetok-nano", "wavtokenizer-nano"])
def test_inductor_compiles_encode_and_decode_to_one_graph_each(name):
    check_compiled(name, "inductor")


def check_compiled(name: str, backend: str) -> None:
    tokenizer = small(name)
    x = signal(tokenizer, 1, sizes(tokenizer)[0])
    torch._dynamo.reset()
    codes = torch.compile(tokenizer.encode, fullgraph=True, backend=backend)(x)
    assert torch.equal(codes, tokenizer.encode(x))
    if tokenizer.encode_only is None and not decode_options(tokenizer):
        decoded = torch.compile(tokenizer.decode, fullgraph=True, backend=backend)(codes)
        # Positions of a resized picture are float32: at row 263, between two pixels, that is 3e-5 of their difference.
        torch.testing.assert_close(decoded, tokenizer.decode(codes), atol=5e-5, rtol=0, equal_nan=True)
