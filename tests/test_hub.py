"""Publishing, fetching and loading, end to end through huggingface_hub against a server on loopback."""

import errno
import importlib
import json
import signal
import subprocess
import sys
import warnings
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from huggingface_hub import ModelCard, constants
from safetensors import safe_open
from safetensors.torch import load_file, save_file

import zoo
from tests.support.tiny_variant import PUBLISHED, register_tiny
from zoo import index, registry
from zoo.checkpoints import without_storage
from zoo.parity import synthetic_checkpoint
from zoo.saved import as_tuples

POSIX = pytest.mark.skipif(sys.platform == "win32", reason="Windows knows no signal that kills, and no locks")


@pytest.fixture
def variant(registrations, monkeypatch):
    """`tiny-wetok`, as if it were one of zoo's."""
    monkeypatch.setitem(index.read().variants, "tiny-wetok", "zoo.models.image.wetok")
    return register_tiny()


@pytest.fixture
def image():
    return torch.rand(1, 3, 16, 16, generator=torch.Generator().manual_seed(0))


def build(variant, seed=0):
    torch.manual_seed(seed)
    return variant.builder(variant.spec, **variant.config).eval()


def authors_file(variant, path: Path) -> Path:
    """A checkpoint in the authors' layout, as `torch.save` writes it."""
    with without_storage():
        network = variant.builder(variant.spec, **variant.config)
    tensors = {
        variant.keys.published_key(key)[0]: {"shape": list(tensor.shape), "dtype": "float32"}
        for key, tensor in network.state_dict().items()
    }
    torch.save(synthetic_checkpoint({"tensors": tensors, "layout": variant.keys.layout}), path)
    return path


@pytest.fixture
def published(server, variant, tmp_path):
    """The authors' repository, with one file; its commit."""
    content = authors_file(variant, tmp_path / "tiny.ckpt").read_bytes()
    return server.add("authors/tiny", {PUBLISHED: content, "README.md": b"# tiny"})


def conversions() -> list[Path]:
    return sorted((Path(constants.HF_HOME) / "zoo").glob("*"))


def files_in(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file() and path.suffix not in (".lock", ".TAG")]


# Publishing


def test_a_pushed_tokenizer_gives_the_same_codes_when_loaded_from_the_hub(server, variant, image):
    tokenizer = build(variant)
    address = tokenizer.push_to_hub("writer/mine", token="writer")
    assert address == f"{server.url}/writer/mine/commit/{server.repositories['writer/mine'].commits[-1][0]}"
    codes = tokenizer.encode(image)
    for loaded in (zoo.load("writer/mine"), zoo.Tokenizer.from_pretrained("writer/mine")):
        assert type(loaded) is type(tokenizer)
        assert loaded.spec == tokenizer.spec
        assert not loaded.training
        assert torch.equal(loaded.encode(image), codes)
        assert torch.equal(loaded.decode(codes), tokenizer.decode(codes))


def test_a_pushed_repository_holds_weights_description_and_a_card_that_the_hub_accepts(server, variant):
    build(variant).push_to_hub("writer/mine", token="writer")
    _, files = server.repositories["writer/mine"].commits[-1]
    assert {"README.md", "config.json", "model.safetensors"} < files.keys()
    assert "POST /api/validate-yaml" in server.requests
    card = ModelCard(files["README.md"].decode())
    assert (card.data.license, card.data.library_name) == ("mit", "tokenizer-zoo")
    assert {"image", "grouped-lfq"} < set(card.data.tags)
    assert 'zoo.load("writer/mine")' in card.text
    assert f"rFID, ImageNet 256x256 (reported by the authors, {variant.spec.paper}) | 0.74" in card.text


def test_what_is_pushed_of_a_registered_variant_is_its_hand_written_card(server, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "writer")
    zoo.push("one-d-piece-nano", "writer/mine")
    pushed = ModelCard(server.repositories["writer/mine"].commits[-1][1]["README.md"].decode())
    ours = ModelCard.load(zoo.info("one-d-piece-nano").card_file)
    assert (pushed.text, pushed.data.to_dict()) == (ours.text, ours.data.to_dict())
    assert "POST /api/validate-yaml" in server.requests


@pytest.mark.parametrize(
    ("stated", "metadata"),
    [
        ("Apache-2.0", {"license": "apache-2.0"}),
        ("not stated", {"license": "unknown"}),
        ("Adobe Research License", {"license": "other", "license_name": "adobe-research-license"}),
    ],
)
def test_every_weights_license_makes_a_card_that_the_hub_accepts(server, variant, stated, metadata):
    tokenizer = build(variant)
    tokenizer.spec = replace(variant.spec, weights_license=stated)
    tokenizer.push_to_hub("writer/mine", token="writer")
    card = ModelCard(server.repositories["writer/mine"].commits[-1][1]["README.md"].decode())
    assert metadata.items() <= card.data.to_dict().items()


def test_an_earlier_revision_can_still_be_loaded_after_another_push(server, variant, image):
    first, second = build(variant, seed=1), build(variant, seed=2)
    revision = first.push_to_hub("writer/mine", token="writer").rpartition("/")[2]
    second.push_to_hub("writer/mine", token="writer")
    earlier = zoo.Tokenizer.from_pretrained("writer/mine", revision=revision)
    assert torch.equal(earlier.encode(image), first.encode(image))
    assert torch.equal(zoo.load("writer/mine").encode(image), second.encode(image))


def test_pushing_without_a_token_is_refused_before_anything_is_sent(server, variant):
    with pytest.raises(zoo.PublishError, match=r"writer/mine needs a token with write access: `hf auth login`"):
        build(variant).push_to_hub("writer/mine")
    assert server.requests == []


def test_pushing_with_a_token_that_may_not_write_says_so(server, variant):
    with pytest.raises(zoo.PublishError, match=r"refused the push to other/mine \(403\); the token needs write access"):
        build(variant).push_to_hub("other/mine", token="reader")


def test_save_pretrained_pushes_when_asked(server, variant, tmp_path):
    build(variant).save_pretrained(tmp_path / "mine", push_to_hub=True, token="writer")
    assert "writer/mine" in server.repositories


# The authors' files


def test_an_authors_file_is_converted_once_and_then_loads_without_the_hub(server, variant, published, image):
    codes = zoo.load("tiny-wetok").encode(image)
    (converted,) = conversions()
    written = converted.stat().st_mtime_ns
    server.stop()
    assert torch.equal(zoo.load("tiny-wetok").encode(image), codes)
    assert conversions() == [converted]
    assert converted.stat().st_mtime_ns == written


def test_a_conversion_says_where_it_came_from(server, variant, published):
    path = zoo.pull("tiny-wetok")
    assert path == Path(constants.HF_HOME) / "zoo" / f"tiny-wetok-{published}.safetensors"
    with safe_open(path, "pt") as file:
        metadata = file.metadata()
    assert json.loads(metadata["spec"])["name"] == "tiny-wetok"
    assert metadata["zoo"] == zoo.__version__
    etag = next(iter(server.large))
    expected = {"repository": "authors/tiny", "file": PUBLISHED, "commit": published, "etag": etag}
    assert expected.items() <= metadata.items()


def test_a_conversion_is_a_tokenizer_file_by_itself(server, variant, published, image):
    path = zoo.pull("tiny-wetok")
    assert torch.equal(zoo.load(path).encode(image), zoo.load("tiny-wetok").encode(image))


def test_pulling_fetches_ahead_what_loading_needs(server, variant, published):
    zoo.pull("tiny-wetok")
    build(variant).push_to_hub("writer/mine", token="writer")
    zoo.pull("writer/mine")
    server.stop()
    zoo.load("tiny-wetok")
    zoo.load("writer/mine")


def test_an_authors_file_that_is_in_the_cache_already_is_converted_without_the_hub(server, variant, published):
    zoo.pull("tiny-wetok").unlink()
    server.stop()
    zoo.load("tiny-wetok")


def run_apart(*arguments: str) -> subprocess.Popen:
    return subprocess.Popen([sys.executable, "-m", "tests.support.killed", *arguments], stderr=subprocess.PIPE)


@POSIX
def test_a_conversion_that_was_killed_leaves_nothing_that_loads_or_lasts(server, variant, published, image):
    process = run_apart("while-writing", "convert")
    assert process.wait() == -signal.SIGKILL, process.communicate()
    (leftover,) = conversions()
    assert leftover.read_bytes() == b"half"
    path = zoo.pull("tiny-wetok")
    assert conversions() == [path]
    zoo.load("tiny-wetok").encode(image)


@POSIX
def test_two_conversions_at_once_both_give_the_file(server, variant, published, image):
    processes = [run_apart("as-usual", "convert") for _ in range(2)]
    assert [process.wait() for process in processes] == [0, 0], [process.communicate() for process in processes]
    (path,) = conversions()
    assert torch.equal(zoo.load(path).encode(image), zoo.load("tiny-wetok").encode(image))


def test_a_conversion_that_finds_no_room_is_an_error_and_leaves_nothing(server, variant, published, monkeypatch):
    def full(path, *_):
        Path(path).write_bytes(b"half")
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("zoo.fetching.write_checkpoint", full)
        with pytest.raises(zoo.MediaError, match=r"tiny-wetok-.*cannot be written: No space left on device"):
            zoo.pull("tiny-wetok")
    assert conversions() == []
    zoo.pull("tiny-wetok")


def test_a_conversion_with_other_tensors_is_made_anew(server, variant, published, image):
    path = zoo.pull("tiny-wetok")
    codes = zoo.load("tiny-wetok").encode(image)
    save_file({"of.an.older.version": torch.zeros(1)}, path)
    assert torch.equal(zoo.load("tiny-wetok").encode(image), codes)


def test_our_converted_repository_goes_before_the_authors_file(server, variant, published, image):
    ours = build(variant, seed=3)
    ours.save_pretrained(Path(constants.HF_HOME) / "ours")
    content = (Path(constants.HF_HOME) / "ours" / "model.safetensors").read_bytes()
    server.add("tokenizer-zoo/tiny-wetok", {"model.safetensors": content})
    assert torch.equal(zoo.load("tiny-wetok").encode(image), ours.encode(image))
    assert conversions() == []
    server.stop()
    assert torch.equal(zoo.load("tiny-wetok").encode(image), ours.encode(image))


def test_shipped_weights_go_before_the_hub_and_load_in_float32(server, variant, image, tmp_path):
    save_file(build(variant).half().state_dict(), tmp_path / "shipped.safetensors")
    zoo.register(zoo.replace(variant, "shipped", hub=variant.hub, weights=str(tmp_path / "shipped.safetensors")))
    tokenizer = zoo.load("shipped")
    assert tokenizer.dtype == torch.float32
    assert zoo.load("shipped", dtype=torch.float16).dtype == torch.float16
    assert server.requests == []


def test_a_file_with_missing_tensors_names_them_and_leaves_no_conversion(server, variant, published):
    checkpoint = torch.load(Path(constants.HF_HOME).parent / "tiny.ckpt")
    del checkpoint["state_dict"]["encoder.conv_out.bias"]
    torch.save(checkpoint, Path(constants.HF_HOME).parent / "other.ckpt")
    server.add("authors/tiny", {PUBLISHED: (Path(constants.HF_HOME).parent / "other.ckpt").read_bytes()})
    with pytest.raises(zoo.CheckpointError, match=r"1 tensor missing \(encoder.conv_out.bias\); nothing was loaded"):
        zoo.load("tiny-wetok")
    assert conversions() == []


# Downloads that go wrong


def test_a_download_whose_connection_breaks_is_resumed_where_it_stopped(server, variant, published, monkeypatch):
    monkeypatch.setattr(constants, "DOWNLOAD_CHUNK_SIZE", 4096)
    server.faults[PUBLISHED] = "drop"
    zoo.load("tiny-wetok")
    downloads = [request for request in server.requests if request.startswith("GET /storage")]
    assert len(downloads) == 2
    assert int(downloads[1].partition("bytes=")[2].rstrip("-")) > 0


def test_a_truncated_download_is_named_and_not_kept(server, variant, published):
    server.faults[PUBLISHED] = "short"
    message = f"tiny-wetok needs {PUBLISHED} of authors/tiny, but the download ended before the file did"
    with pytest.raises(zoo.WeightsUnavailableError, match=message):
        zoo.load("tiny-wetok")
    repository = Path(constants.HF_HUB_CACHE) / "models--authors--tiny"
    assert files_in(repository / "blobs") == files_in(repository / "snapshots") == conversions() == []
    server.faults.clear()
    zoo.load("tiny-wetok")


def test_a_repository_that_is_not_there_is_named(server, variant):
    message = rf"needs {PUBLISHED} of authors/tiny, which {server.url} does not show; .* `hf auth login`"
    with pytest.raises(zoo.WeightsUnavailableError, match=message):
        zoo.load("tiny-wetok")
    with pytest.raises(zoo.WeightsUnavailableError, match=r"config.json of nobody/nothing, which .* does not show"):
        zoo.load("nobody/nothing")


def test_a_file_that_is_not_there_is_named(server, variant):
    server.add("authors/tiny", {"other.ckpt": b""})
    with pytest.raises(zoo.WeightsUnavailableError, match=f"{PUBLISHED} of authors/tiny, where there is no such file"):
        zoo.load("tiny-wetok")


def test_a_revision_that_is_not_there_is_named(server, variant):
    build(variant).push_to_hub("writer/mine", token="writer")
    with pytest.raises(zoo.WeightsUnavailableError, match="writer/mine, which has no revision 'v9'"):
        zoo.Tokenizer.from_pretrained("writer/mine", revision="v9")


@pytest.mark.parametrize("token", [None, "reader"])
def test_a_gated_repository_says_where_to_accept_the_license(server, variant, published, token, monkeypatch):
    server.repositories["authors/tiny"].gated = True
    if token:
        monkeypatch.setenv("HF_TOKEN", token)
    message = rf"gated: accept its license at {server.url}/authors/tiny, then log in with `hf auth login`"
    with pytest.raises(zoo.WeightsUnavailableError, match=message):
        zoo.load("tiny-wetok")
    monkeypatch.setenv("HF_TOKEN", "granted")
    zoo.load("tiny-wetok")


def test_a_cache_that_cannot_be_written_is_named(server, variant, published):
    Path(constants.HF_HOME).write_text("no folder")
    with pytest.raises(zoo.WeightsUnavailableError, match="authors/tiny, which cannot be stored: "):
        zoo.load("tiny-wetok")


def test_without_the_hub_the_error_says_what_is_needed_how_to_get_it_and_what_works(server, variant):
    server.stop()
    with pytest.raises(zoo.WeightsUnavailableError) as caught:
        zoo.load("tiny-wetok")
    assert str(caught.value) == (
        f"tiny-wetok needs {PUBLISHED} of authors/tiny, which is not on this machine, and {server.url} is out "
        "of reach ([Errno 111] Connection refused); where there is a network, `zoo pull tiny-wetok` fetches it ahead; "
        "without one these work: fqgan-nano, one-d-piece-nano, wetok-nano"
    )


def test_offline_mode_is_honoured_and_named(server, variant, published, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    importlib.reload(constants)
    with pytest.raises(zoo.WeightsUnavailableError, match=r"HF_HUB_OFFLINE is set; .* `zoo pull tiny-wetok`"):
        zoo.load("tiny-wetok")
    with pytest.raises(zoo.PublishError, match="HF_HUB_OFFLINE"):
        build(variant).push_to_hub("writer/mine", token="writer")
    assert server.requests == []


# Files on this machine


def test_saved_weights_come_back_in_float32_unless_another_dtype_is_asked_for(variant, tmp_path, image):
    tokenizer = build(variant).half()
    tokenizer.save_pretrained(tmp_path / "mine")
    assert {tensor.dtype for tensor in load_file(tmp_path / "mine" / "model.safetensors").values()} == {torch.float16}
    loaded = zoo.load(tmp_path / "mine")
    assert loaded.dtype == torch.float32
    assert torch.equal(loaded.encode(image), tokenizer.float().encode(image))
    assert zoo.load(tmp_path / "mine", dtype=torch.bfloat16).dtype == torch.bfloat16


def test_saving_again_replaces_every_file(variant, tmp_path, image):
    build(variant, seed=1).save_pretrained(tmp_path)
    (tmp_path / "README.md").write_text("an old card")
    second = build(variant, seed=2)
    second.save_pretrained(tmp_path)
    assert torch.equal(zoo.load(tmp_path).encode(image), second.encode(image))
    assert "an old card" not in (tmp_path / "README.md").read_text()
    assert {path.name for path in tmp_path.iterdir()} == {"README.md", "config.json", "model.safetensors"}


def test_a_save_that_fails_changes_no_file(variant, tmp_path):
    (tmp_path / "model.safetensors").mkdir()
    (tmp_path / "config.json").write_text("old")
    with pytest.raises(zoo.MediaError, match=r"model\.safetensors"):
        build(variant).save_pretrained(tmp_path)
    assert (tmp_path / "config.json").read_text() == "old"
    assert {path.name for path in tmp_path.iterdir()} == {"config.json", "model.safetensors"}


@POSIX
def test_saving_that_was_killed_leaves_the_earlier_files_or_says_that_they_do_not_belong_together(variant, tmp_path):
    folder = tmp_path / "saved"
    earlier = variant.builder(variant.spec, **{**variant.config, "temperature": 0.5})
    earlier.save_pretrained(folder)
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    process = run_apart("while-writing", "save", str(folder))
    assert process.wait() == -signal.SIGKILL, process.communicate()
    assert before.items() <= {path.name: path.read_bytes() for path in folder.iterdir()}.items()
    zoo.load(folder)

    process = run_apart("after-the-first-file", "save", str(folder))
    assert process.wait() == -signal.SIGKILL, process.communicate()
    with pytest.raises(zoo.CheckpointError, match=r"model\.safetensors and config\.json are of different networks"):
        zoo.load(folder)

    earlier.save_pretrained(folder)
    assert sorted(path.name for path in folder.iterdir()) == ["README.md", "config.json", "model.safetensors"]
    zoo.load(folder)


def test_an_argument_that_json_cannot_hold_is_named_before_anything_is_written(variant, tmp_path):
    class WithAnything(variant.builder):
        def __init__(self, spec, *, anything, **config):
            super().__init__(spec, **config)

    tokenizer = WithAnything(variant.spec, multipliers=(1, 1), width=32, num_blocks=1, anything=torch.zeros(()))
    with pytest.raises(zoo.CheckpointError, match=r"tiny-wetok: JSON cannot hold its arguments .*Tensor"):
        tokenizer.save_pretrained(tmp_path / "mine")
    assert not (tmp_path / "mine").exists()


def test_from_pretrained_on_a_class_takes_no_other_architecture(variant, tmp_path):
    build(variant).save_pretrained(tmp_path)
    assert type(variant.builder.from_pretrained(tmp_path)) is variant.builder
    other = registry.info("wavtokenizer").builder
    with pytest.raises(zoo.CheckpointError, match="expected a WavTokenizer, found a WeTok"):
        other.from_pretrained(tmp_path)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (None, "no config.json; expected a folder that save_pretrained wrote"),
        ("{", "not JSON"),
        ('{"model_type": "bert"}', "is not a zoo tokenizer"),
    ],
)
def test_a_folder_that_holds_no_tokenizer_is_refused(tmp_path, config, message):
    if config:
        (tmp_path / "config.json").write_text(config)
    with pytest.raises(zoo.CheckpointError, match=message):
        zoo.load(tmp_path)


def test_a_description_of_another_version_is_refused_with_both_versions(variant, tmp_path):
    build(variant).save_pretrained(tmp_path)
    description = json.loads((tmp_path / "config.json").read_text())
    description |= {"zoo": "9.0", "config": {**description["config"], "rotary": True}}
    (tmp_path / "config.json").write_text(json.dumps(description))
    with pytest.raises(zoo.CheckpointError, match=rf"written by zoo 9.0, this is {zoo.__version__}: .*'rotary'"):
        zoo.load(tmp_path)


def test_a_safetensors_file_that_does_not_say_what_it_is_needs_the_variants_name(tmp_path):
    save_file({"weight": torch.zeros(1)}, tmp_path / "some.safetensors")
    with pytest.raises(zoo.CheckpointError, match=r"zoo.load\(NAME, weights=...\)"):
        zoo.load(tmp_path / "some.safetensors")


def test_a_path_that_is_not_there_is_no_name(tmp_path):
    for path in (tmp_path / "nothing", f"{tmp_path}/nothing", "nothing.safetensors"):
        with pytest.raises(zoo.CheckpointError, match="no such file or folder"):
            zoo.load(path)
    with pytest.raises(zoo.CheckpointError, match=r"no such folder; zoo\.load takes variants by name"):
        zoo.Tokenizer.from_pretrained("wetok")
    with pytest.raises(zoo.UnknownTokenizerError, match="did you mean 'wetok'"):
        zoo.load("wetuk")


def test_weights_may_be_the_authors_file_or_ours(variant, tmp_path, image):
    codes = zoo.load("tiny-wetok", weights=authors_file(variant, tmp_path / "tiny.ckpt")).encode(image)
    zoo.load("tiny-wetok", weights=tmp_path / "tiny.ckpt").save_pretrained(tmp_path / "mine")
    ours = zoo.load("tiny-wetok", weights=tmp_path / "mine" / "model.safetensors")
    assert torch.equal(ours.encode(image), codes)


def test_weights_of_another_configuration_are_refused(variant, tmp_path):
    other = variant.builder(variant.spec, multipliers=(1, 1), width=32, num_blocks=2)
    other.save_pretrained(tmp_path)
    with pytest.raises(zoo.CheckpointError, match=r"config is .*'num_blocks': 2.*; nothing was loaded"):
        zoo.load("tiny-wetok", weights=tmp_path / "model.safetensors")


def test_non_commercial_weights_warn_once(variant, tmp_path):
    tokenizer = build(variant)
    tokenizer.spec = replace(variant.spec, weights_license="CC-BY-NC-4.0")
    tokenizer.save_pretrained(tmp_path)
    with pytest.warns(UserWarning, match="the weights of tiny-wetok are under CC-BY-NC-4.0: not for commercial use"):
        zoo.load(tmp_path)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        zoo.load(tmp_path)


def test_the_configuration_of_every_variant_survives_json():
    for name in registry.list_tokenizers():
        config = registry.info(name).config
        assert as_tuples(json.loads(json.dumps(config))) == config


def test_a_variant_without_a_key_map_reads_only_our_files(variant, tmp_path):
    zoo.register("no-keys", variant.builder, spec=replace(variant.spec, name=""), config=variant.config)
    with pytest.raises(zoo.CheckpointError, match="tensors missing"):
        zoo.load("no-keys", weights=authors_file(variant, tmp_path / "tiny.pt"))
