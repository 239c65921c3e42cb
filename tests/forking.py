"""Processes that start at once: forked from an interpreter that has already imported what they need.

Importing torch and transformers takes seconds. `forked` does it once for all tests of a session that share the modules;
what it starts is a process like any other: it has its own environment, folder and output, and can be killed. Where a
fresh interpreter is the point of a test, such as one that can't find the package, start that instead.
"""

import importlib
import json
import os
import socket
import subprocess
import sys
import traceback
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

ROOT = Path(__file__).parents[1]
# The Hub's client reads its environment when it is imported, so processes with another one import it themselves.
WITHOUT_THE_HUB = ("torch", "torch._dynamo", "sklearn.metrics")
COMMAND_LINE = ("blender_hf.blender", "blender_hf.generation.models", "transformers.trainer", "datasets")
TRL = ("trl.trainer.grpo_trainer", "trl.trainer.callbacks", "blender_hf.integrations.trl")
RUN_A_COMMAND = "import sys; from blender_hf.cli.main import main; sys.exit(main(sys.argv[1:]))"


@dataclass(frozen=True)
class Streams:
    """The files that a process has for its standard streams; None collects them for `communicate`."""

    stdin: Path = Path(os.devnull)
    stdout: Path | None = None
    stderr: Path | None = None


class Process:
    """A running process, with the part of `subprocess.Popen` that tests use."""

    def __init__(self, server: "_Server", streams: Streams, request: Mapping[str, Any]) -> None:
        self._server = server
        self._folder = TemporaryDirectory()
        self._files = [
            path or Path(self._folder.name, name)
            for name, path in (("stdout", streams.stdout), ("stderr", streams.stderr))
        ]
        self.pid: int = server.ask(start={**request, "files": list(map(str, [streams.stdin, *self._files]))})
        self.returncode: int | None = None

    def poll(self) -> int | None:
        """Return the exit code, or minus the signal that ended it; None while it runs."""
        return self._status(os.WNOHANG)

    def wait(self) -> int | None:
        """Wait for the exit code."""
        return self._status(0)

    def communicate(self, timeout: float | None = None) -> tuple[str, str]:
        """Wait for the end, and return what it wrote to stdout and stderr; the timeout is pytest's business."""
        self.wait()
        out, err = (path.read_text(encoding="utf-8") for path in self._files)
        return out, err

    def _status(self, options: int) -> int | None:
        if self.returncode is None:
            self.returncode = self._server.ask(wait=[self.pid, options])
        return self.returncode


def forked(
    code: str,
    *arguments: str,
    modules: Sequence[str] = COMMAND_LINE,
    env: Mapping[str, str] | None = None,
    cwd: str | Path = ROOT,
    streams: Streams = Streams(),
) -> Process:
    """Start a process that runs code as `python -c` does, with these modules imported already.

    Args:
        code: The program.
        arguments: Its `sys.argv[1:]`.
        modules: Imported before, once for all processes with the same ones.
        env: The whole environment; None inherits this one.
        cwd: The working directory.
        streams: The standard streams.
    """
    request = {"code": code, "argv": ["-c", *arguments], "env": dict(env or os.environ), "cwd": str(cwd)}
    return Process(_server(tuple(modules)), streams, request)


def ranks(n: int) -> list[dict[str, str]]:
    """Return the environments of n processes that train together, as `torchrun` sets them."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    size = {"WORLD_SIZE": str(n), "LOCAL_WORLD_SIZE": str(n), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    return [{**os.environ, **size, "RANK": str(rank), "LOCAL_RANK": str(rank)} for rank in range(n)]


@cache
def _server(modules: tuple[str, ...]) -> "_Server":
    return _Server(modules)


class _Server:
    """The other end of `serve`, which ends with this process."""

    def __init__(self, modules: tuple[str, ...]) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.forking", *modules],
            cwd=ROOT,
            env={**os.environ, "OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def ask(self, **request: Any) -> Any:
        assert self._process.stdin
        assert self._process.stdout
        self._process.stdin.write(json.dumps(request) + "\n")
        self._process.stdin.flush()
        return json.loads(self._process.stdout.readline())


def serve(modules: Sequence[str]) -> None:
    """Import the modules, then start processes, and wait for them, as lines on stdin ask."""
    for module in modules:
        importlib.import_module(module)
    for line in sys.stdin:
        request = json.loads(line)
        answer = _start(**request["start"]) if "start" in request else _wait(*request["wait"])
        sys.stdout.write(json.dumps(answer) + "\n")
        sys.stdout.flush()


def _start(code: str, argv: list[str], env: dict[str, str], cwd: str, files: list[str]) -> int:
    child = os.fork()
    if child:
        return child
    status = 1
    try:
        for number, file in enumerate(files):
            os.dup2(os.open(file, os.O_WRONLY | os.O_CREAT if number else os.O_RDONLY), number)
        os.environ.clear()
        os.environ.update(env)
        os.chdir(cwd)
        sys.argv, sys.path[0] = argv, cwd
        sys.stdin = os.fdopen(0, encoding="utf-8")  # this one's buffer is that of the server
        status = _run(code)
        sys.stdout.flush()
    finally:
        os._exit(status)


def _run(code: str) -> int:
    try:
        exec(compile(code, "<string>", "exec"), {"__name__": "__main__"})
    except SystemExit as end:
        if end.code is None or isinstance(end.code, int):
            return end.code or 0
        sys.stderr.write(f"{end.code}\n")
        return 1
    except BaseException:
        traceback.print_exc()
        return 1
    finally:
        sys.stderr.flush()
    return 0


def _wait(pid: int, options: int) -> int | None:
    done, status = os.waitpid(pid, options)
    return os.waitstatus_to_exitcode(status) if done else None


if __name__ == "__main__":
    serve(sys.argv[1:])
