"""The client of a worker process; see protocol.py."""

import json
import os
import subprocess
from contextlib import suppress
from pathlib import Path
from typing import Any

from benchmarks.tables import ROOT


class WorkerError(Exception):
    """A worker failed."""


class Worker:
    """A process that measures one setting. It loads at once; call `wait` before `ask`, which raise `WorkerError`."""

    def __init__(self, python: Path, module: str, setting: dict[str, Any], log: Path) -> None:
        self._log = log
        with log.open("w", encoding="utf-8") as stderr:
            self._process = subprocess.Popen(
                [str(python), "-m", module],
                cwd=ROOT,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=stderr,
                encoding="utf-8",
                env={**os.environ, "HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "true"},
            )
        if self._process.stdin is None or self._process.stdout is None:
            raise WorkerError("the worker has no pipes")
        self._jobs, self._answers = self._process.stdin, self._process.stdout
        self._send(setting)

    def wait(self) -> None:
        """Wait until it is loaded."""
        self._receive()

    def ask(self, message: dict[str, Any]) -> dict[str, Any]:
        """Send a job and wait for its answer."""
        self._send(message)
        return self._receive()

    def _send(self, message: dict[str, Any]) -> None:
        with suppress(BrokenPipeError):  # it exited; its log has the reason
            self._jobs.write(json.dumps(message) + "\n")
            self._jobs.flush()

    def _receive(self) -> dict[str, Any]:
        answer = json.loads(self._answers.readline() or "{}")
        if not answer:
            log = self._log.read_text(encoding="utf-8").strip().splitlines()
            raise WorkerError(log[-1] if log else "the worker exited without a log")
        if "error" in answer:
            raise WorkerError(answer["error"])
        return answer

    def close(self) -> None:
        """End the process."""
        with suppress(BrokenPipeError):
            self._jobs.close()
        self._process.wait()
        self._answers.close()
