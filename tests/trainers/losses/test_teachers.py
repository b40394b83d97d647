"""Representation losses: FQGAN's against its goldens, distillation against its formula, teachers from local files."""

import json
import math
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
import torchaudio
from huggingface_hub import constants
from safetensors.torch import save_file
from torch.nn import functional as F

from tests.support.paths import GOLDENS
from zoo.checkpoints import KeyMap
from zoo.errors import InputError
from zoo.parity import synthetic_checkpoint
from zoo.trainers.losses.teachers import (
    IMAGE_TEACHERS,
    TEXT_TEACHERS,
    EmbeddingDistillation,
    FeatureDistillation,
    FeatureHead,
    ImageTeacher,
    RepresentationLoss,
    SemanticDistillation,
    SpeechTeacher,
    TextTeacher,
    VisionTeacher,
    distillation_loss,
    info_nce,
    spoken,
)

HEAD = (
    ("{prefix}.upscale.", "expand."),
    ("{prefix}.ln_pre.", "norm_pre."),
    ("{prefix}.ln_post.", "norm_post."),
    ("{prefix}.transformer.{i}.ln_1.", "blocks.{i}.norm1."),
    ("{prefix}.transformer.{i}.attn.", "blocks.{i}.attention."),
    ("{prefix}.transformer.{i}.ln_2.", "blocks.{i}.norm2."),
    ("{prefix}.transformer.{i}.mlp.c_fc.", "blocks.{i}.mlp.0."),
    ("{prefix}.transformer.{i}.mlp.c_proj.", "blocks.{i}.mlp.2."),
    ("{prefix}.class_embedding", "class_embedding"),
    ("{prefix}.positional_embedding", "positional_embedding"),
)


@pytest.fixture
def offline(tmp_path, monkeypatch) -> Path:
    """An empty cache of the Hub and an empty folder of torch hub, and no way out."""
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(torch.hub, "_hub_dir", str(tmp_path))
    (tmp_path / "checkpoints").mkdir()
    return tmp_path


# FQGAN's


@pytest.mark.parametrize("kind", ["dual", "triple"])
def test_info_nce_is_the_published_one(kind):
    golden = np.load(GOLDENS / f"fqgan-{kind}-16" / "golden.npz")
    student, teacher = (torch.from_numpy(golden[f"infonce_{side}"]) for side in ("student", "teacher"))
    assert info_nce(student, teacher).item() == pytest.approx(golden["infonce_loss"].item(), abs=1e-6)


def test_info_nce_needs_others_to_tell_apart():
    features = torch.eye(32)
    # The least there is with orthogonal teachers: log(e + 31) - 1.
    assert info_nce(features, features).item() == pytest.approx(math.log(math.e + 31) - 1)
    with pytest.raises(InputError, match="at least 2"):
        info_nce(features[:1], features[:1])


@pytest.mark.parametrize(
    ("prefix", "branch", "position", "width"),
    [("mid_sem_feat_pred", "sem_mid", 1, 384), ("high_sem_feat_pred", "sem_high", 2, 768)],
)
@torch.no_grad()
def test_feature_heads_give_the_published_features(prefix, branch, position, width):
    manifest = json.loads((GOLDENS / "fqgan-triple-16" / "manifest.json").read_text())
    golden = np.load(GOLDENS / "fqgan-triple-16" / "golden.npz")
    tensors = {key: entry for key, entry in manifest["training_tensors"].items() if key.startswith(prefix + ".")}
    published = synthetic_checkpoint({"tensors": tensors, "seed": manifest["seed"]})
    with torch.device("meta"):
        head = FeatureHead(dim=8, width=width, positions=256)
    keys = KeyMap(*((theirs.replace("{prefix}", prefix), ours) for theirs, ours in HEAD))
    head.load_state_dict(keys.convert(published, head.state_dict(), "golden"), assign=True)
    quantized = torch.from_numpy(golden["quantized"][:, 8 * position : 8 * position + 8])
    expected = torch.from_numpy(golden[f"semantic_features_{branch}"])
    torch.testing.assert_close(head.tokens(quantized)[:, :3], expected, rtol=0, atol=2e-5)
    torch.testing.assert_close(head(quantized), expected[:, 0], rtol=0, atol=2e-5)


def test_feature_head_has_the_published_size_and_start():
    with torch.device("meta"):
        parameters = sum(parameter.numel() for parameter in FeatureHead(8, 1024, 256).parameters())
    assert parameters / 1e6 == pytest.approx(39.1, abs=0.05)
    torch.manual_seed(0)
    head = FeatureHead(8, 64, 256)
    assert head.positional_embedding.std().item() == pytest.approx(1 / 8, rel=0.05)
    assert head.class_embedding.std().item() == pytest.approx(1 / 8, rel=0.3)


# Teachers of pictures


def test_published_teachers_are_known_to_timm_with_their_weights():
    for teacher in IMAGE_TEACHERS.values():
        assert teacher.timm in timm.list_pretrained()
        with torch.device("meta"):
            network = timm.create_model(teacher.timm, img_size=224)
        width = network.head.out_features if teacher.projected else network.num_features
        assert width == teacher.width and network.num_prefix_tokens == 1


def test_without_its_weights_a_teacher_says_what_it_needs(offline):
    repository = "timm/vit_small_patch14_dinov2.lvd142m"
    with pytest.raises(InputError, match=f"dinov2-small needs the weights of {repository}.*hf download {repository}"):
        ImageTeacher("dinov2-small")


def test_unknown_teachers_are_named_with_those_there_are():
    with pytest.raises(InputError, match="unknown teacher 'clip'; zoo has clip-vit-large-patch14"):
        ImageTeacher("clip")
    with pytest.raises(InputError, match="unknown teacher 'hubert'; zoo has hubert-base-ls960, bert-base-uncased"):
        SpeechTeacher("hubert")


@pytest.fixture
def tiny_vit(offline):
    """A small network's random weights as the Hub's cache would hold the published ones."""
    torch.manual_seed(0)
    network = timm.create_model("vit_tiny_patch16_224", num_classes=21843).eval()
    for parameter in network.parameters():
        parameter.data += 0.02 * torch.randn_like(parameter)
    repository = timm.get_pretrained_cfg("vit_tiny_patch16_224.augreg_in21k").hf_hub_id
    folder = offline / f"models--{repository.replace('/', '--')}"
    snapshot = folder / "snapshots" / ("0" * 40)
    snapshot.mkdir(parents=True)
    (folder / "refs").mkdir()
    (folder / "refs" / "main").write_text("0" * 40)
    save_file(network.state_dict(), snapshot / "model.safetensors")
    return network


@pytest.mark.parametrize("final_norm", [False, True])
@torch.no_grad()
def test_a_teacher_gives_its_class_token_with_the_weights_of_the_file(final_norm, tiny_vit, monkeypatch):
    teachers = {"tiny": VisionTeacher("vit_tiny_patch16_224.augreg_in21k", 192, final_norm)}
    monkeypatch.setattr("zoo.trainers.losses.teachers.IMAGE_TEACHERS", teachers)
    images = torch.rand(2, 3, 256, 256, generator=torch.Generator().manual_seed(0))
    nearest = torch.arange(224) * 256 // 224
    x = (images[:, :, nearest][..., nearest] - 0.5) / 0.5  # this network's mean and deviation
    x = tiny_vit.patch_embed(x)
    x = torch.cat([tiny_vit.cls_token.expand(2, -1, -1), x], dim=1) + tiny_vit.pos_embed
    for block in tiny_vit.blocks:
        x = block(x)
    x = tiny_vit.norm(x) if final_norm else x
    torch.testing.assert_close(ImageTeacher("tiny")(images), x[:, 0], rtol=1e-4, atol=1e-4)


def test_the_representation_loss_trains_its_head_and_the_codes(tiny_vit, monkeypatch):
    teachers = {"tiny": VisionTeacher("vit_tiny_patch16_224.augreg_in21k", 192, True)}
    monkeypatch.setattr("zoo.trainers.losses.teachers.IMAGE_TEACHERS", teachers)
    loss = RepresentationLoss("tiny", dim=4, positions=6)
    quantized, images = torch.randn(2, 4, 2, 3, requires_grad=True), torch.rand(2, 3, 32, 48)
    value = loss(quantized, images)
    assert value.item() == pytest.approx(info_nce(loss.head(quantized), loss.teacher(images)).item())
    value.backward()
    assert quantized.grad.abs().max() > 0
    assert all(parameter.grad is not None for parameter in loss.parameters())
    assert all(key.startswith("head.") for key in loss.state_dict())


# Teachers of speech


def test_distillation_is_its_formula():
    student, teacher = torch.randn(2, 2, 50, 6, generator=torch.Generator().manual_seed(0)).double().unbind()
    values = []
    for item in range(2):
        for feature in range(6):
            ours, theirs = student[item, :49, feature].numpy(), teacher[item, :49, feature].numpy()
            cosine = ours @ theirs / (np.linalg.norm(ours) * np.linalg.norm(theirs))
            values.append(-math.log(1 / (1 + math.exp(-cosine))))
    assert distillation_loss(student, teacher[:, :49]).item() == pytest.approx(np.mean(values))
    assert distillation_loss(student, student).item() == pytest.approx(-math.log(1 / (1 + math.exp(-1))))


@pytest.mark.parametrize("shape", [(2, 1, 50, 6), (2, 48, 6), (2, 50, 7), (1, 50, 6)])
def test_features_that_do_not_belong_together_are_not_broadcast(shape):
    with pytest.raises(InputError, match="at most one frame apart"):
        distillation_loss(torch.randn(2, 50, 6), torch.randn(shape))


def test_without_its_weights_hubert_says_which_file_goes_where(offline):
    with pytest.raises(InputError, match=r"hubert-base-ls960 needs .*hubert_fairseq_base_ls960\.pth is not in"):
        SemanticDistillation("hubert-base-ls960", dim=8)


@pytest.fixture
def hubert(offline, monkeypatch):
    """Random weights where the published ones would lie, of a network of three layers that is else HuBERT base."""
    make = torchaudio.models.hubert_base
    torch.manual_seed(0)
    network = make().eval()
    del network.encoder.transformer.layers[3:]

    def short() -> torchaudio.models.Wav2Vec2Model:
        with torch.device("meta"):
            shortened = make()
        del shortened.encoder.transformer.layers[3:]
        return shortened.to_empty(device="cpu")

    monkeypatch.setattr(torchaudio.models, "hubert_base", short)
    older = {"parametrizations.weight.original0": "weight_g", "parametrizations.weight.original1": "weight_v"}
    state = network.state_dict()
    for key in [key for key in state if "parametrizations" in key]:
        stem, _, end = key.partition("parametrizations")
        state[stem + older["parametrizations" + end]] = state.pop(key)  # as the published file, of 2021, has them
    torch.save(state, offline / "checkpoints" / "hubert_fairseq_base_ls960.pth")
    return network


def test_hubert_is_heard_by_all_its_states(hubert):
    audio = 0.1 + 0.3 * torch.randn(2, 1, 3200, generator=torch.Generator().manual_seed(0))
    distillation = SemanticDistillation("hubert-base-ls960", dim=8).train()
    features = distillation.teacher(audio)
    with torch.no_grad():
        x = (audio[:, 0] - audio[:, 0].mean(dim=1, keepdim=True)) / audio[:, 0].std(dim=1, correction=0, keepdim=True)
        x, _ = hubert.feature_extractor(x, None)
        x = hubert.encoder.feature_projection(x)
        transformer = hubert.encoder.transformer
        x = transformer.layer_norm(x + transformer.pos_conv_embed(x))  # the embedding output
        states = [x]
        for layer in transformer.layers:
            x, _ = layer(x)
            states.append(x)
        expected = sum(states) / len(states)
    assert features.shape == (2, 9, 768) and len(states) == 4
    torch.testing.assert_close(features, expected, rtol=1e-3, atol=1e-3)

    quantized = torch.randn(2, 8, 10, requires_grad=True)
    loss = distillation(quantized, audio)
    projected = F.linear(quantized.mT, distillation.project.weight, distillation.project.bias)
    assert loss.item() == pytest.approx(distillation_loss(projected, expected).item(), rel=1e-4)
    loss.backward()
    assert quantized.grad.abs().max() > 0
    assert list(distillation.state_dict()) == ["project.weight", "project.bias"]


# Teachers of what is said


def test_repeated_letters_and_blanks_are_not_spoken():
    heard = "--HH-EE-L-LL-O-||W-O-R--L-D|"
    assert spoken(torch.tensor(["-|ETAONIHSRDLUMWCFGYPBVK'XJQZ".index(letter) for letter in heard])) == "HELLO WORLD"
    assert spoken(torch.zeros(9, dtype=torch.int64)) == ""


def test_without_its_weights_the_recognizer_says_which_file_goes_where(offline):
    with pytest.raises(
        InputError, match=r"bert-base-uncased needs .*wav2vec2_fairseq_base_ls960_asr_ls960\.pth is not"
    ):
        SemanticDistillation("bert-base-uncased", dim=8)


@pytest.fixture
def recognizer(offline, monkeypatch):
    """Random weights where the published ones would lie, of a network of one layer that is else wav2vec 2.0 base."""
    make = torchaudio.models.wav2vec2_base
    torch.manual_seed(0)
    network = make(aux_num_out=32).eval()
    del network.encoder.transformer.layers[1:]
    torch.save(network.state_dict(), offline / "checkpoints" / "wav2vec2_fairseq_base_ls960_asr_ls960.pth")

    def short(aux_num_out: int) -> torchaudio.models.Wav2Vec2Model:
        with torch.device("meta"):
            shortened = make(aux_num_out=aux_num_out)
        del shortened.encoder.transformer.layers[1:]
        return shortened.to_empty(device="cpu")

    monkeypatch.setattr(torchaudio.models, "wav2vec2_base", short)
    return network


def test_a_language_model_that_is_not_there_is_named(recognizer):
    with pytest.raises(
        InputError, match=r"bert-base-uncased needs google-bert/bert-base-uncased and the package trans"
    ):
        TextTeacher("bert-base-uncased")


def test_text_is_read_by_all_states_of_the_language_model(recognizer, tmp_path, monkeypatch):
    transformers = pytest.importorskip("transformers")
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", *"abcdefghijklmnopqrstuvwxyz'", *(f"##{c}" for c in "etaonihsrdlu")]
    (tmp_path / "bert").mkdir()
    (tmp_path / "bert" / "vocab.txt").write_text("\n".join(words))
    tokenizer = transformers.BertTokenizer(str(tmp_path / "bert" / "vocab.txt"))
    tokenizer.save_pretrained(tmp_path / "bert")
    shape = {"hidden_size": 768, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 32}
    bert = transformers.BertModel(transformers.BertConfig(vocab_size=len(words), **shape)).eval()
    bert.save_pretrained(tmp_path / "bert")
    monkeypatch.setitem(TEXT_TEACHERS, "bert-base-uncased", str(tmp_path / "bert"))

    audio = 0.3 * torch.randn(2, 1, 3200, generator=torch.Generator().manual_seed(0))
    distillation = SemanticDistillation("bert-base-uncased", dim=8).train()
    with torch.no_grad():
        logits = recognizer(audio[:, 0])[0][..., [0, *range(4, 32)]]
        texts = [spoken(item) for item in logits.argmax(-1)]
        inputs = tokenizer(texts, padding="max_length", truncation=True, max_length=9, return_tensors="pt")
        states = bert(**inputs, output_hidden_states=True).hidden_states
    features = distillation.teacher(audio)
    assert features.shape == (2, 9, 768) and len(states) == 3
    torch.testing.assert_close(features, sum(states) / 3, rtol=1e-4, atol=1e-4)
    quantized = torch.randn(2, 8, 10, requires_grad=True)
    distillation(quantized, audio).backward()
    assert quantized.grad.abs().max() > 0
    assert list(distillation.state_dict()) == ["project.weight", "project.bias"]


# Features of semantic tokenizers


@pytest.mark.usefixtures("tiny_teachers")
def test_features_are_compared_with_those_of_the_same_patches():
    loss = FeatureDistillation("clip-vit-base-patch16-projected")
    images = torch.rand(2, 3, 224, 224)
    expected = loss.teacher.patches(images)
    assert loss(3 * expected, images) == pytest.approx(0, abs=1e-6)
    assert loss(-expected, images) == pytest.approx(2, abs=1e-6)
    features = torch.randn(2, 196, 512, requires_grad=True)
    plain = [
        1 - float(torch.dot(a, b) / (a.norm() * b.norm()))
        for a, b in zip(features[0].detach(), expected[0], strict=True)
    ]
    assert float(loss(features[:1], images[:1]).detach()) == pytest.approx(sum(plain) / 196, abs=1e-5)
    loss(features, images).backward()
    assert features.grad is not None and features.grad.abs().sum() > 0
    with pytest.raises(InputError, match=r"features are \[2, 256, 512\], the teacher's \[2, 196, 512\]"):
        loss(torch.zeros(2, 256, 512), images)


@pytest.mark.usefixtures("tiny_teachers")
def test_an_embedding_is_compared_with_that_of_the_whole_image():
    loss = EmbeddingDistillation("clip-vit-huge-patch14-laion2b")
    images = torch.rand(2, 3, 224, 224)
    embedding = (loss.teacher(images) + 0.5).requires_grad_()
    distance = loss(embedding, images)
    assert distance.item() == pytest.approx(0.25, abs=1e-4)
    distance.backward()
    assert embedding.grad is not None and embedding.grad.abs().sum() > 0
    with pytest.raises(InputError, match=r"features are \[2, 16\], the teacher's \[2, 1024\]"):
        loss(torch.zeros(2, 16), images)
