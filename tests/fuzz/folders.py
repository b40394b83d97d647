"""Saved tokenizers: `config.json`, the same in the metadata of a file of weights, and what they build."""

import json
import math
from functools import partial
from pathlib import Path
from random import Random
from typing import Any

import safetensors.torch

import zoo
from tests.fuzz.code_files import plain
from tests.support.fuzz import Boundary, Case, changed_bytes, changed_text, changed_tree
from tests.support.tokenizers import example, expect_codes, expect_round_trip, untrained
from zoo.saved import as_metadata, configuration


class Folders(Boundary):
    name = "folders"

    def __init__(self, folder: Path):
        tokenizers = dict(untrained())
        for name in ("wetok-nano", "wavtokenizer-nano", "cosmos-dv-nano", "dplm2-nano", "one-d-piece-nano"):
            tokenizers[name] = zoo.create(name, small=True)
        self.folders: dict[str, tuple[dict[str, Any], bytes]] = {}
        for name, tokenizer in tokenizers.items():
            weights = safetensors.torch.save({key: value.contiguous() for key, value in tokenizer.state_dict().items()})
            self.folders[name] = json.loads(json.dumps(configuration(tokenizer))), weights
        self.folder = folder / "saved"
        self.folder.mkdir()

    def case(self, random: Random) -> Case:
        name = random.choice(list(self.folders))
        saved, weights = self.folders[name]
        match random.randrange(10):
            case 0 | 1 | 2 | 3 | 4:
                saved = changed_tree(random, saved, plain)
                text = json.dumps(saved).encode()
            case 5 | 6:
                part = random.choice(["spec", "config"])
                saved = {**saved, part: changed_tree(random, saved[part], plain)}
                text = json.dumps(saved).encode()
            case 7:
                text = changed_text(random, json.dumps(saved, indent=2)).encode(errors="replace")
            case 8:
                text = changed_bytes(random, json.dumps(saved).encode())
            case 9:
                text, weights = json.dumps(saved).encode(), changed_bytes(random, weights)
        if isinstance(saved, dict) and random.random() < 0.2:
            metadata = {str(key): str(value) for key, value in as_metadata(saved).items()}
            try:
                content = safetensors.torch.save(safetensors.torch.load(weights), metadata)
            except Exception:  # weights that are damaged, or text that no file can hold
                content = weights
            return Case(f"{name} in a file: {json.dumps(saved)[:600]}", partial(self.load_file, content))
        return Case(f"{name}: {text.decode(errors='replace')[:600]}", partial(self.load_folder, text, weights))

    def load_folder(self, text: bytes, weights: bytes) -> None:
        (self.folder / "config.json").write_bytes(text)
        (self.folder / "model.safetensors").write_bytes(weights)
        self.use(zoo.load(self.folder))

    def load_file(self, content: bytes) -> None:
        path = self.folder / "one.safetensors"
        path.write_bytes(content)
        self.use(zoo.load(path))

    def use(self, tokenizer: zoo.Tokenizer) -> None:
        """Encode and decode with a tokenizer that was loaded, if its signals are small."""
        size = tokenizer.modality.sizes(tokenizer.spec)[0]
        if math.prod(size) > 200_000:
            return
        x = example(tokenizer, 1)
        codes = tokenizer.encode(x)
        expect_codes(tokenizer, codes, 1, tokenizer.spec.grid(size))
        expect_round_trip(tokenizer, x, codes)
