"""A resumed ``infer`` leaves what a fresh run leaves, whatever happened to images and outputs."""

from __future__ import annotations

import dataclasses
import json
import logging
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.conftest import SIZE, part
from tinyunet_deploy.artifacts.facts import NetworkFacts
from tinyunet_deploy.contract import Contract
from tinyunet_deploy.data.decoding import read_image
from tinyunet_deploy.data.encoding import encode_png, write_png
from tinyunet_deploy.errors import RefusedError, RuntimeUnavailable
from tinyunet_deploy.inspection import resume
from tinyunet_deploy.inspection.infer import infer
from tinyunet_deploy.inspection.outputs import Outputs
from tinyunet_deploy.inspection.report_line import RunSummary
from tinyunet_deploy.inspection.run_report import read_report
from tinyunet_deploy.inspection.shards import Shard
from tinyunet_deploy.testing.fake_backend import FakeBackend

IMAGES = 200


def fake() -> FakeBackend:
    return FakeBackend(contract=Contract(SIZE, SIZE))


def run(
    station: Path, output: Path, backend: FakeBackend | None = None, **options: Any
) -> RunSummary:
    return infer(
        [station],
        output,
        backend or fake(),
        **{
            "threshold": 0.5,
            "min_area": 4,
            "batch_size": 8,
            "workers": 2,
            "outputs": Outputs(overlays=True, scores=True),
            **options,
        },
    )


def tree(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


@pytest.fixture(scope="module")
def shelf(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two hundred images in five folders, all of them years old."""
    folder = tmp_path_factory.mktemp("shelf") / "station"
    for number in range(IMAGES):
        path = folder / f"lot {number % 5}" / f"{number:03}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        write_png(path, part(number))
        os.utime(path, ns=(10**18, 10**18 + number))
    return folder


@pytest.fixture(scope="module")
def inspected(shelf: Path) -> Path:
    run(shelf, shelf.parent / "inspected")
    return shelf.parent / "inspected"


@pytest.fixture
def station(shelf: Path, inspected: Path, tmp_path: Path) -> Iterator[Path]:
    """The shelf, to be changed; it is put back at the end."""
    shutil.copytree(shelf, tmp_path / "before")
    yield shelf
    shutil.rmtree(shelf)
    (tmp_path / "before").rename(shelf)


@pytest.fixture
def out(inspected: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(inspected, tmp_path / "out"))


def image(station: Path, number: int) -> Path:
    return station / f"lot {number % 5}" / f"{number:03}.png"


def mask(out: Path, number: int, folder: str = "masks") -> Path:
    return out / folder / f"lot {number % 5}" / f"{number:03}.png"


def overwrite(station: Path, _: Path) -> int:
    for number in (3, 50, 199):
        write_png(image(station, number), part(number + 1))
    return 3


def overwrite_and_set_the_time_back(station: Path, _: Path) -> int:
    """As a tool that copies time stamps does, with a file of the same size."""
    path = image(station, 7)
    data = path.read_bytes()
    before = path.stat()
    changed = encode_png(read_image(path) // 2)
    assert len(changed) < len(data), "else its size alone would tell"
    path.write_bytes(changed.ljust(len(data), b"\0"))
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    return 1


def overwrite_with_a_broken_one(station: Path, _: Path) -> int:
    image(station, 8).write_bytes(image(station, 8).read_bytes()[:-20])
    return 0


def replace_by_a_folder(station: Path, _: Path) -> int:
    image(station, 12).unlink()
    image(station, 12).mkdir()
    write_png(image(station, 12) / "a.png", part(1))
    return 1


def delete(station: Path, _: Path) -> int:
    for number in (0, 5, 111):
        image(station, number).unlink()
    shutil.rmtree(station / "lot 4")
    return 0


def rename(station: Path, _: Path) -> int:
    image(station, 10).rename(station / "lot 0" / "renamed.png")
    (station / "lot 1").rename(station / "lot one")
    return 1 + IMAGES // 5


def swap(station: Path, _: Path) -> int:
    image(station, 1).rename(station / "aside.png")
    image(station, 2).rename(image(station, 1))
    (station / "aside.png").rename(image(station, 2))
    return 2


def duplicate(station: Path, _: Path) -> int:
    shutil.copy2(image(station, 20), station / "lot 0" / "020 copy.png")
    os.link(image(station, 21), station / "lot 1" / "021 link.png")
    return 2


def touch(station: Path, _: Path) -> int:
    for number in range(0, IMAGES, 9):
        image(station, number).touch()
    return 0


def add(station: Path, _: Path) -> int:
    write_png(station / "lot 2" / "000 new.png", part(1))
    (station / "lot 2" / "notes.txt").touch()
    return 1


def delete_masks(_: Path, out: Path) -> int:
    mask(out, 30).unlink()
    shutil.rmtree(out / "masks" / "lot 2")
    return 1 + IMAGES // 5


def delete_scores_and_overlays(_: Path, out: Path) -> int:
    mask(out, 30, "scores").unlink()
    (out / "overlays" / "lot 1" / "031.jpg").unlink()
    return 2


def tear_a_mask(_: Path, out: Path) -> int:
    mask(out, 33).write_bytes(b"")
    mask(out, 34).write_bytes(mask(out, 34).read_bytes()[:-1])
    return 2


def double_a_line(_: Path, out: Path) -> int:
    lines = (out / "report.jsonl").read_bytes().splitlines(keepends=True)
    (out / "report.jsonl").write_bytes(b"".join([*lines[:40], lines[39], *lines[40:], lines[3]]))
    return 1


def copy_a_line(_: Path, out: Path) -> int:
    """A verdict under the name of another image, with the identity of its own."""
    lines = (out / "report.jsonl").read_text().splitlines(keepends=True)
    fields = json.loads(lines[40])
    fields["path"] = json.loads(lines[41])["path"]
    lines[41] = json.dumps(fields, separators=(",", ":")) + "\n"
    (out / "report.jsonl").write_text("".join(lines))
    return 1


def remove_the_identity(_: Path, out: Path) -> int:
    lines = (out / "report.jsonl").read_text().splitlines(keepends=True)
    fields = json.loads(lines[60])
    del fields["sha256"]
    lines[60] = json.dumps(fields, separators=(",", ":")) + "\n"
    (out / "report.jsonl").write_text("".join(lines))
    return 1


CHANGES: list[Callable[[Path, Path], int]] = [
    *(overwrite, overwrite_and_set_the_time_back, overwrite_with_a_broken_one),
    *(replace_by_a_folder, delete, rename, swap, duplicate, touch, add),
    *(delete_masks, delete_scores_and_overlays, tear_a_mask),
    *(double_a_line, copy_a_line, remove_the_identity),
]


@pytest.mark.parametrize("unfinished", [False, True], ids=["finished", "unfinished"])
@pytest.mark.parametrize("change", CHANGES, ids=lambda change: change.__name__)
def test_a_resumed_run_leaves_what_a_fresh_one_leaves(
    station: Path, out: Path, tmp_path: Path, change: Callable[[Path, Path], int], unfinished: bool
) -> None:
    """Also the number of images that are scored: what holds is not done again."""
    to_score = change(station, out)
    if unfinished:
        report = out / "report.jsonl"
        report.write_bytes(b"".join(report.read_bytes().splitlines(keepends=True)[:-1]))
    backend = fake()
    summary = run(station, out, backend)
    assert sum(backend.batches) == to_score
    assert summary == run(station, tmp_path / "fresh")
    assert tree(out) == tree(tmp_path / "fresh")
    again = fake()
    run(station, out, again)
    assert again.batches == []
    assert tree(out) == tree(tmp_path / "fresh")


@pytest.mark.parametrize(
    ("change", "notice"),
    [
        (overwrite, "3 images changed after the verdict: inspected again"),
        (delete, "43 images in the report but no longer in the input: dropped from the report"),
        (tear_a_mask, "2 images without the mask, score or overlay that the report names"),
        (double_a_line, "1 image with two lines in the report: inspected again"),
        (remove_the_identity, "1 image with a damaged line in the report: inspected again"),
    ],
    ids=lambda value: "" if isinstance(value, str) else value.__name__,
)
def test_what_was_dropped_is_logged(
    station: Path,
    out: Path,
    caplog: pytest.LogCaptureFixture,
    change: Callable[[Path, Path], int],
    notice: str,
) -> None:
    change(station, out)
    run(station, out)
    assert len(caplog.records) == 1
    assert caplog.records[0].levelno == logging.WARNING
    assert notice in caplog.records[0].getMessage()


def test_verdicts_that_hold_cost_no_reading(
    shelf: Path, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Size and time are enough for files that did not change near the time of the run."""
    long_after_ns = 10**10 + max(path.stat().st_ctime_ns for path in shelf.rglob("*.png"))
    os.utime(out / "run.json", ns=(long_after_ns, long_after_ns))

    def fail(*_: object, **__: object) -> None:
        raise AssertionError("an image was read")

    monkeypatch.setattr("tinyunet_deploy.inspection.identity.read_regular", fail)
    assert run(shelf, out).inspected == IMAGES


def test_an_input_that_cannot_be_looked_at_says_nothing_about_its_images(
    shelf: Path, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = tree(out)

    def fail(*_: object) -> None:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(resume, "identity_now", fail)
    with pytest.raises(RuntimeUnavailable, match=r"png: cannot be read: Input/output error"):
        run(shelf, out)
    assert tree(out) == before


@pytest.mark.parametrize(
    ("fact", "facts"),
    [
        ("reach", {"reach_before": None, "reach_after": None}),
        ("reach", {"reach_before": 4, "reach_after": 4}),
        ("size_multiple", {"size_multiple": 32}),
    ],
)
def test_a_run_is_not_resumed_with_other_tiles(
    tmp_path: Path, fact: str, facts: dict[str, int | None]
) -> None:
    """The same network, adopted again with another reach, has the same sha256."""
    network = NetworkFacts.of("tiny")
    again, other = (
        FakeBackend(contract=Contract(SIZE, SIZE), network=network)
        for network in (network, dataclasses.replace(network, **facts))
    )
    (tmp_path / "in").mkdir()
    write_png(tmp_path / "in" / "a.png", np.zeros((SIZE, 3 * SIZE), np.uint8))
    run(tmp_path / "in", tmp_path / "out")
    before = tree(tmp_path / "out")
    with pytest.raises(RefusedError, match=f"out: was made with another {fact} "):
        run(tmp_path / "in", tmp_path / "out", other)
    assert tree(tmp_path / "out") == before
    assert run(tmp_path / "in", tmp_path / "out", again).images == 1
    assert again.batches == [], "the same facts resume"


def test_a_report_of_a_version_without_the_facts_of_the_tiles_is_refused(
    shelf: Path, out: Path
) -> None:
    record = json.loads((out / "run.json").read_text())
    for key in ("size", "reach"):
        del record[key]
    (out / "run.json").write_text(json.dumps(record))
    before = tree(out)
    with pytest.raises(RefusedError, match=r"another version .* whose run.json has no size, reach"):
        run(shelf, out)
    assert tree(out) == before


def test_a_report_of_an_earlier_version_is_refused(shelf: Path, out: Path) -> None:
    record = json.loads((out / "run.json").read_text())
    del record["verb"]
    (out / "run.json").write_text(json.dumps({**record, "schema_version": 2}))
    before = tree(out)
    with pytest.raises(RefusedError, match=r"another version .* with schema_version 2"):
        run(shelf, out)
    assert tree(out) == before


@pytest.mark.parametrize("name", ["../../precious", "/precious", "lot 0/../../../precious", ""])
def test_a_report_never_has_a_file_elsewhere_removed(
    shelf: Path, out: Path, tmp_path: Path, name: str
) -> None:
    (tmp_path / "precious.png").touch()
    lines = (out / "report.jsonl").read_text().splitlines(keepends=True)
    fields = {**json.loads(lines[0]), "path": name}
    lines[0] = json.dumps(fields) + "\n"
    (out / "report.jsonl").write_text("".join(lines))
    run(shelf, out)
    assert (tmp_path / "precious.png").exists()
    assert tree(out) == tree(shelf.parent / "inspected")


def test_a_part_that_turns_out_to_be_a_mask_leaves_the_report(tmp_path: Path) -> None:
    station = tmp_path / "station"
    (station / "lot 1").mkdir(parents=True)
    for name in ("a_mask.png", "b_mask.png", "b.txt"):
        write_png(station / "lot 1" / name, part(1))
    run(station, tmp_path / "out")
    write_png(station / "lot 1" / "a.png", part(2))
    summary = run(station, tmp_path / "out")
    assert summary == run(station, tmp_path / "fresh")
    assert (summary.images, summary.passed_over) == (2, {"label-file": 1, "suffix .txt": 1})
    assert tree(tmp_path / "out") == tree(tmp_path / "fresh")
    named = [station / "lot 1" / "a.png", station / "lot 1" / "a_mask.png"]
    for _ in range(2):
        backend = fake()
        infer(named, tmp_path / "named", backend, threshold=0.5, batch_size=1, workers=0)
    assert backend.batches == [], "what was named is kept"


def test_masks_that_later_become_known_as_such_leave_the_report(tmp_path: Path) -> None:
    station = tmp_path / "station"
    for name in ("masks/a.png", "parts/b.png", "parts/b_seg.png"):
        (station / name).parent.mkdir(parents=True, exist_ok=True)
        write_png(station / name, part(1))
    assert run(station, tmp_path / "out").images == 3
    (station / "images").mkdir()
    write_png(station / "images" / "a.png", part(2))
    (station / "parts" / "dataset.toml").write_text(
        '[images]\nfolder = "."\n[masks]\nending = "_seg"\n'
    )
    summary = run(station, tmp_path / "out")
    wanted = {"label-file": 1, "label-folder": 1, "suffix .toml": 1}
    assert (summary.images, summary.passed_over) == (2, wanted)
    run(station, tmp_path / "fresh")
    assert tree(tmp_path / "out") == tree(tmp_path / "fresh")


def test_two_lines_are_never_counted_double(out: Path) -> None:
    double_a_line(out, out)
    with pytest.raises(RefusedError, match=r"has two lines for lot 0/195\.png"):
        read_report(out / "report.jsonl")


def test_images_that_would_share_a_mask_are_both_skipped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a file system that ignores case; also when the second comes later."""
    monkeypatch.setattr(resume, "ignores_case", lambda _: True)
    station = tmp_path / "station"
    for seed, name in enumerate(["A.png", "b.png", "d/e.png"]):
        (station / name).parent.mkdir(parents=True, exist_ok=True)
        write_png(station / name, part(seed))
    assert run(station, tmp_path / "out").inspected == 3
    write_png(station / "a.png", part(4))
    (station / "D").mkdir()
    write_png(station / "D" / "e.png", part(5))
    summary = run(station, tmp_path / "out")
    assert (summary.inspected, summary.reasons) == (1, {"name-taken": 4})
    run(station, tmp_path / "fresh")
    assert tree(tmp_path / "out") == tree(tmp_path / "fresh")
    assert sorted(tree(tmp_path / "out" / "masks")) == ["b.png"]
    (station / "a.png").unlink()
    assert run(station, tmp_path / "out").inspected == 2


def test_shards_judge_changed_images_again(
    station: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    out = tmp_path / "out"
    shards = [Shard(index, 3) for index in (1, 2, 3)]
    for shard in shards:
        run(station, out, shard=shard)
    for change in (overwrite, delete, add, delete_masks):
        change(station, out)
        backend = fake()
        run(station, out, backend, shard=shards[0])
        assert "run all shards again" in caplog.text
        assert not (out / "report.jsonl").exists(), "nothing says that the folder is complete"
        for shard in shards[1:]:
            run(station, out, backend, shard=shard)
        fresh = tmp_path / change.__name__
        run(station, fresh)
        assert tree(out) == tree(fresh)
        assert sum(backend.batches) <= IMAGES // 4
        caplog.clear()


def test_shards_are_not_merged_over_an_image_that_changed_meanwhile(
    station: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    out = tmp_path / "out"
    run(station, out, shard=Shard(1, 2))
    name = next(
        path.relative_to(station).as_posix()
        for path in sorted(station.rglob("*.png"))
        if path.relative_to(station).as_posix() in Shard(1, 2)
    )
    write_png(station / name, np.full((SIZE, SIZE), 255, np.uint8))
    run(station, out, shard=Shard(2, 2))
    assert "run all shards again" in caplog.text
    assert not (out / "report.jsonl").exists()
    run(station, out, shard=Shard(1, 2))
    run(station, tmp_path / "fresh")
    assert tree(out) == tree(tmp_path / "fresh")
