"""A Hub on loopback: the routes that huggingface_hub calls, over repositories kept in memory.

Status codes, headers and error codes are the Hub's. Files named `*.safetensors`, `*.ckpt`, `*.pt` or `*.parquet` are
large ones, served like the Hub's: by a redirect to a storage on another host. A repository of a data set is named
`datasets/owner/name`.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import json
import re
import socket
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from urllib.parse import unquote

import yaml

LARGE = (".safetensors", ".ckpt", ".pt", ".parquet")
REPO = r"(?P<repo>(?:datasets/)?[^/]+/[^/]+)"
LICENSES = ("mit", "apache-2.0", "cc-by-nc-4.0", "unknown", "other")


@dataclass
class Repository:
    """Commits, oldest first: hash and files. gated: only `granted` tokens may read it; private: only `owners`."""

    gated: bool = False
    private: bool = False
    commits: list[tuple[str, dict[str, bytes]]] = field(default_factory=list)

    def commit(self, changes: dict[str, bytes | None]) -> str:
        files = {**(self.commits[-1][1] if self.commits else {}), **changes}
        files = {path: content for path, content in files.items() if content is not None}
        digest = hashlib.sha1(f"{len(self.commits)}:{sorted(files)}".encode())
        for path in sorted(files):
            digest.update(files[path])
        self.commits.append((digest.hexdigest(), files))
        return digest.hexdigest()

    def at(self, revision: str) -> tuple[str, dict[str, bytes]] | None:
        if revision == "main":
            return self.commits[-1]
        return next((commit for commit in self.commits if commit[0] == revision), None)


class HubServer(ThreadingHTTPServer):
    """`with HubServer() as hub:` serves at `hub.url`; `hub.requests` lists what was asked, as `METHOD path range`.

    Tokens: "writer" may create and write, "reader" may read, "granted" may read gated repositories.
    faults: path of a large file to "drop" (the connection breaks in the middle of its first download) or "short"
    (its download ends early, in good order).
    """

    daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server_port}"
        self.storage = f"http://localhost:{self.server_port}/storage"
        self.repositories: dict[str, Repository] = {}
        self.large: dict[str, bytes] = {}
        self.faults: dict[str, str] = {}
        self.requests: list[str] = []
        self.connections: list[socket.socket] = []

    def __enter__(self) -> HubServer:
        Thread(target=self.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        return self

    def __exit__(self, *exception) -> None:
        self.stop()

    def stop(self) -> None:
        self.shutdown()
        self.server_close()
        for connection in self.connections:  # those kept alive would be answered on
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)

    def add(self, repo: str, files: dict[str, bytes], *, gated: bool = False, private: bool = False) -> str:
        """A repository with one commit; its hash."""
        self.repositories[repo] = Repository(gated, private)
        return self.repositories[repo].commit(files)


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: HubServer

    ROUTES = (
        ("POST", r"/api/repos/create", "create"),
        ("POST", r"/api/validate-yaml", "validate"),
        ("POST", rf"/api/models/{REPO}/preupload/(?P<revision>[^/]+)", "preupload"),
        ("POST", rf"/api/models/{REPO}/commit/(?P<revision>[^/]+)", "commit"),
        ("POST", rf"/{REPO}\.git/info/lfs/objects/batch", "batch"),
        ("PUT", r"/storage/(?P<oid>\w+)", "upload"),
        ("POST", r"/storage/verify", "verify"),
        ("GET", r"/storage/(?P<oid>\w+)/(?P<path>.+)", "download"),
        ("GET", rf"/api/models/{REPO}(/revision/(?P<revision>[^/]+))?", "information"),
        ("GET", rf"/api/models/{REPO}/tree/(?P<revision>[^/]+)", "tree"),
        ("GET", rf"/{REPO}/resolve/(?P<revision>[^/]+)/(?P<path>.+)", "resolve"),
    )

    def setup(self):
        super().setup()
        self.server.connections.append(self.connection)

    def do_GET(self):
        self.answer("GET")

    def do_HEAD(self):
        self.answer("GET")

    def do_POST(self):
        self.answer("POST")

    def do_PUT(self):
        self.answer("PUT")

    def log_message(self, *arguments):
        pass

    def answer(self, method: str) -> None:
        path = unquote(self.path.partition("?")[0])
        self.server.requests.append(" ".join([self.command, path, self.headers.get("Range", "")]).strip())
        self.body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        path = re.sub("^/api/datasets/", "/api/models/datasets/", path)
        for verb, pattern, handler in self.ROUTES:
            if verb == method and (match := re.fullmatch(pattern, path)):
                return getattr(self, handler)(**match.groupdict())
        return self.send(404, message=f"no route {method} {path}")

    # Answers

    def send(self, status: int, content: bytes | dict = b"", *, code: str = "", message: str = "", **headers: str):
        content = json.dumps(content).encode() if isinstance(content, dict | list) else content
        self.send_response(status)
        for name, value in {"X-Error-Code": code, "X-Error-Message": message}.items():
            if value:
                self.send_header(name, value)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        if "Content_Length" not in headers:
            self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    @property
    def token(self) -> str:
        return self.headers.get("Authorization", "").removeprefix("Bearer ")

    def readable(self, repo: str) -> Repository | None:
        """The repository, or None once the Hub's refusal has been sent."""
        repository = self.server.repositories.get(repo)
        if repository is None or (repository.private and self.token != "writer"):
            # Over https the client takes a bare 401 for this; over http it needs the code.
            return self.send(404 if self.token else 401, code="RepoNotFound", message="Repository not found")
        if repository.gated and self.token != "granted":
            return self.send(403 if self.token else 401, code="GatedRepo", message=f"Access to {repo} is restricted.")
        return repository

    def writable(self) -> bool:
        if self.token == "writer":
            return True
        if not self.token:
            self.send(401, message="Invalid username or password.")
        else:
            self.send(403, message="You don't have the rights to write")
        return False

    # Writing

    def create(self) -> None:
        wanted = json.loads(self.body)
        name = f"{wanted['organization'] or 'writer'}/{wanted['name']}"
        repo = f"datasets/{name}" if wanted.get("type") == "dataset" else name
        if not self.writable():
            return
        known = repo in self.server.repositories
        if not known:
            self.server.add(repo, {".gitattributes": b""}, private=wanted.get("visibility") == "private")
        self.send(409 if known else 200, {"url": f"{self.server.url}/{repo}", "name": name})

    def validate(self) -> None:
        wanted = json.loads(self.body)
        text = wanted["content"]
        front = re.match(r"---\n(.*?)\n---\n", text, re.DOTALL)
        card = yaml.safe_load(front[1]) if front else {}
        licensed = card.get("license") in LICENSES or (wanted.get("repoType") == "dataset" and "license" not in card)
        errors = [] if licensed else [{"message": '"license" must be one of the known ones'}]
        if card.get("license") == "other" and not {"license_name", "license_link"} <= card.keys():
            errors.append({"message": '"license_name" is required'})
        if not isinstance(card.get("tags", []), list):
            errors.append({"message": '"tags" must be an array'})
        self.send(400 if errors else 200, {"errors": errors, "warnings": []})

    def preupload(self, repo: str, revision: str) -> None:
        if self.writable():
            modes = [
                {
                    "path": file["path"],
                    "uploadMode": "lfs" if file["path"].endswith(LARGE) else "regular",
                    "shouldIgnore": False,
                }
                for file in json.loads(self.body)["files"]
            ]
            self.send(200, {"files": modes})

    def batch(self, repo: str) -> None:
        if self.writable():
            objects = [
                {
                    **wanted,
                    "actions": {
                        "upload": {"href": f"{self.server.storage}/{wanted['oid']}"},
                        "verify": {"href": f"{self.server.storage}/verify"},
                    },
                }
                for wanted in json.loads(self.body)["objects"]
            ]
            self.send(200, {"transfer": "basic", "objects": objects})

    def upload(self, oid: str) -> None:
        if hashlib.sha256(self.body).hexdigest() != oid:
            return self.send(400, message="content and hash differ")
        self.server.large[oid] = self.body
        return self.send(200)

    def verify(self) -> None:
        wanted = json.loads(self.body)
        stored = self.server.large.get(wanted["oid"], b"")
        self.send(200 if len(stored) == wanted["size"] else 404)

    def commit(self, repo: str, revision: str) -> None:
        if not self.writable():
            return
        changes: dict[str, bytes | None] = {}
        for line in self.body.splitlines():
            operation = json.loads(line)
            value = operation["value"]
            if operation["key"] == "file":
                changes[value["path"]] = base64.b64decode(value["content"])
            elif operation["key"] == "lfsFile":
                changes[value["path"]] = self.server.large[value["oid"]]
            elif operation["key"] == "deletedFile":
                changes[value["path"]] = None
        oid = self.server.repositories[repo].commit(changes)
        self.send(200, {"success": True, "commitOid": oid, "commitUrl": f"{self.server.url}/{repo}/commit/{oid}"})

    # Reading

    def found(self, repo: str, revision: str | None) -> tuple[str, dict[str, bytes]] | None:
        repository = self.readable(repo)
        if repository is None:
            return None
        commit = repository.at(revision or "main")
        if commit is None:
            self.send(404, code="RevisionNotFound", message=f"Invalid rev id: {revision}")
        return commit

    def information(self, repo: str, revision: str | None = None) -> None:
        if commit := self.found(repo, revision):
            oid, files = commit
            siblings = [{"rfilename": path} for path in files]
            self.send(200, {"id": repo, "modelId": repo, "sha": oid, "siblings": siblings, "tags": []})

    def tree(self, repo: str, revision: str) -> None:
        if commit := self.found(repo, revision):
            files = commit[1].items()
            self.send(200, [{"type": "file", "path": path, "size": len(data), "oid": ""} for path, data in files])

    def resolve(self, repo: str, revision: str, path: str) -> None:
        commit = self.found(repo, revision)
        if commit is None:
            return
        oid, files = commit
        if path not in files:
            self.send(404, code="EntryNotFound", message="Entry not found", X_Repo_Commit=oid)
            return
        content = files[path]
        headers = {"X_Repo_Commit": oid, "Accept_Ranges": "bytes"}
        if not path.endswith(LARGE):
            length = str(len(content))
            self.send(200, content, ETag=f'"{hashlib.sha1(content).hexdigest()}"', Content_Length=length, **headers)
            return
        sha256 = hashlib.sha256(content).hexdigest()
        self.server.large[sha256] = content
        headers |= {"X_Linked_ETag": f'"{sha256}"', "X_Linked_Size": str(len(content)), "ETag": f'"{sha256}"'}
        self.send(302, Location=f"{self.server.storage}/{sha256}/{path}", **headers)

    def download(self, oid: str, path: str) -> None:
        content = self.server.large[oid]
        fault = self.server.faults.get(path)
        if fault == "short":
            self.send(200, content[: len(content) // 2])
            return
        start = int(re.match(r"bytes=(\d+)-", self.headers.get("Range", "bytes=0-"))[1])
        part = content[start:]
        headers = {"Accept_Ranges": "bytes", "Content_Length": str(len(part))}
        if start:
            headers["Content_Range"] = f"bytes {start}-{len(content) - 1}/{len(content)}"
        if fault == "drop":
            del self.server.faults[path]
            part = part[: len(part) // 2]
            self.close_connection = True
        self.send(206 if start else 200, part, **headers)
