"""Probes of codebooks: how alike their rows are, how their codes are used, and how steady codes are.

`zoo probe NAME` runs them.
"""

from __future__ import annotations

import functools
import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from zoo import loading, media
from zoo.corpus.job import FORMAT
from zoo.digest import weights_sha256
from zoo.errors import InputError, MediaError, as_zoo_error
from zoo.metrics.codes import Noise, Shift, token_change
from zoo.metrics.perturbation import codebook_rows
from zoo.pictures.images import to_pixels
from zoo.tokenizer import Tokenizer

MOST_ROWS = 2**20  # of a codebook whose rows are compared
COMPARED = 4096  # rows, evenly spaced, that are compared with all
AT_ONCE = 2**24  # distances in memory
DUPLICATE = 0.01  # of the rows' root mean square norm: rows nearer than this count as one
NOISE, QUALITY = 40.0, 90  # dB, and of JPEG


def probe(
    name: str | Path,
    *,
    data: str | Path | None = None,
    corpus: str | Path | None = None,
    limit: int | None = None,
    device: str = "cpu",
) -> dict[str, Any]:
    """Return what a tokenizer's codebooks are like.

    Args:
        name: the tokenizer, as `zoo.load` takes it.
        data: folder of files, for how steady codes are; None: that is not computed.
        corpus: folder that `zoo tokenize` wrote, or its `manifest.json`, for how codes are used; None: that is not
            computed.
        limit: number of files, the first by name; None: all.
        device: where the tokenizer runs.

    Returns:
        `tokenizer`: its name. `codebooks`: for each codebook the dictionary of `similarity`, with `usage`,
        `entropy_bits` and `effective_codes` (2 to the power of the entropy) if there is a corpus. `steadiness`: for
        each perturbation of the modality, the mean share of codes that it changes, one number for each codebook (see
        the function). `files`: number of files that were used; `failed`: reasons by the path of the others.

    Raises:
        As `zoo.load`. InputError: a corpus of another tokenizer. MediaError: no file, or a corpus that cannot be read.
    """
    tokenizer = loading.load(name, device=device)
    codebooks = similarity(tokenizer)
    if corpus is not None:
        for book, used in zip(codebooks, usage(tokenizer, Path(corpus)), strict=True):
            book |= used
    found: dict[str, Any] = {"tokenizer": tokenizer.spec.name, "codebooks": codebooks}
    return found if data is None else found | steadiness(tokenizer, Path(data), limit)


def similarity(tokenizer: Tokenizer) -> list[dict[str, Any]]:
    """Return how alike the rows of each codebook are, as the decoder receives them.

    Of the 4,096 rows that are compared with all others, or all of a smaller codebook:

    - `nearest_cosine`: mean cosine similarity to the row that is most alike;
    - `redundancy`: share that has another row nearer than 1 % of the rows' root mean square norm, which the decoder
      hardly distinguishes;
    - `effective_dim`: dimensions that the rows really span, `(sum of v)^2 / (sum of v^2)` over the eigenvalues v of
      their covariance, at most `dim`.

    `size` is the number of rows. Codebooks of more than 2 ** 20 entries have `size` alone, with the `reason`.
    """
    sizes = tokenizer.spec.codebook_sizes
    if max(sizes) > MOST_ROWS:
        reason = f"more than {MOST_ROWS:,} rows; they are not compared"
        return [{"size": size, "reason": reason} for size in sizes]
    return [_similarity(rows.float()) for rows in codebook_rows(tokenizer.quantizer)]


@torch.no_grad()
def _similarity(rows: Tensor) -> dict[str, Any]:
    size, dim = rows.shape
    chosen = torch.linspace(0, size - 1, min(size, COMPARED)).long().to(rows.device)
    norm = rows.norm(dim=1)
    scale = norm.square().mean().sqrt()
    cosines, distances = [], []
    for some in chosen.split(max(1, AT_ONCE // size)):
        own = torch.arange(len(some), device=rows.device), some
        products = rows[some] @ rows.T
        cosine = products / (norm[some, None] * norm).clamp(min=1e-12)
        cosine[own] = -torch.inf
        cosines.append(cosine.amax(dim=1))
        square = norm[some, None].square() + norm.square() - 2 * products
        square[own] = torch.inf
        nearest = square.argmin(dim=1)
        distances.append((rows[some] - rows[nearest]).norm(dim=1))  # a difference of squares is not exact near zero
    values = torch.linalg.eigvalsh(torch.cov(rows.double().T).reshape(dim, dim)).clamp(min=0)
    alone = size == 1
    return {
        "size": size,
        "dim": dim,
        "nearest_cosine": None if alone else float(torch.cat(cosines).mean()),
        "redundancy": None if alone else float((torch.cat(distances) < DUPLICATE * scale).double().mean()),
        "effective_dim": 0.0 if alone or not values.any() else float(values.sum() ** 2 / values.square().sum()),
    }


def usage(tokenizer: Tokenizer, corpus: Path) -> list[dict[str, float]]:
    """Return `usage`, `entropy_bits` and `effective_codes` of each codebook, from the manifest of a corpus.

    Raises:
        InputError: a corpus of another tokenizer, or one that used fewer codebooks.
        MediaError: a manifest that is missing or cannot be read.
    """
    path = corpus / "manifest.json" if corpus.is_dir() else corpus
    try:
        manifest = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise MediaError(f"{path}: cannot be read as the manifest of a finished corpus ({error})") from error
    if not isinstance(manifest, dict) or manifest.get("corpus") != FORMAT:
        raise InputError(f"{path}: expected the manifest of a corpus of `zoo tokenize`, format {FORMAT!r}")
    if manifest["weights_sha256"] != weights_sha256(tokenizer):
        raise InputError(f"{path}: made by {manifest['tokenizer']} with other weights than {tokenizer.spec.name} has")
    sizes = list(tokenizer.spec.codebook_sizes)
    if manifest["codebook_sizes"] != sizes:
        raise InputError(f"{path}: expected codes of codebooks {sizes}, got {manifest['codebook_sizes']}")
    pairs = zip(manifest["usage"], manifest["entropy_bits"], strict=True)
    return [{"usage": share, "entropy_bits": bits, "effective_codes": 2**bits} for share, bits in pairs]


def steadiness(tokenizer: Tokenizer, data: Path, limit: int | None = None) -> dict[str, Any]:
    """Return the mean share of codes that a small change of the signal changes, over the files of a folder.

    Images, and frames of video, move by one pixel to the right, audio by one sample; white noise is 40 dB below the
    signal; images are also written as JPEG of quality 90. Structures have none of these. A file that fails is reported
    and not counted.

    Raises:
        MediaError: no such folder, no file of the modality in it, or none that can be used.
    """
    changes = PERTURBATIONS.get(tokenizer.spec.modality, {})
    if not changes:
        raise InputError(f"{tokenizer.spec.name}: no perturbation is defined for {tokenizer.modality.noun[1]}")
    totals: dict[str, Tensor] = {}
    failed: dict[str, str] = {}
    paths = media.media_files(data, tokenizer.spec.modality)[:limit]
    for path in paths:
        try:
            signal = tokenizer.preprocess(path)
            assert isinstance(signal, Tensor), "one file gives no padded batch"
            shares = {
                name: token_change(tokenizer, signal.to(tokenizer.device), change)[0]
                for name, change in changes.items()
            }
        except Exception as error:
            failed[path.name] = str(as_zoo_error(error))
            continue
        totals = {name: totals.get(name, 0) + share.cpu() for name, share in shares.items()}
    used = len(paths) - len(failed)
    if not used:
        raise MediaError(f"{data}: none of its files can be used: {next(iter(failed.values()))}")
    means = {name: (total / used).tolist() for name, total in totals.items()}
    return {"steadiness": means, "files": used, "failed": failed}


def as_jpeg(images: Tensor, quality: int) -> Tensor:
    """Return images `[B, 3, H, W]` in [0, 1] as they come back from JPEG, with colour in half the resolution."""
    decoded = []
    for image in images:
        stream = io.BytesIO()
        Image.fromarray(to_pixels(image)).save(stream, "JPEG", quality=quality)
        decoded.append(media.to_image_tensor(Image.open(stream)))
    return torch.stack(decoded).to(images)


PIXEL: dict[str, Callable[[Tensor], Tensor]] = {"shift by a pixel": Shift((0, 1)), "noise at 40 dB": Noise(NOISE)}
PERTURBATIONS: dict[str, dict[str, Callable[[Tensor], Tensor]]] = {
    "image": {**PIXEL, "JPEG quality 90": functools.partial(as_jpeg, quality=QUALITY)},
    "audio": {"shift by a sample": Shift((1,)), "noise at 40 dB": Noise(NOISE)},
    "video": PIXEL,
}
