"""The Hub and its cache: finding, downloading and converting published files, and what to do where that fails."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from huggingface_hub import HfApi, constants, hf_hub_download, try_to_load_from_cache
from huggingface_hub.errors import (
    GatedRepoError,
    HfHubHTTPError,
    RemoteEntryNotFoundError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from torch import Tensor

from zoo import registry
from zoo.checkpoints import check_weights, read_checkpoint, write_checkpoint
from zoo.errors import CheckpointError, MediaError, WeightsUnavailableError
from zoo.files import atomic_path, remove_leftovers
from zoo.registry import CONFIG, WEIGHTS, HubSource, Variant

NAMESPACE = "tokenizer-zoo"  # on the Hub: our converted weights of the variants


def variant_weights(
    variant: Variant,
    expected: Mapping[str, Tensor],
    metadata: Mapping[str, str],
    fits: Callable[[Path], bool],
) -> Path:
    """Return the safetensors file with a variant's weights; files on this machine are preferred to the network.

    The order is: our converted repository and earlier conversions in the cache, published files in the cache, our
    repository on the Hub, published files on the Hub. A published file is converted once.

    Args:
        expected: the network's tensors.
        metadata: the metadata that a converted file gets.
        fits: returns whether a cached file is whole and holds this network.

    Raises:
        WeightsUnavailableError: there are no weights, or they cannot be fetched.
        CheckpointError: a published file that is damaged or does not fit the network.
        MediaError: the converted file cannot be written.
    """
    published = [source for source in variant.sources if isinstance(source, HubSource)]
    # A plug-in is never looked up in our namespace, whatever its architecture.
    ours = [HubSource(f"{NAMESPACE}/{variant.name}", WEIGHTS)] if registry.is_ours(variant.name) else []
    ready = [*ours, *(source for source in published if source.keys is None)]
    for path in (*map(_cached, ready), *_conversions(variant)):
        if path is not None and fits(path):
            return path
    for source in published:
        if source.keys is not None and (path := _cached(source)) is not None:
            return _convert(variant, source, path, expected, metadata)
    places = variant.places
    if not published and not ours:
        where = f"; the authors offer theirs at {' and '.join(places)}" if places else ""
        raise WeightsUnavailableError(
            f"{variant.name} has no weights on the Hub, and {variant.package} ships none; "
            f"zoo.load({variant.name!r}, weights=FILE) reads a file of yours{where}"
        )
    first_error = None
    for source in _on_hub(variant, ours, published):
        try:
            with fetching(source, variant.name, variant.spec.modality):
                path = Path(hf_hub_download(source.repo, source.filename, revision=source.revision))
        except WeightsUnavailableError as error:
            first_error = first_error or error
            continue
        return path if source.keys is None else _convert(variant, source, path, expected, metadata)
    assert first_error is not None  # there is a source
    if places:
        raise WeightsUnavailableError(
            f"the authors of {variant.name} offer its weights at {' and '.join(places)}, and "
            f"zoo.load({variant.name!r}, weights=FILE) reads what is fetched from there; {first_error}"
        ) from first_error
    raise first_error


def _on_hub(variant: Variant, ours: list[HubSource], published: list[HubSource]) -> list[HubSource]:
    """Return our repository if it holds the variant, otherwise the published files, the authors' first."""
    if ours:
        with fetching((published or ours)[0], variant.name, variant.spec.modality):
            if not published or HfApi().file_exists(ours[0].repo, ours[0].filename):
                return ours
    return published


def _cached(source: HubSource) -> Path | None:
    """Return the file of a source in the Hub's cache; None if it, or another that it needs, is not there."""
    found = [try_to_load_from_cache(file.repo, file.filename, revision=file.revision) for file in source.files]
    paths = [Path(path) for path in found if isinstance(path, str)]
    return paths[0] if len(paths) == len(found) else None


def _conversion(variant: Variant, commit: str) -> Path:
    return _conversions_folder() / f"{variant.name}-{commit}.safetensors"


def _conversions_folder() -> Path:
    return Path(constants.HF_HUB_CACHE).parent / "zoo"


def is_converted(path: Path) -> bool:
    """Return whether a file of weights was converted on this machine, and so checked then."""
    return path.parent == _conversions_folder()


def _conversions(variant: Variant) -> list[Path]:
    """Return the variant's files that were converted on this machine, the newest first."""
    found: set[Path] = set()
    for source in variant.sources:
        if isinstance(source, HubSource):
            pinned = re.fullmatch("[0-9a-f]{40}", source.revision)
            pattern = _conversion(variant, source.revision if pinned else "[0-9a-f]" * 40)
            found.update(pattern.parent.glob(pattern.name))
    return sorted(found, key=lambda path: path.stat().st_mtime, reverse=True)


def _convert(
    variant: Variant, source: HubSource, published: Path, expected: Mapping[str, Tensor], metadata: Mapping[str, str]
) -> Path:
    """Write a published file in the Hub's cache as a safetensors file of ours; neither is ever held in memory whole."""
    if source.keys is None:
        raise CheckpointError(f"{variant.name}: no key map says how to read {source.filename}")
    commit = published.parents[source.filename.count("/")].name
    origin = {
        "repository": source.repo,
        "file": source.filename,
        "commit": commit,
        "etag": published.resolve().name if published.is_symlink() else "",
    }
    state = dict(check_weights(read_checkpoint(published), expected, str(published), source.keys))
    for file in source.also:
        with fetching(file, variant.name, variant.spec.modality):
            other = Path(hf_hub_download(file.repo, file.filename, revision=file.revision))
        state |= check_weights(read_checkpoint(other), expected, str(other), file.keys)
    path = _conversion(variant, commit)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise MediaError(f"{path.parent}: cannot be written ({error.strerror})") from error
    remove_leftovers(path.parent)
    with atomic_path(path, overwrite=True) as temporary:
        write_checkpoint(temporary, state, {**metadata, **origin})
    return path


def fetch_saved(repo: str, *, revision: str | None = None, **options: Any) -> Path:
    """Return the folder in the Hub's cache that holds a repository's configuration and weights, of one commit.

    Args:
        repo: `owner/name`.
        revision: branch, tag or commit; None: main.
        options: options of `hf_hub_download`: `token`, `cache_dir`, `force_download`, `local_files_only`.

    Raises:
        WeightsUnavailableError: the files cannot be fetched; the message says what is needed and how to get it.
    """
    with fetching(HubSource(repo, CONFIG, revision or "main"), repo):
        folder = Path(hf_hub_download(repo, CONFIG, revision=revision, **options)).parent
    with fetching(HubSource(repo, WEIGHTS, folder.name), repo):
        hf_hub_download(repo, WEIGHTS, revision=folder.name, **options)
    return folder


@contextmanager
def fetching(source: HubSource, name: str, modality: str | None = None) -> Iterator[None]:
    """Turn whatever the Hub's client raises into an error that says what is needed and how to get it."""
    try:
        yield
    except Exception as error:
        needed = f"{name} needs {source.filename} of {source.repo}"
        raise WeightsUnavailableError(f"{needed}, {_why_not(error, source, name, modality)}") from error


def _why_not(error: Exception, source: HubSource, name: str, modality: str | None) -> str:
    if isinstance(error, GatedRepoError):
        page = f"{constants.ENDPOINT}/{source.repo}"
        return f"which is gated: accept its license at {page}, then log in with `hf auth login`"
    if isinstance(error, RepositoryNotFoundError):
        return f"which {constants.ENDPOINT} does not show; if it is private, log in with `hf auth login`"
    if isinstance(error, RevisionNotFoundError):
        return f"which has no revision {source.revision!r}"
    if isinstance(error, RemoteEntryNotFoundError):
        return f"where there is no such file at revision {source.revision!r}"
    if isinstance(error, HfHubHTTPError):
        hint = "; log in again with `hf auth login`" if error.response.status_code in (401, 403) else ""
        return f"but {constants.ENDPOINT} answered {error.response.status_code}{hint}"
    if "Consistency check failed" in str(error):
        return "but the download ended before the file did; nothing was kept, try again"
    if isinstance(error, OSError) and error.errno:
        return f"which cannot be stored: {error.strerror}"
    cause = str(error.__cause__ or error).partition("\n")[0]
    why = "HF_HUB_OFFLINE is set" if constants.HF_HUB_OFFLINE else f"{constants.ENDPOINT} is out of reach ({cause})"
    variants = (registry.info(other) for other in registry.list_tokenizers(modality=modality))
    shipped = [variant.name for variant in variants if variant.weights is not None]
    return (
        f"which is not on this machine, and {why}; where there is a network, `zoo pull {name}` fetches it "
        f"ahead; without one these work: {', '.join(shipped) if shipped else 'none'}"
    )
