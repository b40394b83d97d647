"""Small networks of registered variants, and signals for them."""

import pytest
import torch

import zoo


def small(name: str) -> zoo.Tokenizer:
    torch.manual_seed(0)
    return zoo.create(name, small=True).eval()


def sizes(tokenizer: zoo.Tokenizer) -> list[tuple[int, ...]]:
    """A size that fits the grid and an odd one; the only one where there is no other."""
    spec = tokenizer.spec
    if not spec.variable_size:
        return [spec.resolution]
    if spec.modality == "structure":
        return [(24,), (7,)]
    if spec.modality == "video":
        frames, height, width = spec.downsample
        return [(1 + frames, 2 * height, 2 * width), (3, height + height // 2 + 1, width + 1)]
    return [tuple(3 * s for s in spec.downsample), tuple(2 * s + s // 2 + 1 for s in spec.downsample)]


def signal(tokenizer: zoo.Tokenizer, batch: int, size: tuple[int, ...], seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    if tokenizer.spec.modality == "structure":
        return chains(batch, *size, generator)
    uniform = torch.rand(batch, tokenizer.spec.channels, *size, generator=generator)
    return uniform - 0.5 if tokenizer.spec.modality == "audio" else uniform


def chains(batch: int, residues: int, generator: torch.Generator) -> torch.Tensor:
    """Helices of noisy atoms `[batch, residues, 5, 3]` in angstrom, without the second residue and the fourth's O."""
    angle = torch.arange(residues)[:, None] * 1.745 + torch.tensor([-0.5, 0.0, 0.45, 0.1, 0.6])
    radius = torch.tensor([1.5, 2.3, 1.7, 3.3, 2.0])
    rise = torch.arange(residues)[:, None] * 1.5 + torch.tensor([-0.9, 0.0, 1.1, -0.4, 2.2])
    helix = torch.stack([radius * angle.cos(), radius * angle.sin(), rise], dim=-1)
    atoms = helix + 0.3 * torch.randn(batch, residues, 5, 3, generator=generator)
    atoms[:, 1:2] = torch.nan
    atoms[:, 3:4, 4] = torch.nan
    return atoms


def decode_options(tokenizer: zoo.Tokenizer) -> dict:
    """Whatever makes `decode` give the same twice."""
    return {"generator": torch.Generator().manual_seed(0)} if "generator" in tokenizer.decode_options else {}


def distinct() -> list[str]:
    """Variants whose small networks differ: one for each architecture, downsampling and configuration."""
    chosen: dict[tuple, str] = {}
    for name in zoo.list_tokenizers():
        variant = zoo.info(name)
        config = {**variant.config, **variant.builder.small}
        shape = (variant.spec.downsample, variant.spec.resolution, variant.spec.num_tokens, variant.spec.num_codebooks)
        chosen.setdefault((variant.builder, shape, repr(sorted(config.items()))), name)
    return sorted(chosen.values())


def quick_first(names: list[str]) -> list:
    """Parameters of a test that takes long: one variant of each architecture, and the others marked slow."""
    seen: set[type] = set()
    parameters = []
    for name in names:
        builder = zoo.info(name).builder
        parameters.append(pytest.param(name, marks=pytest.mark.slow if builder in seen else ()))
        seen.add(builder)
    return parameters
