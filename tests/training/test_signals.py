from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from tests.conftest import REPOSITORY


def test_sigterm_in_the_middle_of_a_long_step_does_not_wait_for_its_end(tmp_path: Path):
    """What is computing keeps the main thread from running Python: here for a minute."""
    script = tmp_path / "run.py"
    script.write_text(
        "import ctypes, sys\n"
        "from pathlib import Path\n"
        "from training.signals import stopped_by_signals\n"
        "with stopped_by_signals(lambda: Path('saved').write_text('yes')):\n"
        "    print('computing', flush=True)\n"
        "    for _ in range(60):\n"
        "        ctypes.CDLL(None).sleep(60)\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
    command = [sys.executable, str(script)]
    with subprocess.Popen(
        command, cwd=tmp_path, env=environment, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "computing\n"
        process.terminate()
        assert process.wait(25) == 143
    assert (tmp_path / "saved").read_text() == "yes"
