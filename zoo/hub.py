"""Publishing: the Hub's interface that every tokenizer has, model cards, and pushing to a repository."""

from __future__ import annotations

import inspect
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, Self, cast

from huggingface_hub import ModelHubMixin
from torch import nn

from zoo import registry
from zoo.arguments import check_types, hints_of
from zoo.checkpoints import write_checkpoint
from zoo.errors import CheckpointError, InputError, MediaError, PublishError
from zoo.files import atomic_path, remove_leftovers
from zoo.inference import for_inference
from zoo.loading import check_placement, find_saved, load
from zoo.registry import CARD, CONFIG, WEIGHTS
from zoo.saved import as_metadata, configuration, load_saved, warn_if_non_commercial
from zoo.spec import TokenizerSpec

if TYPE_CHECKING:
    import torch
    from huggingface_hub import HfApi, ModelCard, ModelCardData


LIBRARY = "tokenizer-zoo"  # on PyPI, and the Hub's `library_name`

# Licenses of tokenizers for which the Hub has an identifier.
HUB_LICENSES = (
    *("mit", "apache-2.0", "bsd-2-clause", "bsd-3-clause", "gpl-3.0", "agpl-3.0", "openrail", "cc0-1.0"),
    *("cc-by-4.0", "cc-by-sa-4.0", "cc-by-nc-4.0", "cc-by-nc-sa-4.0", "cc-by-nc-nd-4.0"),
)


class HubMixin(ModelHubMixin, nn.Module):
    """`save_pretrained`, `from_pretrained` and `push_to_hub`, as other libraries for the Hub have them.

    The arguments that a tokenizer is built with are checked by their type hints, recorded and saved; a class needs no
    code of its own for that. An `int` is a size or a number of things, 0 or more, unless its default is less.
    """

    spec: TokenizerSpec
    card_file: Path | None = None  # the model card that came with the weights, if any did
    # Where `zoo.requantize` has put another: its name and arguments, and the fields of the spec that it changed.
    other_quantizer: Mapping[str, Any] | None = None
    _arguments: dict[str, Any]

    def __new__(cls, *args: Any, **kwargs: Any) -> Self:
        tokenizer = super().__new__(cls, *args, **kwargs)
        signature = inspect.signature(cls.__init__)
        built_with = signature.bind_partial(tokenizer, *args, **kwargs)
        _check_arguments(cls, signature, built_with.arguments)
        built_with.apply_defaults()
        tokenizer._arguments = {k: v for k, v in built_with.arguments.items() if k not in ("self", "spec")}
        return tokenizer

    def arguments(self) -> dict[str, Any]:
        """Return the arguments besides the spec from which the class builds this network, as in `config.json`.

        Another quantizer than that of the class is there as well, as `quantizer`.

        Raises:
            CheckpointError: a network that arguments cannot describe.
        """
        if self.other_quantizer is None:
            return dict(self._arguments)
        return {**self._arguments, "quantizer": dict(self.other_quantizer)}

    def save_pretrained(
        self,
        save_directory: str | Path,
        *,
        repo_id: str | None = None,
        push_to_hub: bool = False,
        **push_to_hub_kwargs: Any,
    ) -> str | None:
        """Write `config.json`, `model.safetensors` and the card `README.md`, each replaced whole if it exists.

        Args:
            save_directory: folder to write to; it is made if it does not exist.
            repo_id: the repository that the card tells users to load from; None: the folder.
            push_to_hub: whether to push as well, to `repo_id` or a repository named like the folder.
            push_to_hub_kwargs: options of `push_to_hub`.

        Returns:
            What `push_to_hub` returns; None if nothing was pushed.

        Raises:
            CheckpointError: an argument of the architecture that JSON cannot hold, or a module in it that is not a
                tokenizer of zoo.
            MediaError: the folder cannot be written.
            PublishError: as `push_to_hub`.
        """
        folder = Path(save_directory)
        saved = configuration(self)
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise MediaError(f"{folder}: cannot be written ({error.strerror})") from error
        remove_leftovers(folder)
        with (
            atomic_path(folder / CARD, overwrite=True) as card,
            atomic_path(folder / CONFIG, overwrite=True) as config,
            atomic_path(folder / WEIGHTS, overwrite=True) as weights,
        ):
            write_checkpoint(weights, self.state_dict(), as_metadata(saved))
            config.write_text(json.dumps(saved, indent=2) + "\n", encoding="utf-8")
            card.write_text(str(self.generate_model_card(repo_id or "path/to/this/folder")), encoding="utf-8")
        return self.push_to_hub(repo_id or folder.name, **push_to_hub_kwargs) if push_to_hub else None

    @classmethod
    def from_pretrained(  # type: ignore[override]  # options that only a network has, and no others
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
        """Return the tokenizer that `save_pretrained` or `push_to_hub` wrote, in eval mode.

        Args:
            pretrained_model_name_or_path: its folder, its weights file or its Hub repository `owner/name`.
            revision: branch, tag or commit; None: main.
            token: access token of the Hub; None: the one that `hf auth login` stored.
            cache_dir: folder of the cache; None: the Hub's.
            force_download: whether files in the cache are downloaded again.
            local_files_only: whether only files in the cache are used.
            device: device of the weights.
            dtype: data type of the weights; None: float32.

        Returns:
            A tokenizer of the saved class, which has to be `cls` or derive from it.

        Raises:
            WeightsUnavailableError: a repository that cannot be fetched.
            CheckpointError: no such folder, not a saved tokenizer, or one of another class.
            UnknownTokenizerError: a class that is not known.
        """
        check_placement(device, dtype)
        path = find_saved(
            pretrained_model_name_or_path,
            revision=revision,
            token=token,
            cache_dir=cache_dir,
            force_download=force_download,
            local_files_only=local_files_only,
        )
        if path is None:
            name = repr(pretrained_model_name_or_path)[:200]
            raise CheckpointError(f"{name}: no such folder; zoo.load takes variants by name")
        tokenizer = load_saved(path, dtype, cls)
        warn_if_non_commercial(tokenizer.spec)
        return cast(Self, for_inference(tokenizer.to(device).eval()))

    def push_to_hub(  # type: ignore[override]  # no options for files that are not ours
        self,
        repo_id: str,
        *,
        commit_message: str = "Push a tokenizer of zoo",
        private: bool | None = None,
        token: str | None = None,
        branch: str | None = None,
        create_pr: bool = False,
    ) -> str:
        """Put weights, configuration and card into a Hub repository, in one commit; a new repository is created.

        Args:
            repo_id: `owner/name`, or `name` for one's own.
            commit_message: message of the commit.
            private: whether a new repository is private; None: as the owner's settings say.
            token: access token with write access; None: the one that `hf auth login` stored.
            branch: branch to commit to; None: main.
            create_pr: whether the commit is proposed as a pull request instead.

        Returns:
            The address of the commit.

        Raises:
            PublishError: no token, one without write access, or a Hub that cannot be reached.
            CheckpointError: an argument of the architecture that JSON cannot hold.
        """
        api = publisher(repo_id, token)
        configuration(self)  # raises before there is a repository
        with publishing(repo_id):
            repo_id = api.create_repo(repo_id, private=private, exist_ok=True).repo_id
        with TemporaryDirectory() as folder:
            self.save_pretrained(folder, repo_id=repo_id)
            with publishing(repo_id):
                return api.upload_folder(
                    repo_id=repo_id,
                    folder_path=folder,
                    commit_message=commit_message,
                    revision=branch,
                    create_pr=create_pr,
                )

    def generate_model_card(self, source: str) -> ModelCard:
        """Return the card that came with the weights, else one made from the spec.

        Args:
            source: what the card tells users to give to `zoo.load`.
        """
        from huggingface_hub import ModelCard

        if self.card_file is not None and self.card_file.is_file():
            return ModelCard.load(self.card_file)
        return ModelCard(f"---\n{_card_data(self.spec).to_yaml()}\n---\n\n{_card_text(self, source)}")


def push(
    name: str | Path,
    repo: str,
    *,
    private: bool | None = None,
    branch: str | None = None,
    create_pr: bool = False,
) -> str:
    """Put a tokenizer with its weights and its card into a Hub repository.

    Args:
        name: variant, alias, saved folder or file, as `zoo.load` takes it.
        repo: `owner/name`, or `name` for one's own.
        private, branch, create_pr: as in `Tokenizer.push_to_hub`.

    Returns:
        The address of the commit.

    Raises:
        As `zoo.load` and `Tokenizer.push_to_hub`.
    """
    tokenizer = load(name)
    return tokenizer.push_to_hub(repo, private=private, branch=branch, create_pr=create_pr)


def _check_arguments(architecture: type, signature: inspect.Signature, arguments: Mapping[str, Any]) -> None:
    """Raise InputError for an argument of another type than the architecture's hint, or for a spec without codes."""
    defaults = {name: parameter.default for name, parameter in signature.parameters.items()}
    least = {name: min(default, 0) if type(default) is int else 0 for name, default in defaults.items()}
    check_types(arguments, hints_of(architecture.__init__), least, architecture.__name__)  # type: ignore[misc]  # a class
    spec = arguments.get("spec")
    if isinstance(spec, TokenizerSpec) and not spec.codebook_sizes:
        raise InputError(f"{architecture.__name__}: expected a spec with codebook_sizes, got none")


def publisher(repo_id: str, token: str | None) -> HfApi:
    """Return the Hub's interface with a token, or the one that is stored; PublishError if there is none."""
    from huggingface_hub import HfApi, get_token

    token = token or get_token()
    if token is None:
        raise PublishError(f"pushing to {repo_id} needs a token with write access: `hf auth login`, or token=...")
    return HfApi(token=token)


@contextmanager
def publishing(repo_id: str) -> Iterator[None]:
    """Raise errors of a push, which the block makes, as PublishError."""
    from huggingface_hub import constants
    from huggingface_hub.errors import HfHubHTTPError, HTTPError

    try:
        yield
    except HfHubHTTPError as error:
        status = error.response.status_code
        hint = "; the token needs write access to it" if status in (401, 403) else ""
        raise PublishError(f"{constants.ENDPOINT} refused the push to {repo_id} ({status}){hint}") from error
    except (HTTPError, OSError, ValueError, RuntimeError) as error:
        raise PublishError(f"the push to {repo_id} failed: {error}") from error


def _card_data(spec: TokenizerSpec) -> ModelCardData:
    from huggingface_hub import ModelCardData

    tags = ["tokenizer", "discrete-tokenizer", spec.modality, spec.quantizer]
    license = spec.weights_license.lower().replace(" ", "-")
    if license in HUB_LICENSES:
        return ModelCardData(license=license, library_name=LIBRARY, tags=tags)
    if license == "not-stated":
        return ModelCardData(license="unknown", library_name=LIBRARY, tags=tags)
    return ModelCardData(
        license="other", license_name=license, license_link=spec.source, library_name=LIBRARY, tags=tags
    )


def _card_text(tokenizer: HubMixin, source: str) -> str:
    spec = tokenizer.spec
    published = registry.info(spec.name).figures if registry.is_variant(spec.name) else {}
    facts = {
        "architecture": type(tokenizer).__name__,
        "quantizer": spec.quantizer,
        "codebook sizes": ", ".join(map(str, spec.codebook_sizes)),
        "one grid position per": " x ".join(map(str, spec.downsample)),
        "bits per position": f"{spec.bits_per_position:g}",
        "sample rate": f"{spec.sample_rate} Hz" if spec.sample_rate else "",
        "tokens per second": f"{spec.tokens_per_second:g}" if spec.tokens_per_second else "",
        "bits per second": f"{spec.bits_per_second:g}" if spec.bits_per_second else "",
        "resolution": " x ".join(map(str, spec.resolution or ())),
        **{f"{figure} (reported by the authors, {spec.paper})": f"{value:g}" for figure, value in published.items()},
    }
    rows = "\n".join(f"| {fact} | {value} |" for fact, value in facts.items() if value)
    return f"""# {spec.name}

A discrete tokenizer ({spec.modality}) for [zoo](https://pypi.org/project/{LIBRARY}/).

| | |
| --- | --- |
{rows}

## Use

```python
import zoo

tokenizer = zoo.load("{source}")
x = tokenizer.preprocess(path)
codes = tokenizer.encode(x)  # int64 [1, {len(spec.default_sizes)}, ...]
x = tokenizer.decode(codes)
```

## Licenses

Weights: {spec.weights_license}. Code of the architecture: {spec.code_license}.
Paper: {spec.paper}. Source: {spec.source}.
"""
