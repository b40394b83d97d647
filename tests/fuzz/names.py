"""Names, devices, data types and paths that `zoo.load`, `create`, `info` and the lists are given."""

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from random import Random
from typing import Any

import torch

import zoo
from tests.support.fuzz import DTYPES, Boundary, Case, odd_text, odd_value, shown
from tests.support.tokenizers import NANO, example, expect, expect_codes
from zoo import catalog, modalities, registry

DEVICES = ("cpu", "cuda", "cuda:0", "cuda:99", "meta", "mps", "xpu", "CPU", "cpu:0", "cpu:99", "gpu", "vulkan", "x:y:z")
FUNCTIONS = ("load", "info", "create", "is_variant", "facts", "architecture", "modality", "list", "catalog")


class Names(Boundary):
    name = "names"

    def __init__(self, folder: Path):
        (folder / "empty").mkdir()
        (folder / "text.txt").write_text("x")
        (folder / "empty.safetensors").write_bytes(b"")
        self.paths = [folder, folder / "empty", folder / "text.txt", folder / "empty.safetensors", folder / "none.pt"]
        self.known = [*NANO, *registry.aliases()]

    def case(self, random: Random) -> Case:
        function = random.choice([*FUNCTIONS, *["load"] * 8])
        name = self.odd_name(random, NANO if function == "load" else self.known)  # others would be fetched
        if function == "load":
            name = random.choice([name, *random.choices(NANO, k=3)])
            options: dict[str, Any] = {}
            if random.random() < 0.6:
                options["device"] = random.choice([*DEVICES, odd_value(random), torch.device("cpu")])
            if random.random() < 0.5:
                options["dtype"] = random.choice([*DTYPES, odd_value(random), torch.float64, torch.float16])
            if random.random() < 0.25:
                options["weights"] = random.choice([*self.paths, *map(str, self.paths), odd_value(random)])
            return Case(f"zoo.load({shown(name)}, {shown(options)})", partial(load, name, options))
        return Case(f"{function}({shown(name)})", partial(globals()[f"check_{function}"], name))

    def odd_name(self, random: Random, known: Sequence[str]) -> Any:
        """Return a name, or something near one."""
        name = random.choice(known)
        place = random.randrange(len(name))
        match random.randrange(6):
            case 0:
                return name
            case 1:
                return (
                    name[:place] + random.choice(["", "-", " ", "\0", "é", "\\", "\n", "x" * 500]) + name[place + 1 :]
                )
            case 2:
                return random.choice([name.upper(), f" {name}", Path(name), name.encode(), [name], f"{name}/"])
            case 3:
                return random.choice([*self.paths, *map(str, self.paths)])
            case 4:
                return odd_text(random)
        return odd_value(random)


def load(name: Any, options: dict[str, Any]) -> None:
    tokenizer = zoo.load(name, **options)
    expect(tokenizer.device.type == torch.device(options.get("device", "cpu")).type, f"it is on {tokenizer.device}")
    expect(tokenizer.dtype == (options.get("dtype") or torch.float32), f"its weights are {tokenizer.dtype}")
    x = example(tokenizer, 1)
    expect_codes(tokenizer, tokenizer.encode(x), 1, tokenizer.spec.grid(tokenizer.size_of(x)))


def check_info(name: Any) -> None:
    expect(zoo.info(name).name in (name, registry.aliases().get(name)), "another variant")


def check_create(name: Any) -> None:
    zoo.create(name, small=True)


def check_is_variant(name: Any) -> None:
    expect(registry.is_variant(name) in (True, False), "neither yes nor no")


def check_facts(name: Any) -> None:
    expect(catalog.facts(name)["name"] in (name, registry.aliases().get(name)), "another variant")


def check_architecture(name: Any) -> None:
    expect(registry.architecture(name).__name__ == name, "another class")


def check_modality(name: Any) -> None:
    modalities.get(name)
    modalities.modality_of(name)


def check_list(name: Any) -> None:
    found = registry.list_tokenizers(modality=name)
    expect(all(name in (None, zoo.info(one).spec.modality) for one in found), "tokenizers of another modality")


def check_catalog(name: Any) -> None:
    catalog.catalog(modality=name)
