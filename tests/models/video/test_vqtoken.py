"""What is VQToken's own: SigLIP's features, a codebook for each clip by k-means, tokens for a language model."""

import math

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn.functional import layer_norm

import zoo
from zoo.graphs import Encode
from zoo.models.video.vqtoken.k_means import KMeans
from zoo.testing import signal, small

NAME, FIXED = "vqtoken", "vqtoken-fixed-32"
WIDTH, HIDDEN, LAYERS, HEADS, DIM = 16, 24, 2, 2, 16  # of SigLIP here, which has one layer more
SIGLIP, ATTENTION = "model.vision_tower.vision_tower.vision_model.", "model.cross_attention."


@pytest.fixture(scope="module")
def siglip():
    """transformers' SigLIP with random weights, in a size that is small."""
    transformers = pytest.importorskip("transformers")
    sizes = {"hidden_size": WIDTH, "intermediate_size": HIDDEN, "num_attention_heads": HEADS}
    config = transformers.SiglipVisionConfig(num_hidden_layers=LAYERS + 1, image_size=384, patch_size=14, **sizes)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        tower = transformers.SiglipVisionModel(config).eval()
        for parameter in tower.parameters():
            nn.init.normal_(parameter, std=0.2)
    return tower


@pytest.fixture(scope="module")
def published(siglip) -> dict[str, Tensor]:
    """Random tensors of a small network in the layout of the published file, with those that are not needed."""
    generator = torch.Generator().manual_seed(1)

    def noise(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator) * shape[-1] ** -0.5

    state = {}
    for key, tensor in siglip.state_dict().items():
        key = key.removeprefix("vision_model.")
        if not key.startswith((f"encoder.layers.{LAYERS}.", "head.")):  # the authors delete both
            state[SIGLIP + key] = tensor
    for layer, columns in ((0, WIDTH), (2, DIM)):
        state |= {f"model.mm_projector.{layer}.weight": noise(DIM, columns)}
        state |= {f"model.mm_projector.{layer}.bias": noise(DIM)}
    state |= {f"{ATTENTION}to_q_proj.weight": 0.1 * noise(DIM, 729), f"{ATTENTION}to_q_proj.bias": noise(DIM)}
    layer = f"{ATTENTION}transformer_decoder.layers.0."
    for attention in ("self_attn", "multihead_attn"):
        state |= {f"{layer}{attention}.in_proj_weight": noise(3 * DIM, DIM)}
        state |= {f"{layer}{attention}.in_proj_bias": noise(3 * DIM)}
        state |= {f"{layer}{attention}.out_proj.weight": noise(DIM, DIM)}
        state |= {f"{layer}{attention}.out_proj.bias": noise(DIM)}
    for name, rows, columns in (("linear1", HIDDEN, DIM), ("linear2", DIM, HIDDEN)):
        state |= {f"{layer}{name}.weight": noise(rows, columns), f"{layer}{name}.bias": noise(rows)}
    for i in (1, 2, 3):
        state |= {f"{layer}norm{i}.weight": 1 + noise(DIM), f"{layer}norm{i}.bias": noise(DIM)}
    unused = ("lm_head.weight", "model.layers.0.mlp.up_proj.weight", "model.norm.weight", "model.image_newline")
    return state | {name: torch.zeros(1) for name in (*unused, "model.embed_tokens.weight")}


@pytest.fixture
def loaded(registrations, published, tmp_path) -> zoo.Tokenizer:
    variant = zoo.info(NAME)
    config = {**variant.builder.small, "num_layers": LAYERS}
    zoo.register(zoo.replace(variant, "tiny-vqtoken", hub=variant.sources, config=config))
    torch.save(published, tmp_path / "model.bin")
    return zoo.load("tiny-vqtoken", weights=tmp_path / "model.bin")


def clip(frames: int, seed: int = 0) -> Tensor:
    return signal(small(NAME), 1, (frames, 384, 384), seed)


def random_starts(rows: int, fits: int, greatest: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.stack([torch.randperm(rows, generator=generator)[:greatest] for _ in range(fits)])


def blobs(rows: int, seed: int = 0) -> Tensor:
    """Features around fifteen directions."""
    generator = torch.Generator().manual_seed(seed)
    centres = torch.randn(15, DIM, generator=generator)
    near = centres[torch.randint(15, (rows,), generator=generator)]
    return near + 0.3 * torch.randn(rows, DIM, generator=generator)


def plain_fit(features: np.ndarray, start: list[int], most: int) -> tuple[list[int], np.ndarray]:
    """k-means as its description states it, feature by feature."""
    centroids = features[start]
    for _ in range(most):
        similarities = [[f @ c / np.linalg.norm(c) for c in centroids] for f in features]
        labels = [int(np.argmax(row)) for row in similarities]
        moved = centroids.copy()
        for k in range(len(centroids)):
            own = [f for f, label in zip(features, labels, strict=True) if label == k]
            if own:
                moved[k] = np.mean(own, axis=0)
        if np.linalg.norm(moved - centroids) < 1e-4:
            break
        centroids = moved
    return labels, centroids


def plain_clusters(
    features: Tensor, starts: Tensor, least: int, greatest: int, most: int
) -> tuple[list[int], np.ndarray]:
    """Labels and codebook, with the number of clusters by the authors' rule."""
    rows = features.double().numpy()
    rows = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    number = least
    if greatest > least:
        distortions = []
        for place, tried in enumerate(range(least, greatest + 1)):
            labels, centroids = plain_fit(rows, starts[place, :tried].tolist(), most)
            distortions.append(sum(((f - centroids[k]) ** 2).sum() for f, k in zip(rows, labels, strict=True)))
        bends = [a - 2 * b + c for a, b, c in zip(distortions, distortions[1:], distortions[2:], strict=False)]
        number = max(least, bends.index(max(bends)) + 4)
    labels, _ = plain_fit(rows, starts[-1, :number].tolist(), most)
    codebook = np.zeros((number, DIM))
    for k in set(labels):
        codebook[k] = rows[[i for i, label in enumerate(labels) if label == k]].mean(axis=0)
    return labels, codebook


def test_features_are_those_of_transformers_siglip_before_its_last_layer(loaded, siglip, published):
    x = clip(2)
    with torch.no_grad():
        frames = (x[0].movedim(1, 0) - 0.5) / 0.5
        hidden = siglip(frames, output_hidden_states=True).hidden_states[LAYERS]
        for layer in (0, 2):
            weight, bias = (published[f"model.mm_projector.{layer}.{name}"] for name in ("weight", "bias"))
            hidden = hidden @ weight.T + bias
            hidden = torch.nn.functional.gelu(hidden) if layer == 0 else hidden
        latent = loaded.to_latent((x - 0.5) / 0.5)
    expected = hidden.unflatten(1, (27, 27)).permute(3, 0, 1, 2)[None]
    torch.testing.assert_close(latent, expected, atol=1e-4, rtol=1e-4)
    assert latent.std() > 0.1


@pytest.mark.parametrize(("least", "greatest"), [(3, 12), (6, 6), (10, 12)])
def test_clusters_are_those_of_a_plain_computation(least, greatest):
    features = blobs(180)
    fits = 1 if least == greatest else greatest - least + 2
    starts = random_starts(180, fits, greatest)
    labels, codebook = plain_clusters(features, starts, least, greatest, 50)
    found = KMeans(DIM, (least, greatest), 50).cluster(features, starts=starts)
    assert found.labels.tolist() == labels
    np.testing.assert_allclose(found.codebook, codebook, atol=1e-6)
    assert len(codebook) <= max(least, greatest - least + 2)


def test_each_clip_has_the_clusters_of_its_own_features():
    tokenizer = small(FIXED)
    x = torch.cat([clip(1), clip(1, seed=1)])
    starts = torch.stack([random_starts(729, 1, 32, seed) for seed in range(2)])
    codes, codebooks = tokenizer.encode_with_codebook(x, starts=starts)
    latents = tokenizer.to_latent((x - 0.5) / 0.5).detach()
    for latent, start, item, codebook in zip(latents, starts, codes, codebooks, strict=True):
        found = tokenizer.quantizer.cluster(latent.movedim(0, -1), starts=start)
        assert item.flatten().tolist() == found.labels.tolist()
        torch.testing.assert_close(codebook, found.codebook)
    assert torch.equal(tokenizer.encode(x, starts=starts), codes)


def test_a_row_of_the_codebook_is_the_mean_of_the_normalised_features_with_its_number():
    tokenizer = small(NAME)
    x = clip(3)
    codes, (codebook,) = tokenizer.encode_with_codebook(x)
    assert codes.shape == (1, 1, 3, 27, 27)
    assert codebook.shape[1] == tokenizer.quantizer.dim and codebook.dtype == torch.float32
    assert 12 <= len(codebook) <= 22
    latent = tokenizer.to_latent((x - 0.5) / 0.5).detach()[0].movedim(0, -1)
    for number in codes.unique().tolist():
        members = latent[codes[0, 0] == number]
        mean = (members / members.norm(dim=1, keepdim=True)).mean(dim=0)
        torch.testing.assert_close(codebook[number], mean, atol=1e-5, rtol=0)


def test_two_calls_agree_and_a_generator_draws_other_starts():
    tokenizer = small(FIXED)
    x = torch.cat([clip(1), clip(1, seed=1)])
    first, again = tokenizer.encode_with_codebook(x), tokenizer.encode_with_codebook(x)
    assert torch.equal(first.codes, again.codes)
    assert all(map(torch.equal, first.codebooks, again.codebooks))
    drawn, same, alone = (tokenizer.encode(some, generator=torch.Generator().manual_seed(5)) for some in (x, x, x[1:]))
    assert torch.equal(drawn, same) and not torch.equal(drawn, first.codes)
    assert torch.equal(drawn[1:], alone)
    one_after_the_other = torch.Generator().manual_seed(5)
    assert torch.equal(tokenizer.encode(x, generator=one_after_the_other), drawn)
    assert not torch.equal(tokenizer.encode(x, generator=one_after_the_other), drawn)


def test_the_number_of_clusters_is_fixed_in_the_fixed_variant():
    codes, codebooks = small(FIXED).encode_with_codebook(clip(1))
    assert codebooks[0].shape[0] == 32 and codes.unique().numel() > 16


def test_the_global_random_state_neither_matters_nor_changes():
    tokenizer = small(FIXED)
    torch.manual_seed(1)
    before = torch.get_rng_state()
    codes = tokenizer.encode(clip(1))
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(2)
    assert torch.equal(tokenizer.encode(clip(1)), codes)


def test_embed_returns_the_rows_that_the_codes_number():
    tokenizer = small(FIXED)
    codes, codebooks = tokenizer.encode_with_codebook(torch.cat([clip(1), clip(1, seed=1)]))
    latent = tokenizer.embed(codes, codebooks=codebooks)
    assert latent.shape == (2, tokenizer.quantizer.dim, 1, 27, 27)
    for item, row, column in ((0, 0, 0), (1, 13, 26)):
        number = int(codes[item, 0, 0, row, column])
        assert torch.equal(latent[item, :, 0, row, column], codebooks[item][number])


@pytest.mark.parametrize(("frames", "clusters"), [(2, 5), (5, 2), (3, 3)])
def test_tokens_are_those_of_a_plain_computation(loaded, published, frames, clusters):
    state = {key.removeprefix(ATTENTION): tensor.double() for key, tensor in published.items()}
    layer = "transformer_decoder.layers.0."

    def linear(x: Tensor, name: str) -> Tensor:
        return x @ state[f"{name}.weight"].T + state[f"{name}.bias"]

    def norm(x: Tensor, i: int) -> Tensor:
        return layer_norm(x, (DIM,), state[f"{layer}norm{i}.weight"], state[f"{layer}norm{i}.bias"], 1e-5)

    def attended(x: Tensor, other: Tensor, name: str) -> Tensor:
        weights, biases = (state[f"{layer}{name}.in_proj_{kind}"].chunk(3) for kind in ("weight", "bias"))
        q, k, v = (
            part @ weight.T + bias for part, weight, bias in zip((x, other, other), weights, biases, strict=True)
        )
        heads = [slice(start, start + DIM // 2) for start in (0, DIM // 2)]
        mixed = [(q[:, h] @ k[:, h].T / math.sqrt(DIM // 2)).softmax(dim=1) @ v[:, h] for h in heads]
        return linear(torch.cat(mixed, dim=1), f"{layer}{name}.out_proj")

    generator = torch.Generator().manual_seed(frames)
    codes = torch.randint(clusters, (1, 1, frames, 27, 27), generator=generator)
    codebook = torch.randn(clusters, DIM, generator=generator)
    rows = max(frames, clusters)
    x = torch.stack([linear(codes[0, 0, i % frames].flatten().double(), "to_q_proj") for i in range(rows)])
    memory = torch.stack([codebook[i % clusters] for i in range(rows)]).double()
    x = norm(x + attended(x, x, "self_attn"), 1)
    x = norm(x + attended(x, memory, "multihead_attn"), 2)
    x = norm(x + linear(linear(x, f"{layer}linear1").relu(), f"{layer}linear2"), 3)
    (tokens,) = loaded.tokens(codes, [codebook])
    torch.testing.assert_close(tokens.double(), x, atol=1e-5, rtol=0)


def test_the_tokens_of_a_padded_clip_are_those_that_it_has_alone():
    tokenizer = small(FIXED)
    lengths = torch.tensor([3, 1])
    codes, codebooks = tokenizer.encode_with_codebook(torch.cat([clip(3), clip(3, seed=1)]), lengths)
    tokens = tokenizer.tokens(codes, codebooks, lengths)
    alone = tokenizer.tokens(*tokenizer.encode_with_codebook(clip(3, seed=1)[:, :, :1]))
    assert torch.equal(tokens[1], alone[0])
    assert [len(item) for item in tokens] == [max(3, len(codebooks[0])), max(1, len(codebooks[1]))]


def test_codes_without_their_codebook_are_refused_with_what_to_call(tmp_path):
    tokenizer = small(FIXED)
    codes = tokenizer.encode(clip(1))
    with pytest.raises(zoo.InputError, match=r"cannot decode: .*encode_with_codebook\(clip\) .* tokens\(codes, codeb"):
        tokenizer.decode(codes)
    with pytest.raises(zoo.InputError, match=r"codes alone mean nothing: .*encode_with_codebook\(clip\)"):
        tokenizer.embed(codes)
    with pytest.raises(zoo.InputError, match=r"codes alone mean nothing"):
        zoo.encode_files(tokenizer, [tmp_path], tmp_path / "codes")
    with pytest.raises(zoo.InputError, match=r"codes alone mean nothing"):
        Encode(tokenizer)


@pytest.mark.parametrize(
    ("codebooks", "message"),
    [
        ([], r"expected codebooks \[clusters, 16\] of 1 clips, got \[\]"),
        ([[1.0]], "expected a codebook as floating .*, got list"),
        ([torch.zeros(12, 7)], r"expected a codebook as floating \[clusters, 16\], got torch.float32 \[12, 7\]"),
        ([torch.zeros(12, 16, dtype=torch.int64)], "got torch.int64"),
        ([torch.zeros(2, 16)], r"expected codes of a codebook of 2 rows, got a code \d+"),
    ],
)
def test_a_codebook_that_is_not_of_the_codes_is_refused(codebooks, message):
    tokenizer = small(FIXED)
    codes = tokenizer.encode(clip(1))
    for call in (tokenizer.tokens, lambda codes, codebooks: tokenizer.embed(codes, codebooks=codebooks)):
        with pytest.raises(zoo.InputError, match=message):
            call(codes, codebooks)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"generator": 5}, "expected generator as a torch.Generator, got 5"),
        ({"starts": []}, "expected starts of 1 clips"),
        ({"starts": [torch.zeros(1, 3).long()]}, r"expected starts of a clip as integers \[1, 32\], got torch.int64"),
        ({"starts": [torch.zeros(1, 32)]}, "got torch.float32"),
        ({"starts": [torch.full((1, 32), 729)]}, "expected starts of 32 clusters from 0 to 728, got 729 to 729"),
        ({"starts": [torch.full((1, 32), -1)]}, "got -1 to -1"),
        ({"chunk_frames": 4}, "has no option 'chunk_frames'; it takes: generator, starts"),
    ],
)
def test_bad_options_are_refused_with_what_came(options, message):
    with pytest.raises(zoo.InputError, match=message):
        small(FIXED).encode(clip(1), **options)


def test_features_of_length_zero_are_clustered_too():
    features = blobs(100)
    features[::3] = 0
    found = KMeans(DIM, (12, 32), 20).cluster(features)
    assert found.codebook.isfinite().all() and found.distortions.isfinite().all()
    nothing = KMeans(DIM, (12, 32), 20).cluster(torch.zeros(100, DIM))
    assert not nothing.labels.any() and not nothing.codebook.any()


def test_fewer_features_than_clusters_are_refused():
    with pytest.raises(zoo.InputError, match="expected a clip of at least 12 features, got 11"):
        KMeans(DIM, (12, 32), 20).cluster(torch.randn(11, DIM))


@pytest.mark.parametrize("clusters", [(12, 13), (0, 4), (5, 4)])
def test_a_search_without_a_second_difference_is_refused(clusters):
    with pytest.raises(zoo.InputError, match=r"expected .* clusters as a number twice or as two numbers"):
        KMeans(DIM, clusters, 20)


def test_gradients_reach_features_through_the_means_of_their_clusters():
    features = blobs(100)[None].requires_grad_()
    quantized, codes, losses = KMeans(DIM, (4, 4), 20)(features)
    assert not losses
    quantized[0, codes[0, :, 0] == 2].sum().backward()
    moved = features.grad[0].abs().sum(dim=1) > 0
    assert torch.equal(moved, codes[0, :, 0] == 2)


def test_gradients_reach_the_attention_and_the_codebook():
    tokenizer = small(FIXED)
    codes, codebooks = tokenizer.encode_with_codebook(clip(1))
    codebook = codebooks[0].requires_grad_()
    tokenizer.tokens(codes, [codebook])[0].square().sum().backward()
    assert codebook.grad.abs().sum() > 0
    assert tokenizer.attention.query.weight.grad.abs().sum() > 0


def test_frames_are_stretched_to_a_square_by_pillows_bicubic_filter():
    frames = np.random.default_rng(0).integers(256, size=(2, 60, 110, 3), dtype=np.uint8)
    resized = [Image.fromarray(frame).resize((384, 384), Image.Resampling.BICUBIC) for frame in frames]
    expected = np.stack([np.asarray(frame) for frame in resized]) / 255
    np.testing.assert_allclose(small(NAME).preprocess(frames)[0].permute(1, 2, 3, 0), expected, atol=1e-6)
