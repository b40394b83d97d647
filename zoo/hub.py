"""Where weights come from and where they go: the package, this machine, the Hub.

A saved tokenizer is `config.json` (class, arguments and spec), `model.safetensors` (its tensors; the same
description is in the metadata, so that the file alone says what it is) and `README.md`, the card.
An authors' file is converted once and kept beside the Hub's cache; later loads map the converted one.
"""

from __future__ import annotations

import inspect
import json
import re
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from functools import cache
from importlib.resources import files
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, Self

import torch
from huggingface_hub import (
    HfApi,
    ModelCard,
    ModelCardData,
    ModelHubMixin,
    constants,
    get_token,
    hf_hub_download,
    try_to_load_from_cache,
)

# HTTPError is the base of what the client's HTTP library raises, whichever that is.
from huggingface_hub.errors import (
    GatedRepoError,
    HfHubHTTPError,
    HTTPError,
    RemoteEntryNotFoundError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

import zoo
from zoo import registry
from zoo.checkpoints import assign, check_state, read_checkpoint, read_metadata, without_storage, write_checkpoint
from zoo.errors import CheckpointError, MediaError, PublishError, WeightsUnavailableError
from zoo.files import atomic_path
from zoo.registry import HubSource, PackageSource, Variant

if TYPE_CHECKING:
    from torch import Tensor

    from zoo.tokenizer import Tokenizer, TokenizerSpec

NAMESPACE = "tokenizer-zoo"  # on the Hub: our converted weights of the variants
SHIPPED = Path(str(files("zoo") / "weights"))
CONFIG, WEIGHTS, CARD = "config.json", "model.safetensors", "README.md"
REPOSITORY = re.compile(r"[\w-][\w.-]*/[\w-][\w.-]*")
NON_COMMERCIAL = re.compile(r"\bnc\b|non-?commercial", re.IGNORECASE)

# Licences that the Hub has an identifier for, as far as tokenizers come under them.
HUB_LICENSES = (
    *("mit", "apache-2.0", "bsd-2-clause", "bsd-3-clause", "gpl-3.0", "agpl-3.0", "openrail", "cc0-1.0"),
    *("cc-by-4.0", "cc-by-sa-4.0", "cc-by-nc-4.0", "cc-by-nc-sa-4.0", "cc-by-nc-nd-4.0"),
)


# Loading and saving


def load(
    name: str | Path,
    *,
    weights: str | Path | None = None,
    device: str | torch.device = "cpu",
    dtype: torch.dtype | None = None,
) -> Tokenizer:
    """What `zoo.load` does; see there."""
    saved = None if weights is not None or _is_variant(name) else _find_saved(name)
    if saved is not None:
        tokenizer = _load_saved(saved, dtype)
    else:
        variant = registry.info(str(name))
        tokenizer = _network(variant)
        if weights is not None:
            state = _local_weights(variant, Path(weights), tokenizer)
        else:
            state = _found_weights(variant, tokenizer)
        assign(tokenizer, state, dtype)
    _warn_if_non_commercial(tokenizer.spec)
    return tokenizer.to(device).eval()


def load_into(tokenizer: Tokenizer, name: str, weights: str | Path) -> None:
    """Copy weights into a network that is there already, all of its tensors or none.

    Args:
        tokenizer: of the variant `name`, also with another config or spec.
        weights: a file, as `load(name, weights=...)` takes it, or the name of a variant whose weights fit; those are
            found as `load` finds them.

    Raises:
        WeightsUnavailableError.
        CheckpointError: no such file or variant, or tensors missing, unexpected or of another shape.
    """
    if _is_variant(str(weights)):
        variant = registry.info(str(weights))
        state = _found_weights(variant, _network(variant))
        check_state(state, tokenizer.state_dict(), f"the weights of {variant.name} in a {name}")
    elif not Path(weights).is_file():
        raise CheckpointError(f"{weights}: no such file, and no variant has that name")
    else:
        variant = registry.info(name)
        state = _local_weights(variant, Path(weights), tokenizer)
    tokenizer.load_state_dict(state)
    _warn_if_non_commercial(variant.spec)


def pull(name: str) -> Path:
    """Fetch a variant's weights, converted where they are the authors', or a repository; no network is built of them.

    Args:
        name: variant, alias or Hub repository `owner/name`.

    Returns:
        The file that `load(name)` reads from now on, without the Hub.

    Raises:
        UnknownTokenizerError, WeightsUnavailableError, CheckpointError.
        MediaError: the converted file cannot be written.
    """
    if not _is_variant(name) and REPOSITORY.fullmatch(name):
        return _fetch_saved(name) / WEIGHTS
    variant = registry.info(name)
    if isinstance(variant.hub, PackageSource):
        return _packaged(variant.hub)
    return _variant_weights(variant, _network(variant))


def describe(tokenizer: Tokenizer) -> dict[str, Any]:
    """All that it takes to build the network again, as `config.json` holds it.

    Raises:
        CheckpointError: an argument of the architecture that JSON cannot hold.
    """
    arguments = tokenizer.arguments()
    try:
        json.dumps(arguments)
    except (TypeError, ValueError) as error:
        raise CheckpointError(f"{tokenizer.spec.name}: JSON cannot hold its arguments ({error})") from None
    return {
        "architecture": type(tokenizer).__name__,
        "spec": asdict(tokenizer.spec),
        "config": arguments,
        "zoo": zoo.__version__,
    }


def build(description: Mapping[str, Any]) -> Tokenizer:
    """The network that `describe` describes, with random weights.

    Raises:
        UnknownTokenizerError: a class that no registered variant has.
        TypeError: arguments or facts that the class does not take.
    """
    from zoo.tokenizer import TokenizerSpec

    architecture = registry.architecture(description["architecture"])
    return architecture(TokenizerSpec(**_tuples(description["spec"])), **_tuples(description["config"]))


def _is_variant(name: str | Path) -> bool:
    return name in registry.list_tokenizers() or name in registry.aliases()


def _network(variant: Variant) -> Tokenizer:
    with without_storage():
        return variant.builder(variant.spec, **variant.config)


def _find_saved(name: str | Path, **options: Any) -> Path | None:
    """The folder or file that `name` is, or a repository's folder in the Hub's cache; None for a bare name."""
    path = Path(name)
    if path.exists():
        return path
    if isinstance(name, str) and REPOSITORY.fullmatch(name):
        return _fetch_saved(name, **options)
    if isinstance(name, Path) or path.name != name or path.suffix == ".safetensors":
        raise CheckpointError(f"{name}: no such file or folder")
    return None


def _load_saved(path: Path, dtype: torch.dtype | None, wanted: type | None = None) -> Tokenizer:
    description = _read_description(path)
    architecture = registry.architecture(description["architecture"])
    if wanted is not None and not issubclass(architecture, wanted):
        raise CheckpointError(
            f"{path}: expected a {wanted.__name__}, found a {architecture.__name__}; "
            f"{architecture.__name__}.from_pretrained or zoo.load reads it"
        )
    try:
        with without_storage():
            tokenizer = build(description)
    except TypeError as error:
        version = description.get("zoo", "unknown")
        raise CheckpointError(f"{path}: written by zoo {version}, this is {zoo.__version__}: {error}") from None
    weights = path / WEIGHTS if path.is_dir() else path
    state = read_checkpoint(weights)
    check_state(state, tokenizer.state_dict(), str(weights))
    assign(tokenizer, state, dtype)
    return tokenizer


def _read_description(path: Path) -> dict[str, Any]:
    if path.is_dir():
        try:
            description = json.loads((path / CONFIG).read_text(encoding="utf-8"))
        except FileNotFoundError:
            raise CheckpointError(f"{path}: no {CONFIG}; expected a folder that save_pretrained wrote") from None
        except ValueError as error:
            raise CheckpointError(f"{path / CONFIG}: not JSON ({error})") from None
    else:
        description = _description(read_metadata(path))
    if not isinstance(description, dict) or not {"architecture", "spec", "config"} <= description.keys():
        raise CheckpointError(
            f"{path}: says of no zoo tokenizer; zoo.load(NAME, weights=...) reads the authors' file of a variant"
        )
    return description


def _metadata(description: Mapping[str, Any]) -> dict[str, str]:
    return {key: value if isinstance(value, str) else json.dumps(value) for key, value in description.items()}


def _description(metadata: Mapping[str, str]) -> dict[str, Any]:
    return {key: json.loads(value) if key in ("spec", "config") else value for key, value in metadata.items()}


def _tuples(value: Any) -> Any:
    """JSON's lists as the tuples that they were."""
    if isinstance(value, dict):
        return {key: _tuples(item) for key, item in value.items()}
    return tuple(map(_tuples, value)) if isinstance(value, list) else value


def _local_weights(variant: Variant, path: Path, network: Tokenizer) -> Mapping[str, Tensor]:
    """The tensors of a file that the user names: ours as they are, the authors' through the key map."""
    metadata = read_metadata(path) if path.suffix == ".safetensors" else {}
    packaged = isinstance(variant.hub, PackageSource) and path.suffix != ".safetensors"
    state = variant.hub.read(path) if packaged else read_checkpoint(path)
    if "zoo" not in metadata and variant.keys is not None:
        return variant.keys.convert(state, network.state_dict(), str(path))
    saved, wanted = _description(metadata), describe(network)
    for key in ("architecture", "config"):
        if key in saved and _tuples(saved[key]) != _tuples(wanted[key]):
            raise CheckpointError(f"{path}: {key} is {saved[key]}, not {wanted[key]}; nothing was loaded")
    check_state(state, network.state_dict(), str(path))
    return state


def _found_weights(variant: Variant, network: Tokenizer) -> Mapping[str, Tensor]:
    """The variant's own tensors, from the package or the Hub; `network` is the variant's."""
    if isinstance(variant.hub, PackageSource):
        return _local_weights(variant, _packaged(variant.hub), network)
    path = _variant_weights(variant, network)
    state = read_checkpoint(path)
    check_state(state, network.state_dict(), str(path))
    return state


def allows_commercial_use(spec: TokenizerSpec) -> bool:
    """Whether the licence of the weights, as the authors state it, does not forbid commercial use."""
    return not NON_COMMERCIAL.search(spec.weights_license)


def _warn_if_non_commercial(spec: TokenizerSpec) -> None:
    if not allows_commercial_use(spec):
        _warn_once(f"the weights of {spec.name} are under {spec.weights_license}: not for commercial use")


@cache
def _warn_once(message: str) -> None:
    warnings.warn(message, stacklevel=5)


# Finding and fetching


def _variant_weights(variant: Variant, network: Tokenizer) -> Path:
    """The safetensors file with the variant's weights; what is on this machine goes before the network."""
    if (shipped := _shipped(variant)).is_file():
        return shipped
    ours, published = HubSource(f"{NAMESPACE}/{variant.name}", WEIGHTS), variant.hub
    for path in (_cached(ours), *_conversions(variant)):
        if path is not None and _fits(path, network):
            return path
    if published is None or not (path := _cached(published)):
        with _fetching(published or ours, variant.name, variant.spec.modality):
            converted = published is None or HfApi().file_exists(ours.repo, ours.filename)
        source = ours if converted else published
        with _fetching(source, variant.name, variant.spec.modality):
            path = Path(hf_hub_download(source.repo, source.filename, revision=source.revision))
        if converted:
            return path
    return _convert(variant, path, network)


def _packaged(source: PackageSource) -> Path:
    path = Path(str(files(source.package) / source.filename))
    if not path.is_file():
        raise WeightsUnavailableError(f"the installed {source.package} has no file {source.filename}")
    return path


def _shipped(variant: Variant) -> Path:
    return SHIPPED / f"{variant.name}.safetensors"


def _cached(source: HubSource) -> Path | None:
    path = try_to_load_from_cache(source.repo, source.filename, revision=source.revision)
    return Path(path) if isinstance(path, str) else None


def _conversion(variant: Variant, commit: str) -> Path:
    return Path(constants.HF_HUB_CACHE).parent / "zoo" / f"{variant.name}-{commit}.safetensors"


def _conversions(variant: Variant) -> list[Path]:
    """The variant's files that were converted on this machine, the newest first."""
    if variant.hub is None:
        return []
    pinned = re.fullmatch("[0-9a-f]{40}", variant.hub.revision)
    pattern = _conversion(variant, variant.hub.revision if pinned else "[0-9a-f]" * 40)
    return sorted(pattern.parent.glob(pattern.name), key=lambda path: path.stat().st_mtime, reverse=True)


def _fits(path: Path, network: Tokenizer) -> bool:
    """Whether a cached file is whole and not by a version of zoo that named tensors otherwise."""
    try:
        check_state(read_checkpoint(path), network.state_dict(), str(path))
    except CheckpointError:
        return False
    return True


def _convert(variant: Variant, published: Path, network: Tokenizer) -> Path:
    """The authors' file in the Hub's cache as a safetensors file of ours; neither is ever held in memory whole."""
    if variant.keys is None:
        raise CheckpointError(f"{variant.name}: no key map says how to read {variant.hub.filename}")
    commit = published.parents[variant.hub.filename.count("/")].name
    source = {
        "repository": variant.hub.repo,
        "file": variant.hub.filename,
        "commit": commit,
        "etag": published.resolve().name if published.is_symlink() else "",
    }
    state = variant.keys.convert(read_checkpoint(published), network.state_dict(), str(published))
    path = _conversion(variant, commit)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise MediaError(f"{path.parent}: cannot be written ({error.strerror})") from error
    with atomic_path(path, overwrite=True) as temporary:
        write_checkpoint(temporary, state, _metadata(describe(network)) | source)
    return path


def _fetch_saved(
    repo: str,
    *,
    revision: str | None = None,
    token: str | bool | None = None,
    cache_dir: str | Path | None = None,
    force_download: bool = False,
    local_files_only: bool = False,
) -> Path:
    """The folder in the Hub's cache that holds a repository's description and weights, of one commit."""
    options = {
        "token": token,
        "cache_dir": cache_dir,
        "force_download": force_download,
        "local_files_only": local_files_only,
    }
    with _fetching(HubSource(repo, CONFIG, revision or "main"), repo):
        folder = Path(hf_hub_download(repo, CONFIG, revision=revision, **options)).parent
    with _fetching(HubSource(repo, WEIGHTS, folder.name), repo):
        hf_hub_download(repo, WEIGHTS, revision=folder.name, **options)
    return folder


@contextmanager
def _fetching(source: HubSource, name: str, modality: str | None = None) -> Iterator[None]:
    """Turns whatever the Hub's client raises into an error that says what is needed and how to get it."""
    try:
        yield
    except Exception as error:
        needed = f"{name} needs {source.filename} of {source.repo}"
        raise WeightsUnavailableError(f"{needed}, {_why_not(error, source, name, modality)}") from error


def _why_not(error: Exception, source: HubSource, name: str, modality: str | None) -> str:
    if isinstance(error, GatedRepoError):
        page = f"{constants.ENDPOINT}/{source.repo}"
        return f"which is gated: accept its licence at {page}, then log in with `hf auth login`"
    if isinstance(error, RepositoryNotFoundError):
        return f"which {constants.ENDPOINT} does not show; if it is private, log in with `hf auth login`"
    if isinstance(error, RevisionNotFoundError):
        return f"which has no revision {source.revision!r}"
    if isinstance(error, RemoteEntryNotFoundError):
        return f"where there is no such file at revision {source.revision!r}"
    if isinstance(error, HfHubHTTPError):
        hint = "; log in anew with `hf auth login`" if error.response.status_code in (401, 403) else ""
        return f"but {constants.ENDPOINT} answered {error.response.status_code}{hint}"
    if "Consistency check failed" in str(error):
        return "but the download ended before the file did; nothing was kept, try again"
    if isinstance(error, OSError) and error.errno:
        return f"which cannot be stored: {error.strerror}"
    cause = str(error.__cause__ or error).partition("\n")[0]
    why = "HF_HUB_OFFLINE is set" if constants.HF_HUB_OFFLINE else f"{constants.ENDPOINT} is out of reach ({cause})"
    variants = (registry.info(other) for other in registry.list_tokenizers(modality=modality))
    shipped = [variant.name for variant in variants if _shipped(variant).is_file()]
    return (
        f"which is not on this machine, and {why}; where there is a network, `zoo pull {name}` fetches it "
        f"ahead; without one these work: {', '.join(shipped) if shipped else 'none'}"
    )


# The interface of every tokenizer


class HubMixin(ModelHubMixin):
    """`save_pretrained`, `from_pretrained` and `push_to_hub`, as Hub libraries have them.

    What a tokenizer is built with is recorded, to be saved; a class needs no line of its own for that.
    """

    spec: TokenizerSpec
    _arguments: dict[str, Any]

    def __new__(cls, *args: Any, **kwargs: Any) -> Self:
        tokenizer = super().__new__(cls, *args, **kwargs)
        built_with = inspect.signature(cls.__init__).bind_partial(tokenizer, *args, **kwargs)
        built_with.apply_defaults()
        tokenizer._arguments = {k: v for k, v in built_with.arguments.items() if k not in ("self", "spec")}
        return tokenizer

    def arguments(self) -> dict[str, Any]:
        """What the class takes beside the spec to build this network again, as `config.json` holds it.

        Raises:
            CheckpointError: a network that arguments cannot describe.
        """
        return dict(self._arguments)

    def save_pretrained(
        self,
        save_directory: str | Path,
        *,
        repo_id: str | None = None,
        push_to_hub: bool = False,
        **push_to_hub_kwargs: Any,
    ) -> str | None:
        """Write `config.json`, `model.safetensors` and the card `README.md`; files there are replaced whole.

        Args:
            save_directory: made if need be.
            repo_id: the repository that the card tells users to load from; None: the folder.
            push_to_hub: also push, to `repo_id` or a repository named like the folder.
            push_to_hub_kwargs: of `push_to_hub`.

        Returns:
            What `push_to_hub` returns, if asked for.

        Raises:
            CheckpointError: an argument of the architecture that JSON cannot hold, or a module in it that is no
                tokenizer of zoo.
            MediaError: the folder cannot be written.
            PublishError: as `push_to_hub`.
        """
        folder = Path(save_directory)
        description = describe(self)
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise MediaError(f"{folder}: cannot be written ({error.strerror})") from error
        with (
            atomic_path(folder / CARD, overwrite=True) as card,
            atomic_path(folder / CONFIG, overwrite=True) as config,
            atomic_path(folder / WEIGHTS, overwrite=True) as weights,
        ):
            write_checkpoint(weights, self.state_dict(), _metadata(description))
            config.write_text(json.dumps(description, indent=2) + "\n", encoding="utf-8")
            card.write_text(str(self.generate_model_card(repo_id or "path/to/this/folder")), encoding="utf-8")
        return self.push_to_hub(repo_id or folder.name, **push_to_hub_kwargs) if push_to_hub else None

    @classmethod
    def from_pretrained(
        cls,
        pretrained_model_name_or_path: str | Path,
        *,
        revision: str | None = None,
        token: str | bool | None = None,
        cache_dir: str | Path | None = None,
        force_download: bool = False,
        local_files_only: bool = False,
        device: str | torch.device = "cpu",
        dtype: torch.dtype | None = None,
    ) -> Self:
        """The tokenizer that `save_pretrained` or `push_to_hub` wrote, in eval mode.

        Args:
            pretrained_model_name_or_path: its folder, its weights file or its Hub repository `owner/name`.
            revision: branch, tag or commit; None: main.
            token: of the Hub; None: the one that `hf auth login` keeps.
            cache_dir: instead of the Hub's.
            force_download: also what is in the cache.
            local_files_only: nothing that is not in the cache.
            device: where the weights go.
            dtype: of the weights; None: float32.

        Returns:
            A tokenizer of the saved class, which has to be `cls` or derive from it.

        Raises:
            WeightsUnavailableError, CheckpointError.
            UnknownTokenizerError: a class that no registered variant has.
        """
        path = _find_saved(
            pretrained_model_name_or_path,
            revision=revision,
            token=token,
            cache_dir=cache_dir,
            force_download=force_download,
            local_files_only=local_files_only,
        )
        if path is None:
            raise CheckpointError(f"{pretrained_model_name_or_path}: no such folder; zoo.load takes variants by name")
        tokenizer = _load_saved(path, dtype, cls)
        _warn_if_non_commercial(tokenizer.spec)
        return tokenizer.to(device).eval()

    def push_to_hub(
        self,
        repo_id: str,
        *,
        commit_message: str = "Push a tokenizer of zoo",
        private: bool | None = None,
        token: str | None = None,
        branch: str | None = None,
        create_pr: bool = False,
    ) -> str:
        """Put weights, description and card into a Hub repository, in one commit; the repository is made if need be.

        Args:
            repo_id: `owner/name`, or `name` for one's own.
            commit_message: of the commit.
            private: whether a new repository is private; None: as the owner's settings are.
            token: with write access; None: the one that `hf auth login` keeps.
            branch: to commit to; None: main.
            create_pr: propose the commit as a pull request instead.

        Returns:
            The address of the commit.

        Raises:
            PublishError: no token, one without write access, or a Hub that cannot be reached.
            CheckpointError: an argument of the architecture that JSON cannot hold.
        """
        token = token or get_token()
        if token is None:
            raise PublishError(f"pushing to {repo_id} needs a token with write access: `hf auth login`, or token=...")
        describe(self)  # raises before there is a repository
        api = HfApi(token=token)
        with _publishing(repo_id):
            repo_id = api.create_repo(repo_id, private=private, exist_ok=True).repo_id
        with TemporaryDirectory() as folder:
            self.save_pretrained(folder, repo_id=repo_id)
            with _publishing(repo_id):
                return api.upload_folder(
                    repo_id=repo_id,
                    folder_path=folder,
                    commit_message=commit_message,
                    revision=branch,
                    create_pr=create_pr,
                )

    def generate_model_card(self, source: str) -> ModelCard:
        """The card, its figures and licences from the spec; `source` is what `zoo.load` is to be given."""
        return ModelCard(f"---\n{_card_data(self.spec).to_yaml()}\n---\n\n{_card_text(self, source)}")


@contextmanager
def _publishing(repo_id: str) -> Iterator[None]:
    try:
        yield
    except HfHubHTTPError as error:
        status = error.response.status_code
        hint = "; the token needs write access to it" if status in (401, 403) else ""
        raise PublishError(f"{constants.ENDPOINT} refused the push to {repo_id} ({status}){hint}") from error
    except (HTTPError, OSError, ValueError, RuntimeError) as error:
        raise PublishError(f"the push to {repo_id} failed: {error}") from error


def _card_data(spec: TokenizerSpec) -> ModelCardData:
    tags = ["tokenizer", "discrete-tokenizer", spec.modality, spec.quantizer]
    license = spec.weights_license.lower().replace(" ", "-")
    if license in HUB_LICENSES:
        return ModelCardData(license=license, library_name=NAMESPACE, tags=tags)
    if license == "not-stated":
        return ModelCardData(license="unknown", library_name=NAMESPACE, tags=tags)
    return ModelCardData(
        license="other", license_name=license, license_link=spec.source, library_name=NAMESPACE, tags=tags
    )


def _card_text(tokenizer: HubMixin, source: str) -> str:
    spec = tokenizer.spec
    published = registry.info(spec.name).figures if _is_variant(spec.name) else {}
    facts = {
        "architecture": type(tokenizer).__name__,
        "quantizer": spec.quantizer,
        "codebook sizes": ", ".join(map(str, spec.codebook_sizes)),
        "one grid position per": " x ".join(map(str, spec.downsample)),
        "bits per position": f"{spec.bits_per_position:g}",
        "sample rate": spec.sample_rate and f"{spec.sample_rate} Hz",
        "tokens per second": spec.tokens_per_second and f"{spec.tokens_per_second:g}",
        "bits per second": spec.bits_per_second and f"{spec.bits_per_second:g}",
        "resolution": spec.resolution and " x ".join(map(str, spec.resolution)),
        **{f"{figure} (reported by the authors, {spec.paper})": f"{value:g}" for figure, value in published.items()},
    }
    rows = "\n".join(f"| {fact} | {value} |" for fact, value in facts.items() if value)
    return f"""# {spec.name}

A discrete tokenizer ({spec.modality}) for [zoo](https://pypi.org/project/{NAMESPACE}/).

| | |
| --- | --- |
{rows}

## Use

```python
import zoo

tokenizer = zoo.load("{source}")
x = tokenizer.preprocess(path)
codes = tokenizer.encode(x)  # int64 [1, {spec.num_codebooks}, ...]
x = tokenizer.decode(codes)
```

## Licences

Weights: {spec.weights_license}. Code of the architecture: {spec.code_license}.
Paper: {spec.paper}. Source: {spec.source}.
"""
