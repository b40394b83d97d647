"""Files of weights that someone made to do harm, or that are damaged: one clean error each, and nothing is run."""

import pickle
import struct
import zipfile
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

import zoo
from zoo.checkpoints import KeyMap, check_finite, check_state, read_checkpoint

pytestmark = pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning")


class Layers(nn.Module):
    """One tensor of each kind that archives hold."""

    def __init__(self):
        super().__init__()
        self.linear, self.norm = nn.Linear(4, 3), nn.BatchNorm1d(3)
        self.tied = nn.Linear(4, 3)
        self.tied.weight = self.linear.weight
        self.register_buffer("window", torch.hann_window(3), persistent=False)
        self.register_buffer("transposed", torch.arange(6.0).view(2, 3).t())
        self.register_buffer("short", torch.ones(3).bfloat16())

    def forward(self, x):
        y = self.norm(self.linear(x) + self.tied(x))
        return y * self.window + self.short.float() + self.transposed.sum()


class WritesWhenLoaded(nn.Module):
    """A TorchScript module whose `__setstate__` writes a file."""

    def __init__(self, path: str):
        super().__init__()
        self.path, self.scale = path, torch.ones(2)

    def forward(self, x):
        return x * self.scale

    @torch.jit.export
    def __getstate__(self):
        return self.path, self.scale, self.training

    @torch.jit.export
    def __setstate__(self, state: tuple[str, torch.Tensor, bool]):
        self.path, self.scale, self.training = state[0], state[1], state[2]
        torch.save(state[1], state[0])


@pytest.fixture
def writes_when_loaded(tmp_path) -> Path:
    """A file that writes `ran` beside it when torch loads it."""
    path = tmp_path / "evil.jit"
    torch.jit.script(WritesWhenLoaded(str(tmp_path / "ran"))).save(path)
    torch.jit.load(path)
    (tmp_path / "ran").unlink()  # it does; nothing of zoo may make it again
    return path


@pytest.mark.parametrize("suffix", [".jit", ".pt", ".ckpt", ".safetensors", ".bin"])
def test_code_in_a_torchscript_file_does_not_run_whatever_its_suffix(writes_when_loaded, tmp_path, suffix):
    path = writes_when_loaded.rename(tmp_path / f"weights{suffix}")
    with pytest.raises(zoo.CheckpointError, match="weights"):
        zoo.load("wetok-imagenet-f16", weights=path)
    assert not (tmp_path / "ran").exists()


def test_code_in_a_torchscript_file_on_the_hub_does_not_run(server, registrations, writes_when_loaded, tmp_path):
    wetok = zoo.info("wetok-imagenet-f16")
    source = zoo.registry.HubSource("authors/evil", "evil.jit", keys=KeyMap())
    zoo.register(zoo.replace(wetok, "evil", hub=source, config={"multipliers": (1, 1), "width": 32, "num_blocks": 1}))
    server.add("authors/evil", {"evil.jit": writes_when_loaded.read_bytes()})
    with pytest.raises(zoo.CheckpointError, match="missing"):
        zoo.load("evil")
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("make", [torch.jit.script, lambda module: torch.jit.trace(module, torch.rand(2, 4))])
def test_a_torchscript_file_has_the_tensors_that_torch_reads_from_it(tmp_path, make):
    make(Layers().eval()).save(tmp_path / "layers.jit")
    expected = torch.jit.load(tmp_path / "layers.jit").state_dict()
    found = read_checkpoint(tmp_path / "layers.jit")
    assert found.keys() == expected.keys()
    for key, tensor in expected.items():
        assert torch.equal(found[key], tensor) and found[key].dtype == tensor.dtype


@pytest.mark.parametrize("zipped", [True, False])
def test_a_pickled_checkpoint_has_what_torch_reads_from_it(tmp_path, zipped):
    network = Layers()
    optimizer = torch.optim.AdamW(network.parameters())
    network(torch.rand(2, 4)).sum().backward()
    optimizer.step()
    checkpoint = {"model": network.state_dict(), "optimizer": optimizer.state_dict(), "step": 3, "rate": 1e-4}
    torch.save(checkpoint, tmp_path / "some.pt", _use_new_zipfile_serialization=zipped)
    found = read_checkpoint(tmp_path / "some.pt")
    assert (found["step"], found["rate"]) == (3, 1e-4)
    for key, tensor in network.state_dict().items():
        assert torch.equal(found["model"][key], tensor)
    optimizer.load_state_dict(found["optimizer"])


# Archives and pickles that are not what they state


def archive(path: Path, members: dict[str, bytes], compression: int = zipfile.ZIP_STORED) -> Path:
    with zipfile.ZipFile(path, "w", compression) as file:
        for name, content in members.items():
            file.writestr(name, content)
    return path


def tensor_pickle(count: int, size: tuple, stride: tuple, offset: int = 0) -> bytes:
    """A pickle of a tensor, as torch writes it, that states whatever is asked for."""
    numbers = [b"(" + b"".join(pickle.dumps(n, 2)[2:-1] for n in numbers) + b"t" for numbers in (size, stride)]
    number = [pickle.dumps(n, 2)[2:-1] for n in (count, offset)]
    storage = (
        b"(X\x07\x00\x00\x00storagectorch\nFloatStorage\nX\x01\x00\x00\x000X\x03\x00\x00\x00cpu" + number[0] + b"tQ"
    )
    arguments = b"(" + storage + number[1] + numbers[0] + numbers[1] + b"\x89ccollections\nOrderedDict\n)Rt"
    return b"\x80\x02}X\x01\x00\x00\x00actorch._utils\n_rebuild_tensor_v2\n" + arguments + b"Rs."


WHOLE = tensor_pickle(4, (2, 2), (2, 1))
MEMORY = struct.pack("<4f", 1, 2, 3, 4)


def test_the_pickles_made_here_are_read_if_they_state_the_truth(tmp_path):
    path = archive(tmp_path / "good.pt", {"good/data.pkl": WHOLE, "good/data/0": MEMORY})
    assert read_checkpoint(path)["a"].tolist() == [[1, 2], [3, 4]]


@pytest.mark.parametrize(
    ("members", "reason"),
    [
        ({"a/data.pkl": tensor_pickle(2**40, (2**40,), (1,)), "a/data/0": MEMORY}, "has 16 bytes"),
        ({"a/data.pkl": tensor_pickle(4, (2**40,), (1,)), "a/data/0": MEMORY}, "elements in memory of 4"),
        ({"a/data.pkl": tensor_pickle(4, (2, 2), (2**62, 1)), "a/data/0": MEMORY}, "in memory of 4"),
        ({"a/data.pkl": tensor_pickle(4, (2, 2), (2, 1), 1), "a/data/0": MEMORY}, "in memory of 4"),
        ({"a/data.pkl": tensor_pickle(4, (-2, 2), (2, 1)), "a/data/0": MEMORY}, "are not numbers"),
        ({"a/data.pkl": tensor_pickle(4, (2, 2), (1,)), "a/data/0": MEMORY}, "do not match"),
        ({"a/data.pkl": WHOLE, "a/data/0": MEMORY[:8]}, "has 8 bytes"),
        ({"a/data.pkl": WHOLE}, "no memory '0'"),
        ({"a/version": b"3"}, "0 members data.pkl"),
        ({"a/data.pkl": WHOLE, "b/data.pkl": WHOLE, "a/data/0": MEMORY}, "2 members data.pkl"),
        ({"a/data.pkl": WHOLE, "a/data/0": MEMORY, "a/byteorder": b"big"}, "big-endian"),
        ({"a/data.pkl": WHOLE, "a/data/0": MEMORY, "a/constants.pkl": b"\x80\x02)."}, "expected a TorchScript module"),
        ({"a/data.pkl": b"PK\x03\x04" * 9, "a/data/0": MEMORY}, "truncated or not a checkpoint"),
        ({"a/data.pkl": b"", "a/data/0": MEMORY}, "truncated or not a checkpoint"),
    ],
)
def test_an_archive_that_is_not_what_it_states_is_refused(tmp_path, members, reason):
    with pytest.raises(zoo.CheckpointError, match=rf"bad\.pt: .*{reason}"):
        read_checkpoint(archive(tmp_path / "bad.pt", members))


@pytest.mark.parametrize("member", ["a/data.pkl", "a/data/0"])
def test_a_member_that_grows_without_bound_when_unpacked_is_refused(tmp_path, member):
    members = {"a/data.pkl": WHOLE, "a/data/0": MEMORY, member: bytes(2**26 + 8)}
    with pytest.raises(zoo.CheckpointError, match=r"bomb\.pt: truncated or not a checkpoint"):
        read_checkpoint(archive(tmp_path / "bomb.pt", members, zipfile.ZIP_DEFLATED))


def test_a_torchscript_file_whose_weights_were_damaged_is_refused(tmp_path):
    torch.jit.script(nn.Linear(64, 64)).save(tmp_path / "layer.jit")
    content = bytearray((tmp_path / "layer.jit").read_bytes())
    with zipfile.ZipFile(tmp_path / "layer.jit") as file:
        start = next(info.header_offset for info in file.infolist() if info.filename.endswith("data/0"))
    content[start + 4096] ^= 1
    (tmp_path / "layer.jit").write_bytes(content)
    with pytest.raises(zoo.CheckpointError, match=r"layer\.jit: .*damaged"):
        read_checkpoint(tmp_path / "layer.jit")


@pytest.mark.parametrize(
    "content",
    [
        b"ctorch\nTensor\n(J\xff\xff\xff\x7ftR.",
        b"cbuiltins\neval\n(X\x01\x00\x00\x001tR.",
        b"cos\nsystem\n(X\x02\x00\x00\x00lstR.",
        b"ctorch.nn.modules.linear\nLinear\n(K\x01K\x01tR.",
        b"cos\nsystem\n}X\x01\x00\x00\x00ans\x62.",
        b"(ios\nsystem\n.",
        b"\x82\x01.",
        b"0000.",
        b"h\x05.",
        b"]" + b"(" * 1000 + b"l" * 1000 + b".",
        b"}" + b")" + b"q\x00h\x00h\x00\x86q\x00" * 60 + b"K\x01s.",  # a key whose hash takes for ever
        b"}(K\x01K\x02K\x03u.",
    ],
)
def test_a_pickle_of_tricks_is_refused(tmp_path, content):
    path = archive(tmp_path / "trick.pt", {"a/data.pkl": b"\x80\x02" + content})
    with pytest.raises(zoo.CheckpointError, match=r"trick\.pt: "):
        read_checkpoint(path)


def test_what_a_dropped_object_would_take_is_not_allocated(tmp_path):
    content = b"\x80\x02cbuiltins\nbytearray\n(J\xff\xff\xff\x7ftR."  # 2 GB
    assert read_checkpoint(archive(tmp_path / "some.pt", {"a/data.pkl": content})) == {}


@pytest.mark.parametrize("end", [10, 60, 200, -20, -4])
def test_an_old_file_that_is_cut_short_is_refused(tmp_path, end):
    torch.save({"a": torch.ones(9)}, tmp_path / "old.pt", _use_new_zipfile_serialization=False)
    (tmp_path / "old.pt").write_bytes((tmp_path / "old.pt").read_bytes()[:end])
    with pytest.raises(zoo.CheckpointError, match=r"old\.pt: truncated"):
        read_checkpoint(tmp_path / "old.pt")


def test_an_old_file_that_states_more_than_it_has_asks_for_no_memory(tmp_path):
    torch.save({"a": torch.ones(9)}, tmp_path / "old.pt", _use_new_zipfile_serialization=False)
    content = (tmp_path / "old.pt").read_bytes()
    huge = content.replace(b"cpuq\x06K\x09", b"cpuq\x06\x8a\x06" + (2**40).to_bytes(6, "little"), 1)
    assert huge != content
    (tmp_path / "old.pt").write_bytes(huge)
    with pytest.raises(zoo.CheckpointError, match=r"1,099,511,627,776 elements in a file of"):
        read_checkpoint(tmp_path / "old.pt")


# Tensors that are not the network's, by type or value


@pytest.mark.parametrize(
    ("tensor", "found"),
    [
        (torch.ones(2, dtype=torch.complex64), "a: torch.complex64, expected torch.float32"),
        (torch.ones(2, dtype=torch.int64), "a: torch.int64, expected torch.float32"),
        (torch.ones(2, dtype=torch.bool), "a: torch.bool, expected torch.float32"),
        (
            torch.zeros(2, dtype=torch.uint8).view(torch.float8_e8m0fnu),
            "a: torch.float8_e8m0fnu, expected torch.float32",
        ),
        (torch.ones(2).to_sparse(), "a: a OtherTensor"),
        (torch.quantize_per_tensor(torch.ones(2), 1.0, 0, torch.qint8), "a: a OtherTensor"),
    ],
)
def test_a_tensor_of_another_kind_is_refused_by_name(tmp_path, tensor, found):
    torch.save({"a": tensor}, tmp_path / "some.pt")
    with pytest.raises(zoo.CheckpointError, match=found):
        check_state(read_checkpoint(tmp_path / "some.pt"), {"a": torch.zeros(2)}, "some.pt")


def test_a_buffer_of_integers_is_not_filled_with_others():
    with pytest.raises(zoo.CheckpointError, match=r"n: torch\.float32, expected torch\.int64"):
        check_state({"n": torch.tensor(1.0)}, {"n": torch.tensor(1)}, "some.pt")


@pytest.mark.parametrize("value", [torch.nan, torch.inf, -torch.inf])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16, torch.float64])
def test_a_value_that_is_not_finite_is_refused_with_the_tensor_that_has_it(value, dtype):
    broken = torch.ones(5, 3, dtype=dtype)
    broken[4, 2] = value
    with pytest.raises(zoo.CheckpointError, match=r"some\.pt: 1 tensor with values that are not finite \(b\)"):
        check_finite({"a": torch.ones(2), "b": broken, "n": torch.tensor(1), "e": torch.ones(0)}, "some.pt")


def test_weights_that_are_not_finite_are_not_loaded(tiny_wetok, tmp_path):
    with torch.no_grad():
        tiny_wetok.encoder.head.bias[0] = torch.nan
    tiny_wetok.save_pretrained(tmp_path)
    for load in (lambda: zoo.load(tmp_path), lambda: zoo.load("tiny-wetok", weights=tmp_path / "model.safetensors")):
        with pytest.raises(zoo.CheckpointError, match=r"not finite \(encoder\.head\.bias\); nothing was loaded"):
            load()


def test_a_tensor_of_few_elements_that_states_many_is_not_converted():
    keys = KeyMap(("table", "row", lambda table: table.clone()[0]))
    stated = torch.ones(1).expand(2**20, 2**20)
    with pytest.raises(zoo.CheckpointError, match="states more elements than it has"):
        keys.convert({"table": stated}, {"row": torch.zeros(2**20)}, "some.pt")


@pytest.mark.parametrize("checkpoint", [{1: torch.ones(2)}, {"state_dict": [1]}, {"a": {"b": 1}}, {}])
def test_a_checkpoint_of_another_layout_is_refused(tmp_path, checkpoint):
    torch.save(checkpoint, tmp_path / "some.pt")
    with pytest.raises(zoo.CheckpointError):
        zoo.load("wetok-imagenet-f16", weights=tmp_path / "some.pt")


@pytest.mark.parametrize(
    "header", [b"", b"[" * 100_000, b"{}" * 9, b'{"a":{"dtype":"F32","shape":[99999999999],"data_offsets":[0,4]}}']
)
def test_a_safetensors_file_with_a_bad_header_is_refused(tmp_path, header):
    path = tmp_path / "some.safetensors"
    path.write_bytes(struct.pack("<Q", len(header)) + header + bytes(4))
    with pytest.raises(zoo.CheckpointError, match=r"some\.safetensors: "):
        zoo.load(path)


@pytest.mark.parametrize("spec", ["[" * 100_000, "{", '"text"', '{"name": 1}'])
def test_metadata_that_is_no_configuration_is_refused(tmp_path, spec):
    metadata = {"architecture": "WeTok", "spec": spec, "config": "{}", "zoo": "1"}
    save_file({"a": torch.ones(1)}, tmp_path / "some.safetensors", metadata)
    with pytest.raises(zoo.CheckpointError, match=r"some\.safetensors: "):
        zoo.load(tmp_path / "some.safetensors")
