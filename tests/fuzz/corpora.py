"""Sources of corpora and corpora themselves, damaged: tokenized, read back, and gone on with."""

import io
import json
import shutil
import tarfile
from functools import partial
from pathlib import Path
from random import Random

import pyarrow as pa
import pyarrow.parquet as pq
import soundfile

import zoo
from tests.fuzz.code_files import plain
from tests.support.fuzz import Boundary, Case, changed_bytes, changed_text, changed_tree
from tests.support.tokenizers import expect
from zoo import corpus
from zoo.corpus import sinks
from zoo.sources import open_source

NAME = "speechtokenizer-nano"
SECONDS = (0.05, 0.05, 0.08)


class Corpora(Boundary):
    name = "corpora"

    def __init__(self, folder: Path):
        self.folder = folder
        self.media = folder / "media"
        self.media.mkdir()
        tokenizer = zoo.load(NAME)
        rate = tokenizer.spec.sample_rate
        assert rate is not None
        for number, seconds in enumerate(SECONDS):
            soundfile.write(self.media / f"{number} é.wav", [0.1 * (n % 20) for n in range(int(seconds * rate))], rate)
        wavs = {path.name: path.read_bytes() for path in sorted(self.media.iterdir())}
        self.lines = [{"path": f"media/{name}"} for name in wavs]
        self.lines += [{"path": f"media/{next(iter(wavs))}", "start": 0.01, "duration": 0.02, "id": "part"}]
        table = pa.table({"audio": [{"path": name, "bytes": content} for name, content in wavs.items()]})
        pq.write_table(table, packed := io.BytesIO())
        list(zoo.encode_files(NAME, [self.media], folder / "codes"))
        self.sources = {
            "list.jsonl": manifest(self.lines),
            "list.txt": "\n".join(f"media/{name}" for name in wavs).encode(),
            "shard.tar": tar_of({name.replace(" ", "_"): content for name, content in wavs.items()}),
            "table.parquet": packed.getvalue(),
            "codes.npz": next((folder / "codes").rglob("*.npz")).read_bytes(),
        }
        for format in sinks.FORMATS:
            corpus.tokenize(NAME, self.media, self.finished(format), format=format, items_per_shard=2)

    def finished(self, format: str) -> Path:
        return self.folder / "finished" / format

    def case(self, random: Random) -> Case:
        if random.random() < 0.5:
            name = random.choice(list(self.sources))
            content = self.sources[name]
            match random.randrange(2) if name == "list.jsonl" else 2:
                case 0:
                    content = manifest(changed_tree(random, self.lines, plain))
                case 1:
                    content = changed_text(random, content.decode()).encode(errors="replace")
                case 2:
                    content = changed_bytes(random, content)
            return Case(f"{name}, {len(content)} bytes: {content[:200]!r}", partial(self.tokenize, name, content))
        format = random.choice(sinks.FORMATS)
        files = sorted(path for path in self.finished(format).rglob("*") if path.is_file())
        file = random.choice(files).relative_to(self.finished(format))
        content = (self.finished(format) / file).read_bytes()
        is_text = file.suffix in (".json", ".jsonl") and random.random() < 0.7
        changed = changed_text(random, content.decode()).encode(errors="replace") if is_text else None
        changed = changed_bytes(random, content) if changed is None else changed
        return Case(f"{format}: {file} with {len(changed)} bytes", partial(self.go_on, format, file, changed))

    def tokenize(self, name: str, content: bytes) -> None:
        (self.folder / name).write_bytes(content)
        out = self.folder / "out"
        shutil.rmtree(out, ignore_errors=True)
        found = corpus.tokenize(NAME, self.folder / name, out, readers=0)
        self.check(found)
        items = [item for shard in open_source(self.folder / name, "audio") for item in shard.items()]
        expect(len(items) == found.items + len(found.failures), f"of {len(items)} items, {found} has others")

    def go_on(self, format: str, file: Path, content: bytes) -> None:
        out = self.folder / "out"
        shutil.rmtree(out, ignore_errors=True)
        shutil.copytree(self.finished(format), out)
        (out / file).write_bytes(content)
        rows = list(corpus.read(out))
        expect(len(rows) <= len(SECONDS), f"{len(rows)} rows of {len(SECONDS)} items")
        self.check(corpus.tokenize(NAME, self.media, out, format=format, items_per_shard=2, readers=0))

    def check(self, found: corpus.CorpusResult) -> None:
        """Raise what a shard or an item failed with unless it is an error of zoo's, and `Silent` for missing rows."""
        for failed in found.failed_shards:
            raise failed.error
        for failure in found.failures:
            expect(not failure.error.startswith("unexpected"), f"{failure.key}: {failure.error}")
        if found.items:
            rows = list(corpus.read(found.folder))
            expect(len(rows) == found.items, f"{len(rows)} rows, of {found.items} that were written")


def manifest(lines: object) -> bytes:
    lines = lines if isinstance(lines, list) else [lines]
    return "".join(json.dumps(line) + "\n" for line in lines).encode(errors="replace")


def tar_of(files: dict[str, bytes]) -> bytes:
    with tarfile.open(fileobj=(packed := io.BytesIO()), mode="w") as archive:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return packed.getvalue()
