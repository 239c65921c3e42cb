"""The parts of the Hub's API that huggingface_hub uses, over real HTTP on the loopback interface.

Repositories with branches, commits and pull requests, upload with LFS, download with etags, redirects and ranges,
private repositories, and faults that a test can order.
"""

import base64
import hashlib
import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Lock, Thread
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

import yaml

TOKEN = "hf_writer"
LFS_SUFFIXES = (".safetensors", ".onnx", ".parquet")
Files = dict[str, str]  # path to the oid of its content


@dataclass
class Repository:
    private: bool = False
    refs: dict[str, str] = field(default_factory=dict)
    commits: dict[str, Files] = field(default_factory=dict)
    messages: list[str] = field(default_factory=list)

    def commit(self, ref: str, files: Files, message: str) -> str:
        oid = hashlib.sha1(f"{len(self.commits)} {ref} {sorted(files.items())}".encode()).hexdigest()
        self.commits[oid], self.refs[ref] = files, oid
        self.messages.append(message)
        return oid

    def resolve(self, revision: str) -> str | None:
        return self.refs.get(revision, revision if revision in self.commits else None)


@dataclass
class Fault:
    """What happens to the next requests that match: a status, or a body that ends too early."""

    pattern: str
    status: int = 0
    cut_after: int = 0
    times: int = 1


@dataclass
class Hub:
    """The state of the server, and what it was asked.

    Args:
        url: Where it listens.
        storage_url: Where contents that came by LFS are downloaded, on another port as on another host.
        repositories: By their names.
        blobs: Contents by their sha256.
        large: Which of them came by LFS.
        requests: Method, path and range of every request, in their order.
        faults: Those that are still to come.
    """

    url: str = ""
    storage_url: str = ""
    repositories: dict[str, Repository] = field(default_factory=dict)
    blobs: dict[str, bytes] = field(default_factory=dict)
    large: set[str] = field(default_factory=set)
    requests: list[tuple[str, str, str | None]] = field(default_factory=list)
    faults: list[Fault] = field(default_factory=list)
    lock: Lock = field(default_factory=Lock)

    def store(self, content: bytes, *, large: bool) -> str:
        oid = hashlib.sha256(content).hexdigest()
        self.blobs[oid] = content
        if large:
            self.large.add(oid)
        return oid

    def add(self, name: str, folder: Path) -> Files:
        """Make a repository of a folder, without a request."""
        contents = {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}
        files = {path: self.store(data, large=path.endswith(LFS_SUFFIXES)) for path, data in contents.items()}
        self.repositories[name] = Repository()
        self.repositories[name].commit("main", files, "added")
        return files

    def files(self, name: str, revision: str = "main") -> dict[str, bytes]:
        repository = self.repositories[name]
        commit = repository.commits[repository.refs[revision]]
        return {path: self.blobs[oid] for path, oid in commit.items()}

    def requested(self, pattern: str) -> list[tuple[str, str, str | None]]:
        return [request for request in self.requests if re.search(pattern, f"{request[0]} {request[1]}")]

    def take_fault(self, request: str) -> Fault | None:
        with self.lock:
            for fault in self.faults:
                if fault.times > 0 and re.search(fault.pattern, request):
                    fault.times -= 1
                    return fault
        return None


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    hub: Hub

    def do_GET(self) -> None:
        self._serve()

    def do_HEAD(self) -> None:
        self._serve()

    def do_POST(self) -> None:
        self._serve()

    def do_PUT(self) -> None:
        self._serve()

    def log_message(self, *args: Any) -> None:
        pass

    def _serve(self) -> None:
        self.body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        parts = urlsplit(self.path)
        self.query = parse_qs(parts.query)
        path = unquote(parts.path)
        self.hub.requests.append((self.command, path, self.headers.get("Range")))
        self.fault = self.hub.take_fault(f"{self.command} {path}")
        if self.fault is not None and self.fault.status:
            return self._json({"error": "ordered by a test"}, self.fault.status)
        for methods, pattern, handle in ROUTES:
            found = re.fullmatch(pattern, path)
            if self.command in methods and found:
                return handle(self, **found.groupdict())
        return self._json({"error": f"no route for {self.command} {path}"}, 404)

    # Answers

    def _json(self, content: Any, status: int = 200, **headers: str) -> None:
        self._bytes(json.dumps(content).encode(), status, {"Content-Type": "application/json", **headers})

    def _bytes(self, content: bytes, status: int = 200, headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        for name, value in {"Content-Length": str(len(content)), **(headers or {})}.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        if self.command == "HEAD":
            return
        cut = self.fault.cut_after if self.fault is not None else 0
        self.wfile.write(content[:cut] if cut else content)
        if cut:
            self.close_connection = True

    def _error(self, status: int, code: str, **headers: str) -> None:
        self._json({"error": code}, status, **{"X-Error-Code": code, "X-Error-Message": code, **headers})

    # Who may do what

    def _is_writer(self) -> bool:
        return self.headers.get("Authorization") == f"Bearer {TOKEN}"

    def _may_write(self) -> bool:
        if not self._is_writer():
            self._json({"error": "Invalid username or password."}, 401)
        return self._is_writer()

    def _repository(self, name: str) -> Repository | None:
        repository = self.hub.repositories.get(name)
        if repository is None or (repository.private and not self._is_writer()):
            self._error(401, "RepoNotFound")
            return None
        return repository

    # Writing

    def create(self) -> None:
        wanted = json.loads(self.body)
        if not self._may_write():
            return
        name = f"{wanted['organization']}/{wanted['name']}"
        known = name in self.hub.repositories
        if not known:
            private = bool(wanted.get("private")) or wanted.get("visibility") == "private"
            repository = self.hub.repositories[name] = Repository(private)
            repository.commit("main", {}, "initial commit")
        self._json({"url": f"{self.hub.url}/{name}", "name": name}, 409 if known else 200)

    def branch(self, name: str, branch: str) -> None:
        repository = self._repository(name)
        if repository is None or not self._may_write():
            return
        known = branch in repository.refs
        repository.refs.setdefault(branch, repository.refs["main"])
        self._json({}, 409 if known else 200)

    def validate_yaml(self) -> None:
        asked = json.loads(self.body)
        header = yaml.safe_load(asked["content"].split("---\n")[1])
        needed = "configs" if asked["repoType"] == "dataset" else "library_name"
        errors = [] if header.get(needed) else [{"message": f"no {needed}"}]
        self._json({"errors": errors, "warnings": []}, 400 if errors else 200)

    def preupload(self, name: str, revision: str) -> None:
        if not self._may_write():
            return
        files = [
            {"path": f["path"], "uploadMode": "lfs" if f["path"].endswith(LFS_SUFFIXES) else "regular"}
            for f in json.loads(self.body)["files"]
        ]
        self._json({"files": [{**f, "shouldIgnore": False} for f in files]})

    def batch(self, name: str) -> None:
        objects = [
            {**wanted, "actions": {"upload": {"href": f"{self.hub.url}/lfs/{wanted['oid']}"}}}
            for wanted in json.loads(self.body)["objects"]
        ]
        self._json({"transfer": "basic", "objects": objects}, Content_Type="application/vnd.git-lfs+json")

    def put(self, oid: str) -> None:
        found = hashlib.sha256(self.body).hexdigest()
        if found != oid:
            return self._json({"error": f"the content has the hash {found}, not {oid}"}, 400)
        self.hub.store(self.body, large=True)
        return self._bytes(b"")

    def commit(self, name: str, revision: str) -> None:
        repository = self._repository(name)
        if repository is None or not self._may_write():
            return
        head, *operations = [json.loads(line) for line in self.body.splitlines()]
        files = dict(repository.commits[repository.refs[revision]])
        for operation in operations:
            value = operation["value"]
            if operation["key"] == "file":
                oid = self.hub.store(base64.b64decode(value["content"]), large=False)
            else:
                oid = value["oid"]
            files[value["path"]] = oid
        with_request = "create_pr" in self.query
        ref = f"refs/pr/{1 + sum(r.startswith('refs/pr/') for r in repository.refs)}" if with_request else revision
        oid = repository.commit(ref, files, head["value"]["summary"])
        url = f"{self.hub.url}/{name}"
        pull = f"{url}/discussions/{ref.split('/')[-1]}" if with_request else None
        self._json({"commitUrl": f"{url}/commit/{oid}", "commitOid": oid, "pullRequestUrl": pull})

    # Reading

    def info(self, name: str, revision: str | None = None) -> None:
        repository = self._repository(name)
        if repository is None:
            return
        oid = repository.resolve(revision or "main")
        if oid is None:
            return self._error(404, "RevisionNotFound")
        files = [{"rfilename": path} for path in repository.commits[oid]]
        about = {"id": name, "modelId": name, "sha": oid, "private": repository.private, "siblings": files, "tags": []}
        return self._json(about)

    def tree(self, name: str, revision: str, path: str | None = None) -> None:
        repository = self._repository(name)
        if repository is None:
            return
        oid = repository.resolve(revision)
        if oid is None:
            return self._error(404, "RevisionNotFound")
        start = f"{path}/" if path else ""
        found = {p: blob for p, blob in repository.commits[oid].items() if p.startswith(start)}
        if path and not found:
            return self._error(404, "EntryNotFound")
        folders = {start + p.removeprefix(start).split("/")[0] for p in found if "/" in p.removeprefix(start)}
        if self.query.get("recursive", ["false"])[0].lower() != "true":
            found = {p: blob for p, blob in found.items() if "/" not in p.removeprefix(start)}
        listed = [{"type": "directory", "oid": "0" * 40, "size": 0, "path": folder} for folder in sorted(folders)]
        return self._json(
            listed
            + [{"type": "file", "oid": b[:40], "size": len(self.hub.blobs[b]), "path": p} for p, b in found.items()]
        )

    def resolve(self, name: str, revision: str, path: str) -> None:
        repository = self._repository(name)
        if repository is None:
            return
        oid = repository.resolve(revision)
        if oid is None:
            return self._error(404, "RevisionNotFound")
        blob = repository.commits[oid].get(path)
        commit = {"X-Repo-Commit": oid}
        if blob is None:
            return self._error(404, "EntryNotFound", **commit)
        if blob in self.hub.large:
            linked = {"X-Linked-Etag": f'"{blob}"', "X-Linked-Size": str(len(self.hub.blobs[blob]))}
            return self._bytes(b"", 302, {**commit, **linked, "Location": f"{self.hub.storage_url}/cdn/{blob}"})
        return self._bytes(self.hub.blobs[blob], 200, {**commit, "ETag": f'"{blob[:40]}"'})

    def cdn(self, oid: str) -> None:
        content, wanted = self.hub.blobs[oid], self.headers.get("Range")
        if not wanted:
            return self._bytes(content, 200, {"ETag": f'"{oid}"', "Accept-Ranges": "bytes"})
        start = int(re.fullmatch(r"bytes=(\d+)-\d*", wanted)[1])
        span = {"Content-Range": f"bytes {start}-{len(content) - 1}/{len(content)}", "ETag": f'"{oid}"'}
        return self._bytes(content[start:], 206, span)


NAME = r"(?P<name>[\w.-]+/[\w.-]+)"
REVISION = r"(?P<revision>refs/pr/\d+|[^/]+)"
API = rf"/api/(?:models|datasets)/{NAME}"
HOME = rf"/(?:datasets/)?{NAME}"
ROUTES: tuple[tuple[tuple[str, ...], str, Any], ...] = (
    (("POST",), r"/api/repos/create", Handler.create),
    (("POST",), r"/api/validate-yaml", Handler.validate_yaml),
    (("POST",), rf"{API}/branch/(?P<branch>.+)", Handler.branch),
    (("POST",), rf"{API}/preupload/{REVISION}", Handler.preupload),
    (("POST",), rf"{HOME}\.git/info/lfs/objects/batch", Handler.batch),
    (("PUT",), r"/lfs/(?P<oid>\w+)", Handler.put),
    (("POST",), rf"{API}/commit/{REVISION}", Handler.commit),
    (("GET",), rf"{API}", Handler.info),
    (("GET",), rf"{API}/revision/{REVISION}", Handler.info),
    (("GET",), rf"{API}/tree/{REVISION}(?:/(?P<path>.+))?", Handler.tree),
    (("GET", "HEAD"), rf"{HOME}/resolve/{REVISION}/(?P<path>.+)", Handler.resolve),
    (("GET", "HEAD"), r"/cdn/(?P<oid>\w+)", Handler.cdn),
)


@contextmanager
def running_hub() -> Iterator[Hub]:
    hub = Hub()
    handler = type("BoundHandler", (Handler,), {"hub": hub})
    servers = [ThreadingHTTPServer(("127.0.0.1", 0), handler) for _ in range(2)]
    hub.url, hub.storage_url = (f"http://127.0.0.1:{server.server_address[1]}" for server in servers)
    threads = [Thread(target=server.serve_forever, daemon=True) for server in servers]
    for thread in threads:
        thread.start()
    try:
        yield hub
    finally:
        for server, thread in zip(servers, threads, strict=True):
            server.shutdown()
            server.server_close()
            thread.join()
