"""``tinyunet infer`` as a process over the folder of ``tests/hostile/corpus.py``."""

from __future__ import annotations

import json
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import threading
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest

from tests.conftest import REPOSITORY
from tests.hostile import corpus
from tinyunet_deploy.cli.folding import SHOWN
from tinyunet_deploy.data.decoding import decode_image, read_image
from tinyunet_deploy.inspection.output_names import mask_name, overlay_name
from tinyunet_deploy.inspection.run_report import read_report

MEMORY_MIB = 1280
SECONDS = 60


class Folder(NamedTuple):
    images: Path
    expected: dict[str, str]


@pytest.fixture(scope="module")
def scratch() -> Iterator[Path]:
    """A folder that an ordinary user can reach, which pytest's own is not."""
    path = Path(tempfile.mkdtemp())
    path.chmod(0o755)
    yield path
    for folder in (path, *path.rglob("folder")):
        folder.chmod(0o755)
    shutil.rmtree(path)


@pytest.fixture(scope="module")
def hostile(scratch: Path) -> Folder:
    images = scratch / "hostile"
    return Folder(images, corpus.build(images))


@pytest.fixture(scope="module")
def model(scratch: Path, tiny_onnx: Path) -> Path:
    for name in (tiny_onnx.name, f"{tiny_onnx.name}.json"):
        shutil.copy(tiny_onnx.with_name(name), scratch / name)
    return scratch / tiny_onnx.name


def tree(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


def infer(images: Path, output: Path, model: Path, *, before: Sequence[str] = ()) -> str:
    """Run it within the limits; gives stderr."""
    entry = "from tinyunet_deploy.cli import infer_main; infer_main()"
    command = [
        *before,
        sys.executable,
        "-c",
        entry,
        images,
        "-o",
        output,
        "-m",
        model,
        "--overlays",
    ]
    command += ["--backend", "onnxruntime", "--threshold", "0.55"]

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_AS, (MEMORY_MIB << 20, MEMORY_MIB << 20))

    done = subprocess.run(
        command,
        env={**os.environ, "PYTHONPATH": str(REPOSITORY), "PYTHONDONTWRITEBYTECODE": "1"},
        cwd="/",
        capture_output=True,
        timeout=SECONDS,
        preexec_fn=limit,
        check=False,
    )
    assert done.returncode == 3, done.stderr.decode("utf-8", "replace")[-2000:]
    return done.stderr.decode()


def judge(images: Path, output: Path, expected: dict[str, str]) -> None:
    """One line per entry with its reason, and masks for readable images alone."""
    lines, summary = read_report(output / "report.jsonl")
    assert summary is not None
    assert (summary.images, summary.inspected + summary.skipped) == (len(lines), len(lines))
    usable = {name for name, outcome in expected.items() if outcome in ("same", "close")}
    found = {line["path"]: line.get("reason", "ok") for line in lines}
    wanted = {name: "ok" if name in usable else why for name, why in expected.items()}
    assert found == wanted
    masks = set(tree(output / "masks"))
    assert masks == {mask_name(name) for name in usable}
    reference = read_image(output / "masks" / "formats" / "grey.png")
    assert 0 < reference.mean() < 255, "a test worth its name"
    for name in usable:
        mask = read_image(output / "masks" / mask_name(name))
        differ = float((mask != reference).mean())
        assert differ == 0 if expected[name] == "same" else differ < 0.1, (name, differ)
    every = {*tree(output)} - {"run.json", "report.jsonl", "defects.csv"}
    assert every == {f"masks/{name}" for name in masks} | {
        f"overlays/{overlay_name(name)}" for name in usable
    }


def test_the_corpus_is_what_it_says() -> None:
    for name, data in corpus.same_picture().items():
        assert np.array_equal(decode_image(data, Path(name)), corpus.picture()), name
    for name, data in corpus.close_picture().items():
        difference = decode_image(data, Path(name)).astype(int) - corpus.picture()
        assert np.abs(difference).max() < 40, name
    assert len(corpus.broken_pictures()["48-KB-of-400-Mpixel.png"][0]) < 60_000


def test_a_hostile_folder_costs_one_line_per_entry(
    scratch: Path, hostile: Folder, model: Path
) -> None:
    before = sorted(scratch.iterdir())
    output = hostile.images / "out"  # inside the input
    error = infer(hostile.images, output, model)
    judge(hostile.images, output, hostile.expected)
    told = [line for line in error.splitlines() if line.startswith("skipped: ")]
    skipped = [why for why in hostile.expected.values() if why not in ("same", "close")]
    folded = {why: count for why, count in Counter(skipped).items() if count > SHOWN}
    assert len(told) == sum(min(count, SHOWN) for count in Counter(skipped).values()) + len(folded)
    for why, count in folded.items():
        assert f"skipped: {count - SHOWN} more ({why}); the report has each reason" in told
    assert "\x1b" not in error
    assert sorted(scratch.iterdir()) == before, "nothing is written elsewhere"
    first = tree(output)
    infer(hostile.images, output, model)
    assert tree(output) == first, "the same again"
    shutil.rmtree(output)


@pytest.mark.skipif(not shutil.which("setpriv"), reason="there is no setpriv here")
def test_an_ordinary_user_loses_what_is_locked_and_no_more(
    scratch: Path, hostile: Folder, model: Path
) -> None:
    output = scratch / "ordinary"
    expected = corpus.lock(hostile.images, hostile.expected)
    # whoever runs this, also root, may then no more than the owner of the files
    ordinary = ["setpriv", "--bounding-set=-all", "--inh-caps=-all"] if os.geteuid() == 0 else []
    try:
        infer(hostile.images, output, model, before=ordinary)
    finally:
        (hostile.images / "locked" / "folder").chmod(0o755)
    judge(hostile.images, output, expected)


def test_files_that_change_while_they_are_read_do_no_harm(scratch: Path, model: Path) -> None:
    images = scratch / "changing"
    images.mkdir()
    good = corpus.save(corpus.picture(), "PNG")
    for index in range(60):
        (images / f"{index:02}.png").write_bytes(good)
    (images / "50.png").write_bytes(b"")
    over = threading.Event()

    def change() -> None:
        random = np.random.default_rng(0)
        while not over.is_set():
            path = images / f"{random.integers(40):02}.png"
            path.unlink(missing_ok=True)
            match random.integers(4):
                case 0:
                    os.mkfifo(path)
                case 1:
                    path.symlink_to(path)
                case 2:
                    path.write_bytes(good[: random.integers(len(good))])
                case 3:
                    path.write_bytes(good)
            over.wait(0.0005)

    thread = threading.Thread(target=change)
    thread.start()
    try:
        infer(images, scratch / "changed", model)
    finally:
        over.set()
        thread.join()
    lines, summary = read_report(scratch / "changed" / "report.jsonl")
    assert summary is not None
    known = {"missing", "not-a-file", "unreadable", "truncated", "empty", "not-an-image"}
    assert {line["reason"] for line in lines if line["status"] == "skipped"} <= known
    usable = {line["path"] for line in lines if line["status"] == "inspected"}
    assert {*tree(scratch / "changed" / "masks")} == usable
    assert json.dumps(lines)
