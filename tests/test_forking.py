"""Forked processes are processes: with their own environment, folder, output and end."""

import json
import os
import signal
from pathlib import Path

import pytest

from tests.forking import forked

pytestmark = pytest.mark.once
MODULES = ("json",)


def test_a_process_has_its_own_environment_folder_and_output(tmp_path: Path) -> None:
    code = "import json, os, sys; print(json.dumps([sys.argv, os.getcwd(), dict(os.environ)])); sys.stderr.write('x')"
    process = forked(code, "one", "two", modules=MODULES, env={"NAME": "value"}, cwd=tmp_path)
    out, err = process.communicate()
    assert json.loads(out) == [["-c", "one", "two"], str(tmp_path), {"NAME": "value"}]
    assert (err, process.returncode) == ("x", 0)


@pytest.mark.parametrize(
    ("code", "status", "message"),
    [("import sys; sys.exit(3)", 3, ""), ("raise ValueError('no')", 1, "no"), ("print('x'); exit('bad')", 1, "bad")],
)
def test_an_exit_code_is_that_of_the_program(code: str, status: int, message: str) -> None:
    process = forked(code, modules=MODULES)
    _, err = process.communicate()
    assert process.returncode == status
    assert message in err


def test_a_process_can_be_killed_while_others_run() -> None:
    endless, short = (forked(code, modules=MODULES) for code in ("import time; time.sleep(100)", "print(1)"))
    assert endless.poll() is None
    assert short.communicate()[0] == "1\n"
    os.kill(endless.pid, signal.SIGKILL)
    assert endless.wait() == -signal.SIGKILL
    assert endless.pid != short.pid
