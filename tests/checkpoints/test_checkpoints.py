"""Published layouts to our state dict: key maps, what is refused and how it is said, loading without a copy."""

import argparse
import copy
import os
import pickle
import re
from collections import OrderedDict

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

import zoo
from zoo import registry
from zoo.checkpoints import (
    KeyMap,
    assign,
    check_state,
    read_checkpoint,
    read_metadata,
    without_storage,
    write_checkpoint,
)
from zoo.layers.weight_norm import WeightNormConv1d
from zoo.testing import decode_options, signal, sizes, small

ARCHITECTURES = sorted({registry.info(name).builder.__name__: name for name in registry.list_tokenizers()}.values())


def tensors(*keys, shape=(2,)):
    """Different values under each key."""
    return {key: torch.full(shape, float(i)) for i, key in enumerate(keys)}


def convert(keys, checkpoint, expected):
    """The converted state by name, each tensor as its first value."""
    state = keys.convert(checkpoint, expected, "some.ckpt")
    assert list(state) == list(expected)
    return {key: tensor.flatten()[0].item() for key, tensor in state.items()}


# Key maps


def test_a_pattern_that_ends_in_a_dot_stands_for_all_keys_below_it():
    keys = KeyMap(("net.down.", "encoder."))
    checkpoint = tensors("net.down.0.weight", "net.down.1.bias")
    assert convert(keys, checkpoint, tensors("encoder.0.weight", "encoder.1.bias")) == {
        "encoder.0.weight": 0,
        "encoder.1.bias": 1,
    }


def test_a_pattern_without_a_dot_stands_for_one_key_alone():
    keys = KeyMap(("net.scale", "scale"))
    assert keys.published_key("scale") == ("net.scale", None)
    assert keys.published_key("scale.weight") == ("scale.weight", None)
    assert keys.published_key("my.scale") == ("my.scale", None)


def test_numbers_in_braces_are_carried_over_by_name():
    keys = KeyMap(("down.{i}.block.{j}.", "levels.{j}.blocks.{i}."))
    assert keys.published_key("levels.3.blocks.12.conv.weight") == ("down.12.block.3.conv.weight", None)
    assert keys.published_key("levels.x.blocks.12.conv.weight") == ("levels.x.blocks.12.conv.weight", None)


def test_the_first_rule_that_fits_decides():
    keys = KeyMap(("a.{i}.shortcut.", "blocks.{i}.shortcut."), ("b.", "blocks."))
    assert keys.published_key("blocks.0.shortcut.weight")[0] == "a.0.shortcut.weight"
    assert keys.published_key("blocks.0.conv.weight")[0] == "b.0.conv.weight"


def test_a_key_without_a_rule_has_the_same_name_in_both():
    assert convert(KeyMap(("x.", "y.")), tensors("same"), tensors("same")) == {"same": 0}


def test_a_transform_makes_our_value_of_the_published_one():
    keys = KeyMap(("inited", "initialized", lambda inited: inited.reshape(()) != 0))
    state = keys.convert({"inited": torch.ones(1)}, {"initialized": torch.tensor(False)}, "some.ckpt")
    assert state["initialized"].item() is True


def test_a_transform_makes_our_value_of_several_published_ones():
    keys = KeyMap((("{i}.sum", "{i}.count"), "layers.{i}.mean", torch.div))
    published = {"3.sum": torch.tensor([6.0]), "3.count": torch.tensor([2.0])}
    expected = {"layers.3.mean": torch.zeros(1)}
    assert keys.convert(published, expected, "some.ckpt")["layers.3.mean"].item() == 3
    assert keys.found(published, expected) == 1
    with pytest.raises(zoo.CheckpointError, match=r"1 tensor missing \(3.count\)"):
        keys.convert({"3.sum": torch.zeros(1)}, expected, "some.ckpt")


def test_weight_norm_is_read_under_its_old_and_its_new_names():
    network = nn.ModuleDict({"layer": WeightNormConv1d(2, 3, 1)})
    magnitude, direction = torch.rand(3, 1, 1), torch.rand(3, 2, 1)
    old = {"conv.weight_g": magnitude, "conv.weight_v": direction, "conv.bias": torch.zeros(3)}
    new = {
        "conv.parametrizations.weight.original0": magnitude,
        "conv.parametrizations.weight.original1": direction,
        "conv.bias": torch.zeros(3),
    }
    for published in (old, new):
        state = KeyMap(("conv.", "layer.")).convert(published, network.state_dict(), "some.ckpt")
        network.load_state_dict(state)
        assert torch.allclose(network["layer"].weight.norm(dim=1, keepdim=True), magnitude)


def test_no_value_is_copied():
    checkpoint = {"a.weight": torch.rand(2)}
    state = KeyMap(("a.", "b.")).convert(checkpoint, tensors("b.weight"), "some.ckpt")
    assert state["b.weight"] is checkpoint["a.weight"]


def test_ignored_prefixes_may_be_left_over_and_nothing_else():
    checkpoint = tensors("weight", "loss.weight", "discriminator.0.weight")
    keys = KeyMap(ignore=("loss.", "discriminator."))
    assert convert(keys, checkpoint, tensors("weight")) == {"weight": 0}
    with pytest.raises(zoo.CheckpointError, match=r"1 tensor unexpected \(discriminator.0.weight\)"):
        KeyMap(ignore=("loss.",)).convert(checkpoint, tensors("weight"), "some.ckpt")


def test_the_state_dict_is_found_below_the_layout():
    nested = {"epoch": 3, "state_dict": {"generator": tensors("weight")}}
    keys = KeyMap(layout=("state_dict", "generator"))
    assert convert(keys, nested, tensors("weight")) == {"weight": 0}
    with pytest.raises(zoo.CheckpointError, match=r"under state_dict.generator, found no 'state_dict'"):
        keys.convert(tensors("weight"), tensors("weight"), "some.ckpt")
    with pytest.raises(zoo.CheckpointError, match=r"under state_dict.generator, found no 'generator'"):
        keys.convert({"state_dict": torch.zeros(1)}, tensors("weight"), "some.ckpt")


# Averaged copies

AVERAGED = KeyMap(averaged="ema.", ignore=("ema.decay",))


def test_a_module_with_an_average_takes_all_of_it_and_one_without_its_raw_tensors():
    checkpoint = {
        **tensors("encoder.conv.weight", "encoder.conv.bias", "decoder.weight", "ema.encoderconvweight"),
        "ema.encoderconvbias": torch.full((2,), 9.0),
        "ema.decay": torch.tensor(0.999),
    }
    expected = tensors("encoder.conv.weight", "encoder.conv.bias", "decoder.weight")
    assert convert(AVERAGED, checkpoint, expected) == {
        "encoder.conv.weight": 3,
        "encoder.conv.bias": 9,
        "decoder.weight": 2,
    }


def test_a_module_whose_average_is_only_partly_there_is_an_error():
    checkpoint = tensors("encoder.weight", "encoder.bias", "ema.encoderweight")
    with pytest.raises(zoo.CheckpointError, match=r"1 tensor missing \(ema.encoderbias\)"):
        AVERAGED.convert(checkpoint, tensors("encoder.weight", "encoder.bias"), "some.ckpt")


# What is wrong is said at once


def test_missing_unexpected_and_misshapen_tensors_are_reported_together():
    expected = tensors("a", "b", "c", "d", "e")
    checkpoint = {"e": torch.zeros(3, 4), "z": torch.zeros(1)}
    message = (
        "some.ckpt: 4 tensors missing (a, b, c, …), 1 tensor unexpected (z), "
        "1 tensor of another shape (e: [3, 4], expected [2]); nothing was loaded"
    )
    with pytest.raises(zoo.CheckpointError, match=re.escape(message)):
        KeyMap().convert(checkpoint, expected, "some.ckpt")
    with pytest.raises(zoo.CheckpointError, match=re.escape(message)):
        check_state(checkpoint, expected, "some.ckpt")


def test_a_value_that_is_no_tensor_or_cannot_be_converted_is_reported_with_the_rest():
    keys = KeyMap(("inited", "initialized", lambda inited: inited.reshape(())))
    checkpoint = {"inited": torch.ones(2), "step": 3}
    expected = {"initialized": torch.tensor(True), "step": torch.zeros(2)}
    with pytest.raises(zoo.CheckpointError) as caught:
        keys.convert(checkpoint, expected, "some.ckpt")
    assert "2 tensors of another shape (inited: [2], which cannot be converted" in str(caught.value)
    assert "step: a int (not a tensor), expected [2]" in str(caught.value)


# Files


class RunsCode:
    """What an attacker puts into a pickle."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


@pytest.mark.parametrize("zipped", [True, False])
def test_a_pickle_that_would_run_code_is_refused_and_does_not_run(tmp_path, zipped):
    path = tmp_path / "evil.ckpt"
    torch.save({"a": torch.ones(2), "b": RunsCode(tmp_path / "ran")}, path, _use_new_zipfile_serialization=zipped)
    with pytest.raises(zoo.CheckpointError, match=r"evil.ckpt: refused, since it asks for posix.mkdir"):
        read_checkpoint(path)
    assert not (tmp_path / "ran").exists()


def test_a_plain_pickle_that_would_run_code_is_refused_and_does_not_run(tmp_path):
    (tmp_path / "evil.ckpt").write_bytes(pickle.dumps({"b": RunsCode(tmp_path / "ran")}))
    with pytest.raises(zoo.CheckpointError, match=r"evil\.ckpt"):
        read_checkpoint(tmp_path / "evil.ckpt")
    assert not (tmp_path / "ran").exists()


def test_what_training_leaves_beside_the_tensors_is_dropped(tmp_path):
    checkpoint = {
        "model": tensors("weight"),
        "args": argparse.Namespace(folder=tmp_path, rate=1e-4),
        "best": np.float64(0.5),
        "curve": np.ones(3),
    }
    torch.save(checkpoint, tmp_path / "training.pt")
    read = read_checkpoint(tmp_path / "training.pt")
    assert read["args"] == OrderedDict()
    assert not isinstance(read["curve"], np.ndarray)
    assert convert(KeyMap(layout=("model",)), read, tensors("weight")) == {"weight": 0}


@pytest.mark.parametrize("suffix", [".ckpt", ".safetensors"])
def test_a_truncated_file_is_named(tmp_path, suffix):
    path = tmp_path / f"whole{suffix}"
    if suffix == ".ckpt":
        torch.save(tensors("weight"), path)
    else:
        save_file(tensors("weight"), path)
    (tmp_path / f"half{suffix}").write_bytes(path.read_bytes()[:-4])
    with pytest.raises(zoo.CheckpointError, match=rf"half{suffix}: truncated or not a checkpoint"):
        read_checkpoint(tmp_path / f"half{suffix}")


@pytest.mark.parametrize("content", [b"", b"<!doctype html><html>404</html>", b"version https://git-lfs"])
def test_a_file_of_another_kind_is_named(tmp_path, content):
    for name in ("some.ckpt", "some.safetensors", "some.jit"):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(zoo.CheckpointError, match=f"{name}: truncated or not a checkpoint"):
            read_checkpoint(tmp_path / name)


def test_a_file_that_is_not_there_is_named(tmp_path):
    for read in (read_checkpoint, read_metadata):
        with pytest.raises(zoo.CheckpointError, match=r"nothing\.safetensors: no such file"):
            read(tmp_path / "nothing.safetensors")


def test_a_single_tensor_is_no_checkpoint(tmp_path):
    torch.save(torch.zeros(2), tmp_path / "tensor.pt")
    with pytest.raises(zoo.CheckpointError, match=r"expected named tensors, found \[2\]"):
        read_checkpoint(tmp_path / "tensor.pt")


def test_files_from_before_zip_archives_are_read(tmp_path):
    torch.save(tensors("weight"), tmp_path / "old.pt", _use_new_zipfile_serialization=False)
    assert torch.equal(read_checkpoint(tmp_path / "old.pt")["weight"], torch.zeros(2))


@pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning")
def test_torchscript_archives_are_read_as_their_tensors(tmp_path):
    layer = nn.Linear(2, 2)
    torch.jit.script(layer).save(tmp_path / "layer.jit")
    state = read_checkpoint(tmp_path / "layer.jit")
    assert torch.equal(state["weight"], layer.weight)


def test_tensors_that_share_memory_are_each_written(tmp_path):
    whole = torch.arange(6.0).reshape(2, 3)
    write_checkpoint(tmp_path / "tied.safetensors", {"a": whole, "b": whole, "c": whole.T}, {"note": "tied"})
    read = load_file(tmp_path / "tied.safetensors")
    assert torch.equal(read["a"], whole) and torch.equal(read["b"], whole) and torch.equal(read["c"], whole.T)
    assert read_metadata(tmp_path / "tied.safetensors")["note"] == "tied"


# Loading without a copy


class WithBuffers(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(2, 2)
        self.recurrent = nn.LSTM(2, 2)
        self.register_buffer("window", torch.hann_window(4), persistent=False)
        self.frozen = nn.Parameter(torch.ones(2), requires_grad=False)


def test_a_network_without_storage_keeps_the_buffers_that_no_checkpoint_sets():
    with without_storage():
        network = WithBuffers()
    assert all(parameter.is_meta for parameter in network.parameters())
    assert torch.equal(network.window, torch.hann_window(4))
    assert not network.frozen.requires_grad
    assert not nn.Linear(1, 1).weight.is_meta


def test_after_loading_nothing_is_left_without_values():
    reference = WithBuffers()
    with without_storage():
        network = WithBuffers()
    assign(network, reference.state_dict())
    x = torch.rand(3, 1, 2)
    assert torch.equal(network.recurrent(network.layer(x))[0], reference.recurrent(reference.layer(x))[0])
    assert not network.frozen.requires_grad


def test_a_buffer_that_nothing_sets_is_an_error_that_names_it():
    class Derived(zoo.Tokenizer):
        def __init__(self, spec):
            super().__init__(spec)
            self.scale = nn.Parameter(torch.ones(2))
            self.register_buffer("initial_scale", self.scale.detach().clone(), persistent=False)

    with without_storage():
        tokenizer = Derived(registry.info("wetok").spec)
    with pytest.raises(zoo.CheckpointError, match="wetok-general-24: no checkpoint sets initial_scale"):
        assign(tokenizer, {"scale": torch.ones(2)})


def test_float_tensors_become_float32_or_what_is_asked_for_and_others_stay():
    for dtype in (None, torch.bfloat16):
        network = nn.BatchNorm1d(2)
        assign(network, nn.BatchNorm1d(2).half().state_dict(), dtype)
        assert network.weight.dtype == (dtype or torch.float32)
        assert network.num_batches_tracked.dtype == torch.int64


def test_float32_weights_are_used_where_they_lie_and_writing_to_them_leaves_the_file_alone(tmp_path):
    save_file({"weight": torch.ones(2, 2), "bias": torch.ones(2)}, tmp_path / "layer.safetensors")
    state = read_checkpoint(tmp_path / "layer.safetensors")
    layer = nn.Linear(2, 2, device="meta")
    assign(layer, state)
    assert layer.weight.data_ptr() == state["weight"].data_ptr()
    with torch.no_grad():
        layer.weight.zero_()
    assert torch.equal(load_file(tmp_path / "layer.safetensors")["weight"], torch.ones(2, 2))


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_every_architecture_comes_back_from_its_folder_with_the_same_codes_and_signal(name, tmp_path):
    tokenizer = small(name)
    tokenizer.save_pretrained(tmp_path)
    loaded = zoo.load(tmp_path)
    assert loaded.state_dict().keys() == tokenizer.state_dict().keys()
    assert loaded.spec == tokenizer.spec
    x = signal(tokenizer, 1, sizes(tokenizer)[-1])
    codes = tokenizer.encode(x)
    assert torch.equal(loaded.encode(x), codes)
    if tokenizer.encode_only is not None:
        return
    reconstruction = zoo.for_inference(tokenizer).decode(codes, **decode_options(tokenizer))
    # In a mapped file, tensors do not lie where PyTorch puts its own, and on some CPUs that changes the rounding.
    found = loaded.decode(codes, **decode_options(loaded))
    torch.testing.assert_close(found, reconstruction, atol=1e-4 * float(reconstruction.abs().max()), rtol=0)
    assert torch.equal(copy.deepcopy(loaded).decode(codes, **decode_options(loaded)), reconstruction)
    again = loaded.train()(x)
    (again.reconstruction.square().mean() + sum(again.losses.values())).backward()
