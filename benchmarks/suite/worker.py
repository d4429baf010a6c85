"""A script in a process of its own that answers requests: a line of JSON for a line of JSON."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent


class Worker:
    """A script of this folder, run by a Python; what it prints to standard error is shown.

    Args:
        python, script, arguments: the command.
        needs: what that Python must have, said where the script ends early.
        folder: it runs there.
        environment: variables set for it beside this process's; None: taken away.
    """

    def __init__(
        self,
        python: str,
        script: str,
        *arguments: str,
        needs: str,
        folder: str | None = None,
        **environment: str | None,
    ):
        self.needs, self.python = needs, python
        command = [python, str(HERE / script), *arguments]
        pipes: dict[str, Any] = dict(stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        settings = {k: v for k, v in (os.environ | environment).items() if v is not None}
        self.process = subprocess.Popen(command, env=settings, cwd=folder, **pipes)

    def ask(self, **request: Any) -> dict[str, Any]:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(json.dumps(request) + "\n")
        self.process.stdin.flush()
        answer = self.process.stdout.readline()
        if not answer:
            raise SystemExit(f"the worker ended (see above); it needs {self.needs} in {self.python}.")
        return json.loads(answer)

    def close(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.wait()
