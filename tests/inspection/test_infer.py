from __future__ import annotations

import json
import os
import shutil
import subprocess
import threading
from pathlib import Path

import numpy as np
import pytest

from tinyunet_deploy.contract import Batch, Contract, defect_mask
from tinyunet_deploy.data.decoding import read_image
from tinyunet_deploy.data.encoding import encode_jpeg, encode_png, write_png
from tinyunet_deploy.errors import RefusedError, RuntimeUnavailable
from tinyunet_deploy.inspection.defects import find_defects
from tinyunet_deploy.inspection.infer import infer
from tinyunet_deploy.inspection.output_names import overlay_name
from tinyunet_deploy.inspection.outputs import Outputs
from tinyunet_deploy.inspection.report_line import ReportLine, RunSummary
from tinyunet_deploy.inspection.run_report import read_report
from tinyunet_deploy.inspection.walk import walk_images
from tinyunet_deploy.testing.fake_backend import FakeBackend


def run(
    sources: Path | list[Path],
    output: Path,
    backend: FakeBackend | None = None,
    *,
    threshold: float = 0.5,
    min_area: int = 4,
    batch_size: int = 3,
    workers: int = 2,
    outputs: Outputs | None = None,
    lines: list[ReportLine] | None = None,
) -> RunSummary:
    return infer(
        [sources] if isinstance(sources, Path) else sources,
        output,
        backend or FakeBackend(contract=Contract(64, 64)),
        threshold=threshold,
        min_area=min_area,
        batch_size=batch_size,
        workers=workers,
        outputs=outputs or Outputs(),
        on_line=None if lines is None else lines.append,
    )


def tree(folder: Path) -> dict[str, bytes]:
    """Every file below a folder, hidden ones too."""
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def test_masks_mirror_the_tree_and_keep_the_contract(station: Path, tmp_path: Path) -> None:
    summary = run(station, tmp_path / "out", threshold=0.9)
    images = {path.relative_to(station).as_posix(): path for path in walk_images([station])}
    masks = tree(tmp_path / "out" / "masks")
    assert list(masks) == sorted(images)
    assert len(masks) == 7
    defective = 0
    for name, path in images.items():
        score = read_image(path)  # the fake gives the image back
        mask = read_image(tmp_path / "out" / "masks" / name)
        assert np.array_equal(mask, defect_mask(score, 0.9))
        assert set(np.unique(mask)) <= {0, 255}
        defective += bool(find_defects(score, 0.9, 4))
    assert summary == RunSummary(
        images=7,
        inspected=7,
        skipped=0,
        ok=7 - defective,
        ng=defective,
        reasons={},
        max_score=summary.max_score,
    )
    assert sorted(tree(tmp_path / "out")) == sorted(
        [*(f"masks/{name}" for name in images), "defects.csv", "report.jsonl", "run.json"]
    )
    run(station, tmp_path / "half", threshold=0.5)
    assert tree(tmp_path / "half" / "masks") != masks, "the threshold makes a difference"


def test_the_report_tells_each_image_and_ends_in_a_summary(station: Path, tmp_path: Path) -> None:
    lines: list[ReportLine] = []
    summary = run(station, tmp_path / "out", lines=lines)
    text = (tmp_path / "out" / "report.jsonl").read_text()
    assert text.endswith("}\n")
    written = [json.loads(line) for line in text.splitlines()]
    assert written[:-1] == json.loads(json.dumps(lines))
    assert written[-1] == {
        "schema_version": 3,
        "summary": {
            "images": 7,
            "inspected": 7,
            "skipped": 0,
            "ok": 3,
            "ng": 4,
            "max_score": max(line["max_score"] for line in lines),
            "padded": 0,
            "tiled": 0,
            "approximate": 0,
            "notes": [],
            "reasons": {},
            "passed_over": {},
        },
    }
    names = [path.relative_to(station).as_posix() for path in walk_images([station])]
    assert [line["path"] for line in lines] == names
    for line in lines:
        score = read_image(station / line["path"])
        defects = find_defects(score, 0.5, 4)
        assert line["status"] == "inspected"
        assert line["verdict"] == ("NG" if defects else "OK")
        assert line["max_score"] == score.max()
        assert [tuple(defect["bbox"]) for defect in line["defects"]] == [d.bbox for d in defects]
        assert [defect["area_px"] for defect in line["defects"]] == [d.area_px for d in defects]
    assert read_report(tmp_path / "out" / "report.jsonl") == (written[:-1], summary)


def test_outlines_are_in_the_report_if_they_are_asked_for(station: Path, tmp_path: Path) -> None:
    for contours in (True, False):
        lines: list[ReportLine] = []
        outputs = Outputs(contours=contours)
        run(station, tmp_path / str(contours), outputs=outputs, lines=lines)
        defects = [defect for line in lines for defect in line["defects"]]
        assert defects
        assert all(("contour" in defect) == contours for defect in defects)


def test_min_area_decides_the_verdict_and_not_the_mask(station: Path, tmp_path: Path) -> None:
    small = run(station, tmp_path / "small", min_area=1)
    large = run(station, tmp_path / "large", min_area=4000)
    assert (small.ng, large.ng) == (4, 0)
    assert tree(tmp_path / "small" / "masks") == tree(tmp_path / "large" / "masks")


def break_some(station: Path) -> dict[str, str]:
    """Broken images in a station: name -> reason."""
    (station / "day 1" / "cut.png").write_bytes(encode_png(np.zeros((64, 64), np.uint8))[:-9])
    (station / "day 1" / "text.png").write_text("not an image")
    (station / "zero.png").touch()
    write_png(station / "day 2" / "small.png", np.zeros((33, 15), np.uint8))
    os.mkfifo(station / "fifo.png")
    return {
        "day 1/cut.png": "truncated",
        "day 1/text.png": "not-an-image",
        "day 2/small.png": "wrong-size",
        "fifo.png": "not-a-file",
        "zero.png": "empty",
    }


def test_broken_images_are_skipped_with_their_reason_and_others_are_intact(
    station: Path, tmp_path: Path
) -> None:
    run(station, tmp_path / "before")
    broken = break_some(station)
    summary = run(station, tmp_path / "out")
    assert (summary.images, summary.inspected, summary.skipped, summary.ng) == (12, 7, 5, 4)
    assert summary.reasons == dict.fromkeys(broken.values(), 1)
    assert tree(tmp_path / "out" / "masks") == tree(tmp_path / "before" / "masks")
    lines, told = read_report(tmp_path / "out" / "report.jsonl")
    assert told == summary
    skipped = {line["path"]: line["reason"] for line in lines if line["status"] == "skipped"}
    assert skipped == broken
    what = {line["path"]: line["what"] for line in lines if line["status"] == "skipped"}
    assert what["day 2/small.png"] == "has 15x33 pixels, fewer than 16 on a side"


def test_scores_and_overlays_are_written_when_asked_for(station: Path, tmp_path: Path) -> None:
    run(station, tmp_path / "out", outputs=Outputs(overlays=True, scores=True))
    written = tree(tmp_path / "out")
    for path in walk_images([station]):
        name = path.relative_to(station).as_posix()
        assert f"masks/{name}" in written
        score = read_image(tmp_path / "out" / "scores" / name)
        assert np.array_equal(score, read_image(path)), "the fake gives the image back"
        assert written[f"overlays/{overlay_name(name)}"].startswith(b"\xff\xd8\xff")
    assert len(written) == 3 * 7 + 3


def test_a_jpeg_and_its_png_have_a_mask_each(tmp_path: Path) -> None:
    station = tmp_path / "station"
    station.mkdir()
    bright = np.full((64, 64, 3), 255, np.uint8)
    (station / "a.jpg").write_bytes(encode_jpeg(bright))
    write_png(station / "a-jpg.png", np.zeros((64, 64), np.uint8))
    write_png(station / "a.png", np.zeros((64, 64), np.uint8))
    run(station, tmp_path / "out")
    masks = tree(tmp_path / "out" / "masks")
    assert sorted(masks) == ["a-jpg-png.png", "a-jpg.png", "a.png"]
    assert read_image(tmp_path / "out" / "masks" / "a-jpg.png").min() == 255
    assert read_image(tmp_path / "out" / "masks" / "a-jpg-png.png").max() == 0


def test_names_of_any_bytes_survive(tmp_path: Path) -> None:
    station = tmp_path / "station"
    station.mkdir()
    names = ["a\nb.png", "検査 1.png", "tab\t.png", os.fsdecode(b"\xff\xfe.png"), '"quoted".png']
    for name in names:
        write_png(station / name, np.zeros((64, 64), np.uint8))
    (station / os.fsdecode(b"broken-\xff.png")).touch()
    summary = run(station, tmp_path / "out")
    assert (summary.inspected, summary.skipped) == (5, 1)
    assert sorted(path.name for path in (tmp_path / "out" / "masks").iterdir()) == sorted(names)
    lines, _ = read_report(tmp_path / "out" / "report.jsonl")
    assert len(lines) == 6
    assert {line["path"] for line in lines if line["status"] == "inspected"} == set(names)
    backend = FakeBackend(contract=Contract(64, 64))
    before = tree(tmp_path / "out")
    run(station, tmp_path / "out", backend)
    assert backend.batches == []
    assert tree(tmp_path / "out") == before


@pytest.mark.parametrize(("batch_size", "workers"), [(1, 1), (1, 4), (3, 4), (8, 1), (8, 4)])
def test_batch_size_and_workers_change_no_byte(
    station: Path, tmp_path: Path, batch_size: int, workers: int
) -> None:
    break_some(station)
    outputs = Outputs(overlays=True, scores=True)
    run(station, tmp_path / "one", outputs=outputs)
    run(station, tmp_path / "two", outputs=outputs, batch_size=batch_size, workers=workers)
    assert tree(tmp_path / "one") == tree(tmp_path / "two")


def test_an_empty_folder_is_refused(tmp_path: Path) -> None:
    station = tmp_path / "station"
    station.mkdir()
    (station / "notes.txt").touch()
    with pytest.raises(RefusedError, match=r"contains no images \(image files end in .bmp .jpeg"):
        run(station, tmp_path / "out")


def test_the_output_may_lie_in_the_input(station: Path) -> None:
    first = run(station, station / "out", outputs=Outputs(scores=True))
    before = tree(station / "out")
    again = run(station, station / "out", outputs=Outputs(scores=True))
    assert first == again
    assert tree(station / "out") == before


def test_inputs_are_never_written_to(
    station: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = tree(station)
    monkeypatch.chdir(station / "day 1")
    run([Path("../day 2"), Path("left")], Path("../../out"))
    assert tree(station) == before
    assert sorted(tree(tmp_path / "out" / "masks")) == [
        "day 1/left/a.png",
        "day 2/a.png",
        "day 2/c.png",
    ]


def test_a_full_disk_stops_the_run_and_what_is_there_is_valid(
    station: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run(station, tmp_path / "undisturbed")
    really_replace, left = os.replace, 4

    def replace(temporary: str, target: Path) -> None:
        nonlocal left
        left -= 1
        if left < 0:
            raise OSError(28, "No space left on device")
        really_replace(temporary, target)

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", replace)
        with pytest.raises(RuntimeUnavailable, match="cannot write: No space left on device"):
            run(station, tmp_path / "out", batch_size=1, workers=1)
    names = [thread.name for thread in threading.enumerate()]
    assert not [name for name in names if name.startswith(("decode", "run", "write"))]
    wanted = tree(tmp_path / "undisturbed")
    for name, data in tree(tmp_path / "out" / "masks").items():
        assert data == wanted[f"masks/{name}"]
    assert read_report(tmp_path / "out" / "report.jsonl")[1] is None
    run(station, tmp_path / "out")
    assert tree(tmp_path / "out") == wanted


@pytest.mark.parametrize("how", ["deleted", "a link", "read-only"])
def test_without_its_output_folder_a_run_ends_with_one_line(
    station: Path, tmp_path: Path, how: str
) -> None:
    """The folder goes while images are inspected; the run is resumed once it is back."""
    output, aside = tmp_path / "out", tmp_path / "aside"
    calls = []

    def score(batch: Batch) -> Batch:
        calls.append(batch)
        if len(calls) == 3:
            if how == "read-only":
                mount("--bind", output, output)
                mount("-o", "remount,bind,ro", output)
            else:
                output.rename(aside)
            if how == "a link":
                (tmp_path / "elsewhere").mkdir()
                output.symlink_to("elsewhere")
        return batch

    def inspect(backend: FakeBackend) -> RunSummary:
        return infer([station], output, backend, batch_size=1, workers=0)

    backend = FakeBackend(score, contract=Contract(64, 64))
    try:
        with pytest.raises(RuntimeUnavailable) as caught:
            inspect(backend)
    finally:
        subprocess.run(["umount", output], check=False, capture_output=True)
    assert str(caught.value).startswith(f"{output}")
    assert "\n" not in str(caught.value)
    if how != "read-only":
        shutil.rmtree(tmp_path / "elsewhere", ignore_errors=True)
        if output.is_symlink():
            output.unlink()
        shutil.rmtree(output, ignore_errors=True)
        aside.rename(output)
    summary = inspect(FakeBackend(contract=Contract(64, 64)))
    fresh = infer(
        [station], tmp_path / "fresh", FakeBackend(contract=Contract(64, 64)),
        batch_size=1, workers=0,
    )  # fmt: skip
    assert summary == fresh


def mount(*words: object) -> None:
    """Mount something, or skip the test where that is not allowed."""
    if (
        shutil.which("mount") is None
        or subprocess.run(["mount", *map(str, words)], capture_output=True, check=False).returncode
    ):
        pytest.skip("no file system can be mounted here")
