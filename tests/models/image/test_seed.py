"""What is SEED's own: a causal Q-Former, two published files, an embedding in place of an image, stretched input."""

import math

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor
from torch.nn.functional import cosine_similarity, gelu, layer_norm

import zoo
from zoo.loading import load_into
from zoo.testing import signal, small

NAME = "seed-2"
SMALL = zoo.info(NAME).builder.small
VIT, VIT_HIDDEN, VIT_LAYERS = SMALL["vision_width"], SMALL["vision_hidden"], SMALL["vision_layers"]
WIDTH, LAYERS, HEADS = SMALL["width"], SMALL["num_layers"], SMALL["num_heads"]
QUERIES, DIM = 32, 32


def published(seed: int = 0) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Random tensors of a small network in the layout of the published files: the quantizer's, the encoder's."""
    generator = torch.Generator().manual_seed(seed)

    def linear(name: str, out: int, into: int, bias: bool = True) -> dict[str, Tensor]:
        weight = torch.randn(out, into, generator=generator) / math.sqrt(into)
        return {f"{name}.weight": weight, **({f"{name}.bias": noise(out)} if bias else {})}

    def norm(name: str, width: int) -> dict[str, Tensor]:
        return {f"{name}.weight": 1 + noise(width), f"{name}.bias": noise(width)}

    def noise(*shape: int) -> Tensor:
        return 0.2 * torch.randn(*shape, generator=generator)

    def block(name: str, width: int, hidden: int, key_bias: bool) -> dict[str, Tensor]:
        qkv = linear(f"{name}.attn.qkv", 3 * width, width, bias=key_bias)
        biases = {} if key_bias else {f"{name}.attn.{letter}_bias": noise(width) for letter in "qv"}
        return {
            **norm(f"{name}.norm1", width),
            **qkv,
            **biases,
            **linear(f"{name}.attn.proj", width, width),
            **norm(f"{name}.norm2", width),
            **linear(f"{name}.mlp.fc1", hidden, width),
            **linear(f"{name}.mlp.fc2", width, hidden),
        }

    vision = {
        "cls_token": noise(1, 1, VIT),
        "pos_embed": noise(1, 257, VIT),
        "patch_embed.proj.weight": torch.randn(VIT, 3, 14, 14, generator=generator) / 14,
        "patch_embed.proj.bias": noise(VIT),
    }
    for i in range(VIT_LAYERS):
        vision |= block(f"blocks.{i}", VIT, VIT_HIDDEN, key_bias=False)
    rest = {"query_tokens": noise(1, QUERIES, WIDTH), **norm("ln_vision", VIT)}
    rest |= norm("Qformer.bert.embeddings.LayerNorm", WIDTH)
    for i in range(LAYERS):
        layer = f"Qformer.bert.encoder.layer.{i}"
        for attention, width in (("attention", WIDTH), ("crossattention", VIT))[: 2 - i % 2]:
            rest |= linear(f"{layer}.{attention}.self.query", WIDTH, WIDTH)
            rest |= linear(f"{layer}.{attention}.self.key", WIDTH, width)
            rest |= linear(f"{layer}.{attention}.self.value", WIDTH, width)
            rest |= linear(f"{layer}.{attention}.output.dense", WIDTH, WIDTH)
            rest |= norm(f"{layer}.{attention}.output.LayerNorm", WIDTH)
        rest |= linear(f"{layer}.intermediate_query.dense", 4 * WIDTH, WIDTH)
        rest |= linear(f"{layer}.output_query.dense", WIDTH, 4 * WIDTH) | norm(f"{layer}.output_query.LayerNorm", WIDTH)
    rest |= linear("encode_task_layer.0", WIDTH, WIDTH) | linear("encode_task_layer.2", DIM, WIDTH)
    rest |= linear("decode_task_layer.0", DIM, DIM) | linear("decode_task_layer.2", WIDTH, DIM)
    rest |= {"quantize.embedding.weight": noise(8192, DIM), "pos_embed_image": noise(1, QUERIES, WIDTH)}
    rest |= block("blocks_image.0", WIDTH, 4 * WIDTH, key_bias=True)
    for i, (out, into) in enumerate(((WIDTH // 3, WIDTH), (WIDTH // 6, WIDTH // 3), (DIM, WIDTH // 6))):
        rest |= linear(f"image_down.{2 * i}", out, into, bias=False)
    return rest | linear("distill_image_proj", QUERIES * DIM, QUERIES * DIM), vision


class Plain:
    """The network as its description states it, one image at a time, head by head, in float64."""

    def __init__(self, rest: dict[str, Tensor], vision: dict[str, Tensor]):
        whole = rest | {f"visual_encoder.{key}": tensor for key, tensor in vision.items()}
        self.state = {key: tensor.double() for key, tensor in whole.items()}

    def latents(self, image: Tensor) -> Tensor:
        """Return `[32, 32]`, token by channel, of an image `[3, 224, 224]` in [0, 1]."""
        return self.linear(self.linear(self.condensed(image), "encode_task_layer.0").tanh(), "encode_task_layer.2")

    def condensed(self, image: Tensor) -> Tensor:
        """Return the Q-Former's vectors `[32, width]` of an image."""
        mean = torch.tensor([0.48145466, 0.4578275, 0.40821073], dtype=torch.float64)[:, None, None]
        std = torch.tensor([0.26862954, 0.26130258, 0.27577711], dtype=torch.float64)[:, None, None]
        image = (image.double() - mean) / std
        kernel, bias = (self.state[f"visual_encoder.patch_embed.proj.{name}"] for name in ("weight", "bias"))
        patches = [
            (kernel * image[:, 14 * row : 14 * row + 14, 14 * column : 14 * column + 14]).sum(dim=(1, 2, 3)) + bias
            for row in range(16)
            for column in range(16)
        ]
        x = torch.stack([self.state["visual_encoder.cls_token"][0, 0], *patches])
        x = x + self.state["visual_encoder.pos_embed"][0]
        for i in range(VIT_LAYERS):
            x = self.block(x, f"visual_encoder.blocks.{i}", SMALL["vision_heads"])
        seen = self.norm(x, "ln_vision", 1e-5)
        x = self.norm(self.state["query_tokens"][0], "Qformer.bert.embeddings.LayerNorm", 1e-12)
        causal = torch.full((QUERIES, QUERIES), -10000.0, dtype=torch.float64).triu(1)
        for i in range(LAYERS):
            layer = f"Qformer.bert.encoder.layer.{i}"
            x = self.post_norm_attention(x, x, f"{layer}.attention", causal)
            if i % 2 == 0:
                x = self.post_norm_attention(x, seen, f"{layer}.crossattention", 0.0)
            hidden = gelu(self.linear(x, f"{layer}.intermediate_query.dense"))
            x = self.norm(
                self.linear(hidden, f"{layer}.output_query.dense") + x, f"{layer}.output_query.LayerNorm", 1e-12
            )
        return x

    def codes(self, latents: Tensor) -> Tensor:
        return (latents[:, None] - self.state["quantize.embedding.weight"]).square().sum(dim=2).argmin(dim=1)

    def embedding(self, codes: Tensor) -> Tensor:
        rows = self.state["quantize.embedding.weight"][codes]
        x = self.linear(self.linear(rows, "decode_task_layer.0").tanh(), "decode_task_layer.2")
        x = self.block(x + self.state["pos_embed_image"][0], "blocks_image.0", HEADS)
        for i in (0, 2):
            x = (x @ self.state[f"image_down.{i}.weight"].T).relu()
        return self.linear((x @ self.state["image_down.4.weight"].T).flatten(), "distill_image_proj")

    def block(self, x: Tensor, name: str, heads: int) -> Tensor:
        biases = [self.state.get(f"{name}.attn.{letter}_bias") for letter in "qv"]
        h = self.norm(x, f"{name}.norm1", 1e-6) @ self.state[f"{name}.attn.qkv.weight"].T
        if biases[0] is None:
            h = h + self.state[f"{name}.attn.qkv.bias"]
            q, k, v = h.chunk(3, dim=1)
        else:
            q, k, v = h.chunk(3, dim=1)
            q, v = q + biases[0], v + biases[1]
        x = x + self.linear(attended(q, k, v, heads, 0.0), f"{name}.attn.proj")
        h = gelu(self.linear(self.norm(x, f"{name}.norm2", 1e-6), f"{name}.mlp.fc1"))
        return x + self.linear(h, f"{name}.mlp.fc2")

    def post_norm_attention(self, x: Tensor, other: Tensor, name: str, mask: Tensor | float) -> Tensor:
        q = self.linear(x, f"{name}.self.query")
        k, v = (self.linear(other, f"{name}.self.{part}") for part in ("key", "value"))
        h = self.linear(attended(q, k, v, HEADS, mask), f"{name}.output.dense")
        return self.norm(h + x, f"{name}.output.LayerNorm", 1e-12)

    def linear(self, x: Tensor, name: str) -> Tensor:
        return x @ self.state[f"{name}.weight"].T + self.state[f"{name}.bias"]

    def norm(self, x: Tensor, name: str, epsilon: float) -> Tensor:
        return layer_norm(x, x.shape[-1:], self.state[f"{name}.weight"], self.state[f"{name}.bias"], epsilon)


def attended(q: Tensor, k: Tensor, v: Tensor, heads: int, mask: Tensor | float) -> Tensor:
    parts = zip(q.chunk(heads, dim=1), k.chunk(heads, dim=1), v.chunk(heads, dim=1), strict=True)
    return torch.cat([(a @ b.T / math.sqrt(a.shape[1]) + mask).softmax(dim=1) @ c for a, b, c in parts], dim=1)


@pytest.fixture
def files(tmp_path):
    """The two published files of a small network, in one folder, with keys that are not needed."""
    rest, vision = published()
    torch.save(rest | {"pos_embed": torch.zeros(1), "Qformer.cls.bias": torch.zeros(3)}, tmp_path / "seed_quantizer.pt")
    torch.save({key: tensor.half() for key, tensor in vision.items()} | {"head.bias": torch.zeros(1)}, tmp_path / "vit")
    (tmp_path / "vit").rename(tmp_path / "eva_vit_g.pth")
    return tmp_path


@pytest.fixture
def loaded(files):
    tokenizer = zoo.create(NAME, small=True).eval()
    load_into(tokenizer, NAME, files)
    return tokenizer


def test_codes_and_features_are_those_of_a_plain_computation(loaded):
    rest, vision = published()
    plain = Plain(rest, {key: tensor.half() for key, tensor in vision.items()})
    images = signal(loaded, 2, (224, 224), seed=3)
    codes = loaded.encode(images)
    for image, found, embedding in zip(images, codes[:, 0], loaded.features(codes), strict=True):
        latents = plain.latents(image)
        torch.testing.assert_close(loaded.to_latent(image[None])[0].mT.double(), latents, atol=1e-4, rtol=1e-4)
        assert torch.equal(found, plain.codes(latents))
        torch.testing.assert_close(embedding.double(), plain.embedding(found), atol=1e-4, rtol=1e-4)
    assert len(codes.unique()) > 16


def test_the_recovery_that_is_trained_starts_from_the_published_files(files):
    rest, vision = published()
    generator = torch.Generator().manual_seed(5)
    shapes = {key.replace("blocks_image", "blocks"): rest[key].shape for key in rest if key.startswith("blocks_image")}
    rest |= {key: torch.randn(shape, generator=generator) / 8 for key, shape in shapes.items()}
    rest["pos_embed"] = torch.randn(1, QUERIES, WIDTH, generator=generator)
    torch.save(rest, files / "seed_quantizer.pt")
    tokenizer = zoo.info(NAME).builder(zoo.info(NAME).spec, **SMALL, recovery_layers=1)
    load_into(tokenizer, NAME, files)
    image = signal(tokenizer, 1, (224, 224), seed=3)
    output = tokenizer(image)

    plain = Plain(rest, {key: tensor.half() for key, tensor in vision.items()})
    rows = plain.state["quantize.embedding.weight"][output.codes[0, 0]]
    widened = plain.linear(plain.linear(rows, "decode_task_layer.0").tanh(), "decode_task_layer.2")
    recovered = plain.block(widened + plain.state["pos_embed"][0], "blocks.0", HEADS)
    expected = 1 - cosine_similarity(recovered, plain.condensed(image[0]), dim=1).mean()
    assert output.losses["recovery_loss"].item() == pytest.approx(float(expected), abs=1e-4)
    torch.testing.assert_close(output.reconstruction, tokenizer.features(output.codes))


def test_one_file_of_the_whole_model_is_read_as_well(loaded, files):
    rest, vision = published()
    unused = {"blocks.0.norm1.bias": torch.zeros(WIDTH), "pos_embed": torch.zeros(1, 32, WIDTH)}
    whole = rest | unused | {f"visual_encoder.{key}": tensor.half() for key, tensor in vision.items()}
    torch.save(whole, files / "whole.pt")
    other = zoo.create(NAME, small=True).eval()
    load_into(other, NAME, files / "whole.pt")
    assert all(torch.equal(loaded.state_dict()[key], tensor) for key, tensor in other.state_dict().items())


def test_a_file_that_is_not_there_and_a_tensor_that_is_missing_are_named(files):
    tokenizer = zoo.create(NAME, small=True)
    rest, _ = published()
    del rest["image_down.0.weight"]
    torch.save(rest, files / "seed_quantizer.pt")
    with pytest.raises(zoo.CheckpointError, match=r"1 tensor missing \(image_down.0.weight\)"):
        load_into(tokenizer, NAME, files)
    (files / "eva_vit_g.pth").unlink()
    with pytest.raises(zoo.CheckpointError, match=r"needs seed_quantizer.pt and eva_vit_g.pth .* no eva_vit_g.pth"):
        load_into(tokenizer, NAME, files)


def test_a_query_sees_the_whole_image_and_of_the_queries_those_before_it():
    tokenizer = small(NAME)
    image = signal(tokenizer, 1, (224, 224))
    before = tokenizer.to_latent(image)
    with torch.no_grad():
        tokenizer.encoder.qformer.queries[:, 20] *= -1
    after = tokenizer.to_latent(image)
    torch.testing.assert_close(after[..., :20], before[..., :20])
    assert (after[..., 20:] - before[..., 20:]).abs().amax(dim=1).min() > 1e-3
    image[..., -14:, -14:] = 0  # the last patch
    assert (tokenizer.to_latent(image) - after).abs().amax(dim=1).min() > 1e-6


def test_images_are_stretched_to_a_square_by_pillows_bicubic_filter():
    pixels = np.random.default_rng(0).integers(256, size=(90, 300, 3), dtype=np.uint8)
    image = Image.fromarray(pixels)
    tokenizer = small(NAME)
    expected = np.asarray(image.resize((224, 224), Image.Resampling.BICUBIC)) / 255
    np.testing.assert_allclose(tokenizer.preprocess(image)[0].permute(1, 2, 0), expected, atol=1e-6)
    # Asked for, the ratio of the sides is kept.
    wide = image.resize((746, 224), Image.Resampling.BICUBIC)
    middle = np.asarray(wide.crop((261, 0, 485, 224))) / 255
    np.testing.assert_allclose(
        tokenizer.preprocess(image, crop=224, resolution=224)[0].permute(1, 2, 0), middle, atol=1e-6
    )


@pytest.fixture(scope="module")
def pipeline():
    """A pipeline of diffusers with random weights, which renders 8x8 pixels."""
    diffusers, transformers = pytest.importorskip("diffusers"), pytest.importorskip("transformers")
    from diffusers.pipelines.stable_diffusion.stable_unclip_image_normalizer import StableUnCLIPImageNormalizer

    torch.manual_seed(0)
    sizes = {"hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1, "num_attention_heads": 1}
    text = transformers.CLIPTextConfig(vocab_size=2, bos_token_id=0, eos_token_id=1, **sizes)
    vision = transformers.CLIPVisionConfig(image_size=28, patch_size=14, projection_dim=8, **sizes)
    built = diffusers.StableUnCLIPImg2ImgPipeline(
        feature_extractor=None,
        image_encoder=transformers.CLIPVisionModelWithProjection(vision),
        image_normalizer=StableUnCLIPImageNormalizer(embedding_dim=1024),
        image_noising_scheduler=diffusers.DDPMScheduler(beta_schedule="squaredcos_cap_v2"),
        tokenizer=transformers.CLIPTokenizer(
            vocab={"<|startoftext|>": 0, "<|endoftext|>": 1}, merges=[], model_max_length=77
        ),
        text_encoder=transformers.CLIPTextModel(text),
        unet=diffusers.UNet2DConditionModel(
            sample_size=8,
            block_out_channels=(8, 8),
            layers_per_block=1,
            norm_num_groups=4,
            attention_head_dim=2,
            cross_attention_dim=8,
            down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
            up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
            class_embed_type="projection",
            projection_class_embeddings_input_dim=2048,
        ),
        scheduler=diffusers.DDIMScheduler(beta_schedule="scaled_linear", set_alpha_to_one=False),
        vae=diffusers.AutoencoderKL(block_out_channels=(8,), norm_num_groups=4),
    )
    built.set_progress_bar_config(disable=True)
    return built


def drawn(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_a_pipeline_of_diffusers_renders_what_the_codes_stand_for(pipeline):
    tokenizer = small(NAME)
    codes = tokenizer.encode(signal(tokenizer, 2, (224, 224)))
    images = tokenizer.decode(codes, pipeline=pipeline, generator=drawn())
    assert images.shape == (2, 3, 8, 8)
    assert 0 <= images.min() < images.max() <= 1
    assert torch.equal(tokenizer.decode(codes, pipeline=pipeline, generator=drawn()), images)
    assert not torch.equal(tokenizer.decode(codes.flip(2), pipeline=pipeline, generator=drawn()), images)


def test_pixels_need_a_pipeline_for_these_embeddings(pipeline):
    tokenizer = small(NAME)
    codes = tokenizer.encode(signal(tokenizer, 1, (224, 224)))
    with pytest.raises(zoo.InputError, match=r"cannot decode: .*features\(codes\).*pipeline=StableUnCLIPImg2Img"):
        tokenizer.decode(codes)
    with pytest.raises(zoo.InputError, match="expected an unCLIP pipeline for embeddings of 1024 numbers, got str"):
        tokenizer.decode(codes, pipeline="stabilityai/stable-diffusion-2-1-unclip")
    with pytest.raises(zoo.InputError, match="expected no size"):
        tokenizer.decode(codes, size=(224, 224), pipeline=pipeline)
    with pytest.raises(zoo.InputError, match="has no option 'steps'; it takes: pipeline, generator"):
        tokenizer.decode(codes, pipeline=pipeline, steps=50)


def test_the_network_has_the_published_number_of_parameters():
    with torch.device("meta"):
        tokenizer = zoo.create(NAME)
    unused = 4 * (12 * 768**2 + 13 * 768) + 32 * 768  # that training leaves in the file: `blocks` and `pos_embed`
    no_key_bias = 39 * 1408
    assert (tokenizer.num_parameters + unused - no_key_bias) / 1e6 == pytest.approx(1150.0, abs=0.05)
