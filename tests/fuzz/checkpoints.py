"""Files of weights in every format: safetensors, torch's archives and old files, TorchScript."""

import io
import pickle
import zipfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from random import Random
from typing import Any

import safetensors.torch
import torch
from torch import Tensor, nn

import zoo
from tests.support.fuzz import Boundary, Case, changed_bytes, in_other_form, in_other_shape, odd_text, odd_value
from tests.support.tokenizers import example, expect, expect_codes, expect_round_trip
from zoo.errors import ZooError

NAME, UNPUBLISHED = "fuzz-wetok", "fuzz-wetok-unpublished"  # of which the second has no published layout
CONFIG = {"width": 32, "multipliers": (1, 1, 1), "num_blocks": 1, "dim": 16}
FORMATS = {
    "ours.safetensors": NAME,
    "plain.safetensors": UNPUBLISHED,
    "theirs.pt": NAME,
    "old.pt": NAME,
    "plain.jit": UNPUBLISHED,
}

State = dict[str, Any]


class Module(nn.Module):
    """Tensors under dotted names, as a module that can be scripted."""

    def __init__(self, state: State):
        super().__init__()
        inside: dict[str, State] = {}
        for key, value in state.items():
            first, _, rest = key.partition(".")
            if rest:
                inside.setdefault(first, {})[rest] = value
            else:
                self.register_buffer(first, value)
        for name, part in inside.items():
            self.add_module(name, Module(part))

    def forward(self, x: Tensor) -> Tensor:
        return x


class Checkpoints(Boundary):
    """Registers variants: to be used in `zoo.registry.temporary`."""

    name = "checkpoints"

    def __init__(self, folder: Path):
        base = zoo.info("wetok-imagenet-f8")
        variant = zoo.replace(base, NAME, config=CONFIG, hub=base.hub, downsample=(4, 4), codebook_sizes=(256, 256))
        zoo.register(variant)
        zoo.register(zoo.replace(variant, UNPUBLISHED))
        torch.manual_seed(0)
        tokenizer = zoo.create(NAME).eval()
        tokenizer.save_pretrained(folder)
        self.folder = folder
        self.ours: State = tokenizer.state_dict()
        self.metadata = {"format": "pt"}
        with safetensors.safe_open(folder / "model.safetensors", "pt") as file:
            self.metadata = file.metadata()
        assert variant.keys is not None
        self.theirs: State = {variant.keys.published_key(key)[0]: value for key, value in self.ours.items()}
        self.layout = variant.keys.layout
        self.files = {name: self.written(name, self.state(name)) for name in FORMATS}
        self.x = example(tokenizer, 1)
        self.codes = tokenizer.encode(self.x)

    def state(self, name: str) -> State:
        return self.ours if FORMATS[name] == UNPUBLISHED or name.startswith("ours") else self.theirs

    def written(self, name: str, state: State) -> bytes:
        if name.endswith(".safetensors"):
            return safetensors.torch.save(state, self.metadata if name.startswith("ours") else None)
        file = io.BytesIO()
        if name.endswith(".jit"):
            torch.jit.save(torch.jit.script(Module(state)), file)
            return file.getvalue()
        checkpoint: Any = state
        for key in reversed(self.layout):
            checkpoint = {key: checkpoint, "epoch": 3, "optimizer": {"state": {}, "rates": [1e-4]}}
        torch.save(checkpoint, file, _use_new_zipfile_serialization=not name.startswith("old"))
        return file.getvalue()

    def case(self, random: Random) -> Case:
        name = random.choice(list(FORMATS))
        content, what, same = self.files[name], "changed bytes", False
        match random.randrange(10):
            case 0 | 1 | 2:
                content = changed_bytes(random, content)
            case 3 | 4 | 5 if name.endswith((".pt", ".jit")) and not name.startswith("old"):
                what = "a changed member"
                content = changed_archive(random, content)
            case 6:
                what, same = "the same values otherwise", True
                content = self.written(name, same_values(random, name, self.state(name)))
            case _:
                what = "a changed tensor"
                content = self.with_changed_tensor(random, name)
        path = self.folder / random.choice([name, name, name, "weights.bin", "weights.safetensors"])
        if same:
            path = self.folder / name
        return Case(f"{path.name} from {name} with {what}", partial(self.load, FORMATS[name], path, content, same))

    def with_changed_tensor(self, random: Random, name: str) -> bytes:
        while True:
            state = dict(self.state(name))
            key = random.choice(list(state))
            tensor = state[key]
            match random.randrange(7):
                case 0:
                    del state[key]
                case 1:
                    state[odd_text(random)] = tensor
                case 2:
                    state[key] = in_other_form(random, tensor)
                case 3 if tensor.ndim:
                    state[key] = in_other_shape(random, tensor)
                case 4:
                    state[key] = odd_value(random)
                case 5 if tensor.numel():
                    state[key] = tensor.clone()
                    state[key].view(-1)[-1] = random.choice([float("nan"), float("inf"), 1e30, -1e38])
                case 6:
                    state[key] = tensor * random.choice([1e10, 1e30, 0.0])
            try:
                return self.written(name, state)
            except Exception:  # what no file of the format can hold
                continue

    def load(self, name: str, path: Path, content: bytes, same: bool) -> None:
        path.write_bytes(content)
        try:
            tokenizer = zoo.load(name, weights=path)
        except ZooError as error:
            expect(not same, f"the same values are refused: {error}")
            raise
        for key, tensor in tokenizer.state_dict().items():
            expect(bool(tensor.isfinite().all()), f"{key} is not finite")
        codes = tokenizer.encode(self.x)
        expect(not same or torch.equal(codes, self.codes), "the same values give other codes")
        expect_codes(tokenizer, codes, 1, tokenizer.spec.grid(tokenizer.size_of(self.x)))
        expect_round_trip(tokenizer, self.x, codes)


def same_values(random: Random, name: str, state: State) -> State:
    """Return a state of the same values in another order, memory or data type."""
    changes: list[Callable[[Tensor], Tensor]] = [
        lambda tensor: tensor,
        lambda tensor: tensor.double() if tensor.is_floating_point() else tensor,
    ]
    if not name.endswith(".safetensors"):  # which holds contiguous tensors that share nothing
        changes += [
            lambda tensor: torch.stack([tensor, tensor])[1],
            lambda tensor: tensor.movedim(0, -1).contiguous().movedim(-1, 0) if tensor.ndim else tensor,
        ]
    change = random.choice(changes)
    keys = list(state)
    if not name.endswith(".jit"):
        random.shuffle(keys)
    return {key: change(state[key]) for key in keys}


def changed_archive(random: Random, content: bytes) -> bytes:
    """Return a zip archive with another member."""
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        members = [(info.filename, archive.read(info)) for info in archive.infolist()]
    number = random.choice([next(i for i, (name, _) in enumerate(members) if name.endswith("data.pkl")), -1, None])
    number = random.randrange(len(members)) if number is None else number
    name, member = members[number]
    match random.randrange(6):
        case 0 | 1 | 2:
            members[number] = name, changed_bytes(random, member)
        case 3:
            del members[number]
        case 4:
            members.append((random.choice([name, f"x/{name}", odd_text(random).strip("\0\ud800") or "y"]), member))
        case 5:
            members[number] = name, pickle.dumps(random.choice([[], {"a": 1}, 3, None, {"a": {"b": [1.5]}}]))
    file = io.BytesIO()
    packing = random.choice([zipfile.ZIP_STORED, zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
    with zipfile.ZipFile(file, "w", packing) as archive:
        for name, member in members:
            archive.writestr(name, member)
    return file.getvalue()
