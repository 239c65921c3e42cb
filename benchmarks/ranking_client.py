"""The other end of a worker of benchmarks/ranking.py; see ranking_protocol.py."""

import json
import os
import subprocess
from contextlib import suppress
from pathlib import Path
from typing import Any


class WorkerError(Exception):
    """A worker could not do what it was asked."""


class Worker:
    """A process that measures one setting. It loads as soon as it is made; `wait` before it is asked.

    Args:
        python: The interpreter of its environment.
        script: Its program.
        setting: What it loads.
        log: Where its stderr goes.
    """

    def __init__(self, python: Path, script: Path, setting: dict[str, Any], log: Path) -> None:
        self._log = log
        with log.open("w", encoding="utf-8") as stderr:
            self._process = subprocess.Popen(
                [str(python), str(script)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=stderr,
                encoding="utf-8",
                env={**os.environ, "HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "true"},
            )
        if self._process.stdin is None or self._process.stdout is None:
            raise WorkerError("it was started without pipes")
        self._jobs, self._answers = self._process.stdin, self._process.stdout
        self._send(setting)

    def wait(self) -> None:
        """Wait until it has loaded.

        Raises:
            WorkerError: If it could not.
        """
        self._receive()

    def ask(self, message: dict[str, Any]) -> dict[str, Any]:
        """Send a job and wait for its answer.

        Raises:
            WorkerError: If the worker says so or ends.
        """
        self._send(message)
        return self._receive()

    def _send(self, message: dict[str, Any]) -> None:
        with suppress(BrokenPipeError):  # it ended, and its log says why
            self._jobs.write(json.dumps(message) + "\n")
            self._jobs.flush()

    def _receive(self) -> dict[str, Any]:
        answer = json.loads(self._answers.readline() or "{}")
        if not answer:
            said = self._log.read_text(encoding="utf-8").strip().splitlines()
            raise WorkerError(said[-1] if said else "the worker ended without a word")
        if "error" in answer:
            raise WorkerError(answer["error"])
        return answer

    def close(self) -> None:
        """End the process."""
        with suppress(BrokenPipeError):
            self._jobs.close()
        self._process.wait()
        self._answers.close()
