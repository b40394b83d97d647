"""Code files, damaged or with fields and arrays that are not so: read, compared with their tokenizer, and decoded."""

import io
import json
import math
import warnings
import zipfile
from functools import partial
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import safetensors.numpy
import torch

import zoo
from tests.support.fuzz import Boundary, Case, changed_bytes, changed_text, changed_tree, odd_number, odd_value
from tests.support.tokenizers import example, expect, expect_signal, trained
from zoo.codes import load_codes, save_codes

OPTIONS = {"resolution": 64, "seconds": 1.5, "chain": "A"}


class CodeFiles(Boundary):
    name = "code_files"

    def __init__(self, folder: Path):
        self.folder = folder
        self.tokenizers = {name: one for name, one in trained().items() if one.encode_only is None}
        self.files: dict[tuple[str, str], bytes] = {}
        self.parts: dict[str, tuple[dict[str, Any], np.ndarray]] = {}
        for name, tokenizer in self.tokenizers.items():
            x = example(tokenizer, 1)
            codes = tokenizer.encode(x)
            for suffix in (".npz", ".safetensors"):
                path = folder / f"good{suffix}"
                save_codes(
                    path,
                    codes,
                    name=name,
                    codebook_sizes=tokenizer.spec.codebook_sizes,
                    size=tokenizer.size_of(x),
                    frame_rate=10.0 if tokenizer.modality.window_options else None,
                    options=OPTIONS,
                    source_bytes=100,
                    overwrite=True,
                )
                self.files[name, suffix] = path.read_bytes()
            fields = json.loads(str(np.load(folder / "good.npz")["zoo_codes"]))
            self.parts[name] = fields, codes.numpy()

    def case(self, random: Random) -> Case:
        name, suffix = random.choice(sorted(self.files))
        path = self.folder / f"case{suffix}"
        if random.random() < 0.4:
            content = changed_bytes(random, self.files[name, suffix])
            return Case(f"{name}: {path.name} with changed bytes", partial(self.decode, path, content))
        fields, codes = self.parts[name]
        header = json.dumps(fields)
        match random.randrange(4):
            case 0 | 1:
                header = json.dumps(changed_tree(random, fields, plain))
            case 2:
                header = changed_text(random, header)
            case 3:
                codes = odd_array(random, codes)
        lengths = odd_array(random, np.array([codes.shape[-1]])) if codes.ndim and random.random() < 0.2 else None
        content = (written_npz if suffix == ".npz" else written_safetensors)(header, codes, lengths)
        what = f"{name}: {path.name} of {header[:300]}, codes {codes.dtype} {list(codes.shape)}, lengths {lengths!r}"
        return Case(what, partial(self.decode, path, content))

    def decode(self, path: Path, content: bytes) -> None:
        path.write_bytes(content)
        file = load_codes(path)
        again = path.with_name(f"again{path.suffix}")
        described = {key: value for key, value in vars(file).items() if key != "codes"}
        save_codes(again, file.codes, **described, overwrite=True)
        expect(torch.equal(load_codes(again).codes, file.codes), "written again, the file has other codes")
        spec = zoo.info(file.name).spec
        file.check(spec)
        tokenizer = self.tokenizers.get(file.name)
        if tokenizer is None or math.prod(file.codes.shape) > 100_000:
            return
        with warnings.catch_warnings():
            expect_signal(tokenizer, tokenizer.decode(file.codes, size=file.size), len(file.codes), file.size)
        (result,) = zoo.decode_files([path], self.folder / "out", name=None, overwrite=True)
        if result.error is not None:
            raise result.error


def plain(random: Random) -> Any:
    """A value that JSON can hold."""
    while True:
        value = random.choice([odd_value, odd_number])(random)
        try:
            json.dumps(value)
        except (TypeError, ValueError, RecursionError):
            continue
        return value


def odd_array(random: Random, array: np.ndarray) -> np.ndarray:
    """Return an array of another type, shape or with another value."""
    match random.randrange(4):
        case 0:
            return array.astype(random.choice(["u1", "i1", "u2", "i2", "u4", "u8", "f4", "f8", "?", ">i4", "c8"]))
        case 1:
            return random.choice([array[0], array[None], array[..., :0], array.ravel(), np.concatenate([array, array])])
        case 2:
            return np.moveaxis(array, random.randrange(array.ndim), -1)
    array = array.copy()
    array.flat[random.randrange(array.size)] = random.choice([-1, 0, 1, 255, 256, 4096, 2**31, 2**40, -(2**63)])
    return array


def written_npz(header: str, codes: np.ndarray, lengths: np.ndarray | None) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        arrays = {"zoo_codes": np.array(header), "codes": codes, "lengths": lengths}
        for name, array in arrays.items():
            if array is not None:
                member = io.BytesIO()
                np.save(member, array)
                archive.writestr(f"{name}.npy", member.getvalue())
    return file.getvalue()


def written_safetensors(header: str, codes: np.ndarray, lengths: np.ndarray | None) -> bytes:
    arrays = {"codes": codes} if lengths is None else {"codes": codes, "lengths": lengths}
    arrays = {name: np.array(array, array.dtype.newbyteorder("="), order="C") for name, array in arrays.items()}
    return safetensors.numpy.save(arrays, {"zoo_codes": header.encode(errors="replace").decode()})
