"""One inspection station: images of parts in, a signal for each part that may not pass out."""

from __future__ import annotations

import argparse
import json
import signal
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import tinyunet_deploy as td
from tinyunet_deploy.errors import ArtifactError

Reject = Callable[[str, str], None]
"""Takes the name of a part's image, and why the part may not pass."""


def run_station(
    camera: Path,
    output: Path,
    reject: Reject,
    ready: Callable[[bool], None],
    *,
    model: Path | None = None,
    stop: threading.Event,
    away_s: float = 2.0,
    retry_s: float = 1.0,
) -> None:
    """Inspect the images that a camera writes into a folder, until ``stop`` is set.

    Args:
        camera: the camera's folder.
        output: masks, report and the list of signals; the next start goes on from there.
        reject: called for every part with a defect, and for every part without a verdict.
        ready: called with False while nobody looks at the parts, with True from then on.
        model: file of the model; None takes the package's.
        away_s: how long the folder may be away before ``ready(False)``, seconds.
        retry_s: wait before another try, seconds.

    Raises:
        ArtifactError: the model cannot be used; trying again would not help.
    """
    signalled = Signalled(output / "signalled.txt")

    def on_line(line: td.ReportLine) -> None:
        if line.get("verdict") == "OK" or line in signalled:
            return
        reject(line["path"], reason_of(line))
        signalled.add(line)

    while not stop.is_set():
        try:
            for line in written_lines(output / "report.jsonl"):  # of a start that was killed
                on_line(line)
            with td.load(model) as loaded:
                if not camera.is_dir():
                    raise FileNotFoundError(f"{camera} is not there")
                ready(True)
                td.watch(camera, output, loaded, on_line=on_line, stop=stop, away_s=away_s)
        except ArtifactError:
            ready(False)
            raise
        except (td.TinyUNetError, OSError) as error:
            ready(False)
            print(f"not ready: {error}", flush=True)
            stop.wait(retry_s)
    ready(False)


def reason_of(line: td.ReportLine) -> str:
    """Return why a part may not pass, in words."""
    if line["status"] == "skipped":
        return f"no verdict: the image {line['what']}"
    count = len(line["defects"])
    return f"{count} defect{'s' * (count > 1)}, the largest has {line['defects'][0]['area_px']} px"


class Signalled:
    """The parts whose signal has been given, in a file that survives a restart."""

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._path = path
        self._keys = set(path.read_text("utf-8").splitlines()) if path.exists() else set()

    def __contains__(self, line: td.ReportLine) -> bool:
        return self._key(line) in self._keys

    def add(self, line: td.ReportLine) -> None:
        """Remember a part."""
        with self._path.open("a", encoding="utf-8") as file:
            file.write(self._key(line) + "\n")
        self._keys.add(self._key(line))

    @staticmethod
    def _key(line: td.ReportLine) -> str:
        # A file that changes after its verdict is another part, with a number of its own.
        return json.dumps([line["path"], line.get("change", 0)])


def written_lines(report: Path) -> Iterator[td.ReportLine]:
    """Yield the lines of a report, without one that was torn when the power failed."""
    if not report.exists():
        return
    for text in report.read_text("utf-8", errors="replace").splitlines():
        try:
            line = json.loads(text)
        except ValueError:
            continue
        if "path" in line:
            yield line


def main() -> None:
    """Run a station that prints its signals."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("camera", type=Path, help="folder into which the camera writes")
    parser.add_argument("output", type=Path, help="folder for masks, report and signals")
    parser.add_argument("-m", "--model", type=Path, help="model to run; default: the package's")
    options = parser.parse_args()
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    run_station(
        options.camera,
        options.output,
        reject=lambda name, reason: print(f"REJECT {name}: {reason}", flush=True),
        ready=lambda is_ready: print("READY" if is_ready else "NOT READY", flush=True),
        model=options.model,
        stop=stop,
    )


if __name__ == "__main__":
    main()
