"""What is S3Tokenizer's own: numbers of tokens, rotary positions and memory, windows of long audio, published files."""

import subprocess
import sys

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import WhisperFeatureExtractor

import zoo
from tests.support.paths import GOLDENS
from zoo.checkpoints.parity import network_with_weights, read_manifest
from zoo.checkpoints.synthetic import synthetic_checkpoint
from zoo.testing import small

V1_50, V1_25, V2, V3 = (f"s3-tokenizer-{name}" for name in ("v1-50hz", "v1-25hz", "v2-25hz", "v3-25hz"))
WIDTH, HEADS, HIDDEN, LAYERS = 32, 2, 64, 2  # of the small network
LENGTHS = [1, 159, 160, 201, 799, 800, 8000, 12345]


class Attention(nn.Module):
    def __init__(self, memory: bool):
        super().__init__()
        self.query = nn.Linear(WIDTH, WIDTH)
        self.key = nn.Linear(WIDTH, WIDTH, bias=False)
        self.value = nn.Linear(WIDTH, WIDTH)
        self.out = nn.Linear(WIDTH, WIDTH)
        self.fsmn_block = nn.Conv1d(WIDTH, WIDTH, 31, groups=WIDTH, bias=False) if memory else None

    def forward(self, x: Tensor) -> Tensor:
        """`[tokens, width]`, head by head and token by token."""
        tokens, dim = len(x), WIDTH // HEADS
        q, k, v = self.query(x), self.key(x), self.value(x)
        heads = []
        for head in range(HEADS):
            one = slice(head * dim, (head + 1) * dim)
            queries, keys = q[:, one], k[:, one]
            if self.fsmn_block is not None:
                queries, keys = rotated(queries), rotated(keys)
            heads.append(torch.softmax(queries @ keys.T / dim**0.5, dim=1) @ v[:, one])
        attended = self.out(torch.cat(heads, dim=1))
        if self.fsmn_block is None:
            return attended
        padded = functional.pad(v.T, (15, 15))
        taps = self.fsmn_block.weight[:, 0]
        memory = torch.stack([(padded[:, token : token + 31] * taps).sum(dim=1) for token in range(tokens)])
        return attended + memory + v


def rotated(x: Tensor) -> Tensor:
    """Pairs of channels that are half the width apart as complex numbers, turned by their position."""
    half = x.shape[1] // 2
    angle = torch.arange(len(x))[:, None] * 10000.0 ** (-torch.arange(half) / half)
    turned = torch.complex(x[:, :half], x[:, half:]) * torch.polar(torch.ones_like(angle), angle)
    return torch.cat([turned.real, turned.imag], dim=1)


class Block(nn.Module):
    def __init__(self, memory: bool):
        super().__init__()
        self.attn, self.attn_ln = Attention(memory), nn.LayerNorm(WIDTH)
        self.mlp = nn.Sequential(nn.Linear(WIDTH, HIDDEN), nn.GELU(), nn.Linear(HIDDEN, WIDTH))
        self.mlp_ln = nn.LayerNorm(WIDTH)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attn(self.attn_ln(x))
        return x + self.mlp(self.mlp_ln(x))


class Plain(nn.Module):
    """The published encoder and quantizer as their description states them, with the published names."""

    def __init__(self, name: str) -> None:
        super().__init__()
        self.memory = name in (V2, V3)
        self.encoder = nn.Module()
        self.encoder.conv1 = nn.Conv1d(128, WIDTH, 3, stride=1 if name == V1_50 else 2, padding=1)
        self.encoder.conv2 = nn.Conv1d(WIDTH, WIDTH, 3, stride=2, padding=1)
        self.encoder.blocks = nn.ModuleList(Block(self.memory) for _ in range(LAYERS))
        self.quantizer = nn.Module()
        self.quantizer._codebook = nn.Module()
        if self.memory:
            self.quantizer._codebook.project_down = nn.Linear(WIDTH, 8)
        else:
            self.encoder.positional_embedding = nn.Parameter(torch.randn(1500, WIDTH) * 0.1)
            self.quantizer._codebook.embed = nn.Parameter(torch.randn(4096, WIDTH) * 0.2)

    @torch.no_grad()
    def codes(self, audio: Tensor, window: int = 3000) -> list[int]:
        """Codes of a clip `[samples]`, in windows of `window` mel frames that start 400 less apart."""
        mel = self.mel(audio)
        frames, starts = mel.shape[1], [0]
        while starts[-1] + window < frames:
            starts.append(starts[-1] + window - 400)
        half = 100 if self.encoder.conv1.stride == (1,) else 50  # tokens of two seconds
        codes = []
        for start in starts:
            part = self.codes_of(mel[:, start : start + window])
            codes += part[half if start else 0 : None if start == starts[-1] else -half]
        return codes

    @staticmethod
    def mel(audio: Tensor) -> Tensor:
        padded = functional.pad(audio, (0, max(201 - len(audio), 0)))
        whole = {"padding": "do_not_pad", "truncation": False, "return_tensors": "pt"}
        return WhisperFeatureExtractor(128)(padded.numpy(), sampling_rate=16000, **whole).input_features[0]

    def codes_of(self, mel: Tensor) -> list[int]:
        x = functional.gelu(self.encoder.conv1(mel[None]))
        x = functional.gelu(self.encoder.conv2(x))[0].T
        if not self.memory:
            x = x + self.encoder.positional_embedding[: len(x)]
        for block in self.encoder.blocks:
            x = block(x)
        if self.memory:
            levels = (self.quantizer._codebook.project_down(x).tanh() * 0.999).round() + 1
            return [sum(int(level) * 3**place for place, level in enumerate(row)) for row in levels.tolist()]
        unit = (x / x.norm(dim=1, keepdim=True)).double()
        rows = self.quantizer._codebook.embed.double()
        return [int((row - rows).square().sum(dim=1).argmin()) for row in unit]


@pytest.fixture(scope="module", params=[V1_50, V1_25, V2])
def name(request) -> str:
    return request.param


@pytest.fixture(scope="module")
def plain(name) -> Plain:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = Plain(name).eval()
        with torch.no_grad():  # so that codes vary
            network.encoder.conv1.weight *= 4
            network.encoder.conv2.weight *= 4
        return network


def tiny(name: str) -> str:
    published = zoo.info(name)
    config = {**published.config, **published.builder.small}
    variant = zoo.replace(published, f"tiny-{name}", hub=published.sources, config=config)
    return zoo.register(variant).name


@pytest.fixture
def tokenizer(registrations, name, plain, tmp_path) -> zoo.Tokenizer:
    """The small network with the weights of `plain`, read as a state dict with the reference's names."""
    torch.save(plain.state_dict(), tmp_path / "state.pt")
    return zoo.load(tiny(name), weights=tmp_path / "state.pt")


def noise(samples: int) -> Tensor:
    return torch.randn(1, 1, samples, generator=torch.Generator().manual_seed(samples)) * 0.1


@pytest.mark.parametrize("samples", LENGTHS)
def test_codes_are_those_of_the_description_at_any_length(tokenizer, plain, samples):
    audio = noise(samples)
    codes = tokenizer.encode(audio)
    assert codes[0, 0].tolist() == plain.codes(audio[0, 0])
    assert samples < 5000 or len(codes.unique()) > 2


def test_an_item_of_a_padded_batch_has_the_codes_of_the_description_for_it_alone(tokenizer, plain):
    batch = torch.cat([functional.pad(noise(length), (0, max(LENGTHS) - length)) for length in LENGTHS])
    codes = tokenizer.encode(batch, lengths=torch.tensor(LENGTHS))
    for item, length in zip(codes[:, 0].tolist(), LENGTHS, strict=True):
        alone = plain.codes(noise(length)[0, 0])
        assert item == alone + [0] * (len(item) - len(alone))


def test_silence_has_the_codes_of_the_description(tokenizer, plain):
    audio = torch.zeros(1, 1, 5000)
    assert tokenizer.encode(audio)[0, 0].tolist() == plain.codes(audio[0, 0])


@pytest.mark.parametrize("seconds", [30, 53])
def test_long_audio_has_the_codes_of_windows_of_thirty_seconds_and_none_is_lost(tokenizer, plain, seconds):
    audio = noise(round(seconds * 16000))
    codes = tokenizer.encode(audio)
    assert codes[0, 0].tolist() == plain.codes(audio[0, 0])
    assert codes.shape[2] == -(-round(seconds * 100) // (tokenizer.spec.hop_length // 160))


@pytest.mark.parametrize("seconds", [10, 10.01, 16, 18.5, 20, 22.3])
def test_chunk_seconds_is_the_length_of_the_windows(tokenizer, plain, seconds):
    audio = noise(round(seconds * 16000))
    codes = tokenizer.encode(audio, chunk_seconds=10.0)
    assert codes[0, 0].tolist() == plain.codes(audio[0, 0], 1000)
    assert codes.shape[2] == tokenizer.spec.code_length(audio.shape[2])


def test_long_items_of_a_padded_batch_have_the_codes_that_they_have_alone():
    tokenizer = small(V2)
    lengths = [53 * 16000, 53 * 16000, 33 * 16000 + 77, 150]
    batch = torch.cat([functional.pad(noise(length), (0, lengths[0] - length)) for length in lengths])
    batch[1] *= 0.5
    codes = tokenizer.encode(batch, lengths=torch.tensor(lengths))
    for item, length, row in zip(batch, lengths, codes, strict=True):
        alone = tokenizer.encode(item[None, :, :length])[0]
        assert torch.equal(row[:, : alone.shape[1]], alone)
        assert not row[:, alone.shape[1] :].any()


def test_rotary_positions_take_windows_of_any_length():
    tokenizer = small(V2)
    audio = noise(70 * 16000)
    assert tokenizer.encode(audio, chunk_seconds=1e6).shape == (1, 1, 1750)


@pytest.mark.parametrize(
    ("name", "seconds", "message"),
    [
        (V2, 4.0, "expected chunk_seconds of more than 4, by which two windows overlap, got 4.0"),
        (V1_50, 30.1, "more than 4, by which two windows overlap and at most 30, got 30.1"),
        (V1_25, 61, "at most 60, got 61"),
        (V2, "ten", "expected chunk_seconds as a number of seconds"),
    ],
)
def test_a_length_that_windows_cannot_have_is_refused(name, seconds, message):
    with pytest.raises(zoo.InputError, match=message):
        small(name).encode(noise(1000), chunk_seconds=seconds)


@pytest.mark.parametrize(("name", "hop"), [(V1_50, 320), (V2, 640)])
def test_an_unfinished_mel_frame_has_no_part_in_the_number_of_tokens(name, hop):
    spec = zoo.info(name).spec
    counts = {samples: spec.code_length(samples) for samples in (1, hop, hop + 159, hop + 160, 2 * hop + 159)}
    assert list(counts.values()) == [1, 1, 1, 2, 2]
    tokenizer = small(name)
    assert {samples: tokenizer.encode(noise(samples)).shape[2] for samples in counts} == counts


def test_embed_gives_rows_of_the_codebook_or_the_rounded_numbers(tokenizer, plain):
    codes = tokenizer.encode(noise(8000))
    vectors = tokenizer.embed(codes)[0].T
    if plain.memory:
        assert ((vectors + 1) @ 3.0 ** torch.arange(8.0)).tolist() == codes[0, 0].tolist()
        assert set(vectors.unique().tolist()) <= {-1.0, 0.0, 1.0}
    else:
        assert torch.equal(vectors, plain.quantizer._codebook.embed[codes[0, 0]])


def test_autocast_does_not_change_what_is_quantized(tokenizer):
    latent = torch.randn(1, WIDTH, 50, generator=torch.Generator().manual_seed(0))
    codes = tokenizer.quantize(latent)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(tokenizer.quantize(latent), codes)


# Published files


def graph_of(plain: Plain, name: str):
    """The ONNX graph that the authors published, as far as its nodes and tensors are known."""
    onnx = pytest.importorskip("onnx")
    nodes, tensors = [], []

    def add(operator: str, node: str, *weights: tuple[str, Tensor], first: bool = False) -> None:
        for title, tensor in weights:
            array = tensor.detach().contiguous().numpy()
            tensors.append(onnx.numpy_helper.from_array(array, title))
        inputs = ["x", *(title for title, _ in weights)]
        nodes.append(onnx.helper.make_node(operator, inputs[::-1] if first else inputs, ["x"], name=node))

    state = plain.state_dict()
    stem = {V1_50: 1519, V2: 2216}
    for number in (1, 2):
        weight, bias = state[f"encoder.conv{number}.weight"], state[f"encoder.conv{number}.bias"]
        start = stem.get(name, 0) + 2 * number - 2
        titles = (f"onnx::Conv_{start}", f"onnx::Conv_{start + 1}")
        if name == V1_25:
            titles = (f"encoders.conv{number}.weight", f"encoders.conv{number}.bias")
        add("Conv", f"/conv{number}/Conv", (titles[0], weight), (titles[1], bias))
    if not plain.memory:
        add("Add", "/Add", ("encoders.positional_embedding", state["encoder.positional_embedding"]))
    for block in range(LAYERS):
        path, prefix = f"/blocks.{block}", f"encoder.blocks.{block}"
        for norm in ("attn_ln", "mlp_ln"):
            weight, bias = state[f"{prefix}.{norm}.weight"], state[f"{prefix}.{norm}.bias"]
            if name == V2:
                named = (f"{path}{norm}w", weight), (f"{path}{norm}b", bias)
                add("LayerNormalization", f"{path}/{norm}/LayerNormalization", *named)
            else:
                add("Add", f"{path}/{norm}/Add", (f"{path}{norm}e", torch.tensor(1e-5)))
                add("Mul", f"{path}/{norm}/Mul", (f"{path}{norm}w", weight))
                add("Add", f"{path}/{norm}/Add_1", (f"{path}{norm}b", bias))
        for linear in ("attn.query", "attn.key", "attn.value", "attn.out", "mlp.0", "mlp.2"):
            module = f"{path}/mlp/{linear}" if linear.startswith("mlp") else f"{path}/{linear.replace('.', '/')}"
            add("MatMul", f"{module}/MatMul", (f"onnx::MatMul_{len(tensors)}", state[f"{prefix}.{linear}.weight"].T))
            if (bias := state.get(f"{prefix}.{linear}.bias")) is not None:
                add("Add", f"{module}/Add", (f"bias_{len(tensors)}", bias), first=True)
        if plain.memory:
            memory = state[f"{prefix}.attn.fsmn_block.weight"]
            title = f"blocks.{block}.attn.fsmn_block.weight" if name == V3 else f"onnx::Conv_{len(tensors)}"
            add("Conv", f"{path}/attn/fsmn_block/Conv", (title, memory))
    if plain.memory:
        title = "onnx::MatMul_2536" if name == V2 else "onnx::MatMul_9999"
        weight = state["quantizer._codebook.project_down.weight"].T
        add("MatMul", "/quantizer/project_in/MatMul", (title, weight))
        bias = state["quantizer._codebook.project_down.bias"]
        add("Add", "/quantizer/project_in/Add", ("quantizer.project_in.bias", bias), first=True)
        add("Mul", "/rotary/Mul", ("cosines", torch.ones(2048, 64)))
    else:
        rows = state["quantizer._codebook.embed"].T
        add("Pow", "/quantizer/rq/model/layers.0/_codebook/Pow_1", ("onnx::Pow_1", rows), ("two", torch.tensor(2.0)))
    add("Gather", "/Gather", ("axes", torch.tensor([1, 2])))
    return onnx.helper.make_model(onnx.helper.make_graph(nodes, "main_graph", [], [], tensors))


@pytest.mark.parametrize("name", [V1_50, V1_25, V2, V3])
def test_the_authors_graph_gives_the_network_of_the_state_dict(registrations, name, tmp_path):
    plain = Plain(name)
    torch.save(plain.state_dict(), tmp_path / "state.pt")
    (tmp_path / "graph.onnx").write_bytes(graph_of(plain, name).SerializeToString())
    published = zoo.info(name)
    config = {**published.config, **published.builder.small}
    variant = zoo.register(zoo.replace(published, f"tiny-{name}", hub=published.sources, config=config))
    expected = zoo.load(variant.name, weights=tmp_path / "state.pt").state_dict()
    found = zoo.load(variant.name, weights=tmp_path / "graph.onnx").state_dict()
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[key], tensor) for key, tensor in expected.items())


def test_the_graph_of_the_other_rate_of_version_1_is_refused(registrations, tmp_path):
    (tmp_path / "speech_tokenizer_v1.onnx").write_bytes(graph_of(Plain(V1_25), V1_25).SerializeToString())
    with pytest.raises(zoo.CheckpointError, match="4 tensors missing"):
        zoo.load(tiny(V1_50), weights=tmp_path / "speech_tokenizer_v1.onnx")


def test_version_2_is_read_from_the_file_of_chatterbox(registrations, tmp_path):
    plain = Plain(V2)
    state = {f"tokenizer.{key}": tensor for key, tensor in plain.state_dict().items()}
    unused = ("flow.x.weight", "mel2wav.y.bias", "speaker_encoder.z", "tokenizer._mel_filters", "tokenizer.window")
    torch.save(state | {key: torch.zeros(2) for key in unused}, tmp_path / "s3gen.pt")
    tokenizer = zoo.load(tiny(V2), weights=tmp_path / "s3gen.pt")
    assert torch.equal(tokenizer.state_dict()["project_in.weight"], plain.quantizer._codebook.project_down.weight)


def test_it_says_what_decodes_its_codes():
    tokenizer = small(V2)
    with pytest.raises(zoo.InputError, match=r"cannot decode: .*flow-matching model and vocoder"):
        tokenizer.decode(tokenizer.encode(noise(1280)))


@pytest.mark.parametrize(("name", "millions"), [(V1_50, 130.63), (V1_25, 130.63), (V2, 123.7), (V3, 242.0)])
def test_the_network_has_the_published_number_of_parameters(name, millions):
    with torch.device("meta"):
        tokenizer = zoo.create(name)
    assert tokenizer.num_parameters / 1e6 == pytest.approx(millions, abs=0.05)


# At full size


@pytest.mark.slow
@pytest.mark.parametrize("name", [V1_50, V1_25, V2, V3])
def test_padded_and_long_clips_of_the_golden_have_the_codes_of_the_reference(name):
    manifest = read_manifest(GOLDENS / name / "manifest.json")
    _, tokenizer = network_with_weights(zoo.info(name), synthetic_checkpoint(manifest), {})
    tokenizer.eval()
    with np.load(GOLDENS / name / "golden.npz") as file:
        golden = {key: torch.from_numpy(file[key]) for key in file.files}
    codes = tokenizer.encode(golden["pad_input"][:, None], golden["pad_lengths"])
    for ours, theirs, length in zip(codes[:, 0], golden["pad_codes"], golden["pad_code_lengths"], strict=True):
        assert torch.equal(ours[:length], theirs[:length])
        assert not ours[length:].any()
    if "long_codes" in golden:
        clip = golden["input"]
        long = clip.repeat(1, 512000 // clip.shape[1] + 1)[:, None, :512000]
        assert torch.equal(tokenizer.encode(long)[:, 0], golden["long_codes"])


LONG = """
import pathlib, re, sys, torch, zoo
def kibibytes(name):
    return int(re.search(name + r":\\s+(\\d+) kB", pathlib.Path("/proc/self/status").read_text())[1])
tokenizer = zoo.create(sys.argv[1]).eval()
audio = torch.randn(1, 1, 120 * 16000) * 0.1
built = kibibytes("VmRSS")
assert tokenizer.encode(audio).shape == (1, 1, 3000)
print(kibibytes("VmHWM") - built)
"""


@pytest.mark.slow
def test_encoding_of_two_minutes_takes_less_than_half_a_gibibyte_beside_the_network():
    taken = subprocess.run([sys.executable, "-c", LONG, V2], check=True, capture_output=True, text=True).stdout
    assert int(taken) < 2**19
