from __future__ import annotations

import json
import os
import threading
import time
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tinyunet_deploy.contract import Batch, Contract, defect_mask
from tinyunet_deploy.data.decoding import IMAGE_SUFFIXES, read_image
from tinyunet_deploy.data.encoding import encode_jpeg, encode_png, write_png
from tinyunet_deploy.errors import ImageError, RefusedError, RuntimeUnavailable
from tinyunet_deploy.inspection.defects import find_defects
from tinyunet_deploy.inspection.pipeline import (
    Outputs,
    common_root,
    infer,
    png_name,
    score_images,
    walk_images,
)
from tinyunet_deploy.inspection.run_report import Line, Summary, read_report
from tinyunet_deploy.testing.fake_backend import FakeBackend

CONTRACT = Contract(16, 32)
SHAPE = (CONTRACT.height, CONTRACT.width)


def numbered(number: int) -> Batch:
    """An image that knows its number."""
    return np.full(SHAPE, number % 256, np.uint8)


@pytest.fixture(scope="session")
def shelf(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Thirty images with their number as grey value, and broken ones of the same numbers."""
    folder = tmp_path_factory.mktemp("shelf")
    for number in range(30):
        write_png(folder / f"{number:02}.png", numbered(number))
        (folder / f"{number:02}.broken.png").write_bytes(encode_png(numbered(number))[:-20])
    return folder


def good(shelf: Path, count: int) -> list[Path]:
    return [shelf / f"{number:02}.png" for number in range(count)]


def decoders_and_runners() -> list[str]:
    names = [thread.name for thread in threading.enumerate()]
    return [name for name in names if name.startswith(("decode", "run", "write"))]


def test_scores_come_in_the_order_of_the_paths(shelf: Path) -> None:
    paths = good(shelf, 30)[::-1]
    results = list(score_images(paths, FakeBackend(contract=CONTRACT), batch_size=4, workers=3))
    assert [result.path for result in results] == paths
    assert [result.index for result in results] == list(range(30))
    for path, result in zip(paths, results, strict=True):
        assert result.error is None
        assert result.image is not None
        assert result.score is not None
        assert np.array_equal(result.image, read_image(path))
        assert np.array_equal(result.score, read_image(path))


def test_a_broken_image_costs_itself_alone(shelf: Path) -> None:
    paths = good(shelf, 10)
    paths[3] = shelf / "03.broken.png"
    paths[9] = shelf / "missing.png"
    results = list(score_images(paths, FakeBackend(contract=CONTRACT), batch_size=4, workers=2))
    assert [result.path for result in results] == paths
    reasons = [result.error and result.error.reason for result in results]
    assert reasons == [None] * 3 + ["truncated"] + [None] * 5 + ["missing"]
    for result in results:
        assert (result.score is None) == (result.image is None) == (result.error is not None)
        if result.score is not None:
            assert result.score[0, 0] == result.index


def test_an_image_of_another_size_says_both(tmp_path: Path) -> None:
    write_png(tmp_path / "a.png", np.zeros((50, 33), np.uint8))
    write_png(tmp_path / "turned.png", np.zeros(SHAPE[::-1], np.uint8))
    paths = [tmp_path / "a.png", tmp_path / "turned.png"]
    results = list(score_images(paths, FakeBackend(contract=CONTRACT), batch_size=1, workers=1))
    assert isinstance(results[0].error, ImageError)
    assert results[0].error.reason == "wrong-size"
    assert results[0].error.what == "has 33x50 pixels, the model takes 32x16: try --tile"
    assert results[1].error is not None


@pytest.mark.parametrize(
    ("count", "batch_size", "wanted"),
    [(10, 4, [4, 4, 2]), (8, 4, [4, 4]), (3, 8, [3]), (3, 1, [1, 1, 1]), (0, 4, [])],
)
def test_batches_are_full_but_the_last(
    shelf: Path, count: int, batch_size: int, wanted: list[int]
) -> None:
    backend = FakeBackend(contract=CONTRACT)
    assert (
        len(list(score_images(good(shelf, count), backend, batch_size=batch_size, workers=2)))
        == count
    )
    assert backend.batches == wanted


def test_broken_images_do_not_make_batches_smaller(shelf: Path) -> None:
    backend = FakeBackend(contract=CONTRACT)
    paths = [path for image in good(shelf, 8) for path in (image, shelf / "00.broken.png")]
    list(score_images(paths, backend, batch_size=4, workers=2))
    assert backend.batches == [4, 4]


def test_batches_keep_to_what_the_backend_takes(shelf: Path) -> None:
    backend = FakeBackend(contract=Contract(*SHAPE, max_batch=3))
    results = list(score_images(good(shelf, 10), backend, batch_size=8, workers=2))
    assert len(results) == 10
    assert backend.batches == [3, 3, 3, 1]


@given(data=st.data())
@settings(max_examples=60)
def test_every_input_comes_out_once_and_in_its_place(data: st.DataObject, shelf: Path) -> None:
    broken = data.draw(st.lists(st.booleans(), max_size=30))
    paths = [
        shelf / (f"{number:02}.broken.png" if bad else f"{number:02}.png")
        for number, bad in enumerate(broken)
    ]
    contract = Contract(*SHAPE, max_batch=data.draw(st.none() | st.integers(1, 9)))
    backend = FakeBackend(contract=contract)
    batch_size, workers = data.draw(st.integers(1, 9)), data.draw(st.integers(1, 5))
    results = list(score_images(paths, backend, batch_size=batch_size, workers=workers))
    assert [result.path for result in results] == paths
    assert [result.error is not None for result in results] == broken
    for number, result in enumerate(results):
        assert result.score is None or (result.score == number).all()
    assert sum(backend.batches) == broken.count(False)
    assert max(backend.batches, default=0) <= min(batch_size, contract.max_batch or batch_size)


@pytest.mark.parametrize("broken", [False, True])
def test_paths_are_taken_as_they_are_needed(shelf: Path, broken: bool) -> None:
    taken = 0

    def many() -> Iterator[Path]:
        nonlocal taken
        for _ in range(2000):
            taken += 1
            yield shelf / ("00.broken.png" if broken else "00.png")

    batch_size, workers = 4, 2
    bound = (batch_size + 2 * workers) + 4 * batch_size * (16 if broken else 1)
    results = score_images(
        many(), FakeBackend(contract=CONTRACT), batch_size=batch_size, workers=workers
    )
    for done in range(1, 300):
        next(results)
        assert taken - done <= bound
    results.close()


def test_memory_holds_images_of_a_few_batches_only(shelf: Path) -> None:
    """While the caller rests, decoding rests too."""
    backend = FakeBackend(contract=CONTRACT)
    results = score_images(good(shelf, 30), backend, batch_size=2, workers=1)
    next(results)
    time.sleep(0.3)
    assert sum(backend.batches) <= 6
    results.close()


def test_closing_early_ends_all_threads(shelf: Path) -> None:
    backend = FakeBackend(contract=CONTRACT, delay_s=0.01)
    results = score_images(good(shelf, 30), backend, batch_size=2, workers=3)
    next(results)
    assert decoders_and_runners()
    results.close()
    assert decoders_and_runners() == []
    run = len(backend.batches)
    time.sleep(0.1)
    assert len(backend.batches) == run < 15


@pytest.mark.parametrize("batch_size", [1, 4, 100])
def test_an_error_of_the_backend_reaches_the_caller(shelf: Path, batch_size: int) -> None:
    def fail(batch: Batch) -> Batch:
        if batch.max() >= 7:
            raise RuntimeUnavailable("cuda:0", "is gone")
        return batch

    results = score_images(
        good(shelf, 30), FakeBackend(fail, contract=CONTRACT), batch_size=batch_size, workers=2
    )
    done = []
    with pytest.raises(RuntimeUnavailable, match="cuda:0: is gone"):
        done.extend(result.index for result in results)
    assert done == list(range(len(done)))
    assert decoders_and_runners() == []


def test_an_error_of_the_paths_reaches_the_caller(shelf: Path) -> None:
    def paths() -> Iterator[Path]:
        yield shelf / "00.png"
        raise RefusedError("station", "cannot be listed")

    with pytest.raises(RefusedError, match="station: cannot be listed"):
        list(score_images(paths(), FakeBackend(contract=CONTRACT), batch_size=1, workers=1))
    assert decoders_and_runners() == []


def test_decoding_and_running_overlap(shelf: Path) -> None:
    """The backend is called by one thread at a time, and never by the caller's."""
    callers, inside = set(), []

    def watch(batch: Batch) -> Batch:
        callers.add(threading.current_thread().name)
        inside.append(1)
        assert len(inside) == 1
        time.sleep(0.002)
        inside.pop()
        return batch

    backend = FakeBackend(watch, contract=CONTRACT)
    assert len(list(score_images(good(shelf, 20), backend, batch_size=2, workers=4))) == 20
    assert len(callers) == 1
    assert threading.current_thread().name not in callers


# Which files


def names(sources: list[Path], output: Path | None = None) -> list[str]:
    root = common_root(sources)
    return [path.relative_to(root).as_posix() for path in walk_images(sources, output)]


def touch(folder: Path, *names: str) -> None:
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()


def test_a_folder_gives_its_images_in_the_order_of_their_names(tmp_path: Path) -> None:
    wanted = ["a/2.png", "a/10.png", "a.png", "b.JPG", "c/d/e/f.tiff", "z.Bmp"]
    touch(tmp_path, *reversed(wanted), "notes.txt", "a/Thumbs.db", "c/empty/readme.md", "png")
    (tmp_path / "folder.png").mkdir()
    touch(tmp_path, "folder.png/inside.png")
    found = names([tmp_path])
    assert sorted(found) == sorted([*wanted, "folder.png/inside.png"])
    assert found == sorted(found, key=lambda name: name.split("/"))


def test_hidden_files_and_folders_are_passed_over(tmp_path: Path) -> None:
    touch(tmp_path, ".a.png", ".trash/b.png", "c.png", "d/._e.png")
    assert names([tmp_path]) == ["c.png"]


def test_the_output_folder_is_passed_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    touch(tmp_path, "a.png", "out/masks/a.png", "other/out/b.png")
    monkeypatch.chdir(tmp_path / "other")
    for output in (tmp_path / "out", Path("../out"), Path("../other/../out")):
        assert names([tmp_path], output) == ["a.png", "other/out/b.png"]


def test_truth_folders_of_the_released_layout_are_passed_over(tmp_path: Path) -> None:
    touch(tmp_path, "Class1/Train/0001.PNG", "Class1/Train/Label/0001_label.PNG")
    touch(tmp_path, "Class1/Train/Label/Labels.txt", "Class1/Train/Truth/0001.PNG")
    touch(tmp_path, "shop/Label/sticker.png", "shop/Truth/poster.png")
    assert names([tmp_path]) == [
        "Class1/Train/0001.PNG",
        "shop/Label/sticker.png",
        "shop/Truth/poster.png",
    ]


def test_links_to_folders_are_not_followed_but_links_to_files_are(tmp_path: Path) -> None:
    touch(tmp_path, "real/a.png")
    (tmp_path / "again").symlink_to("real")
    (tmp_path / "real" / "round").symlink_to(tmp_path)
    (tmp_path / "real" / "b.png").symlink_to("a.png")
    assert names([tmp_path]) == ["real/a.png", "real/b.png"]


def test_what_is_named_is_always_taken(tmp_path: Path) -> None:
    touch(tmp_path, "a.png", "b.raw", ".c.png", ".d/e.png", "Label/Labels.txt", "Label/f.png")
    (tmp_path / "link").symlink_to(".d")
    (tmp_path / "g.png").symlink_to("b.raw")
    named = ["b.raw", ".c.png", "Label/f.png", "g.png", "missing.png"]
    sources = [tmp_path / name for name in named]
    assert names(sources) == sorted(named)
    assert names([*sources, tmp_path]) == sorted([*named, "a.png"]), "also inside a named folder"
    assert names([tmp_path, tmp_path / ".d"]) == [".d/e.png", "a.png", "g.png"]
    assert names([tmp_path, tmp_path / "link"]) == [".d/e.png", "a.png", "g.png"]


def test_each_image_is_taken_once_however_often_it_is_named(tmp_path: Path) -> None:
    touch(tmp_path, "a/1.png", "a/b/2.png", "c/3.png")
    a, b, c = tmp_path / "a", tmp_path / "a" / "b", tmp_path / "c"
    wanted = ["a/1.png", "a/b/2.png", "c/3.png"]
    assert names([c, a]) == wanted
    assert names([c, b, a, a, c / "3.png", b / "2.png", tmp_path / "c" / ".." / "a"]) == wanted


@given(sources=st.lists(st.sampled_from(["", "a", "a/b", "c", "a/1.png", "a/b/2.png"]), min_size=1))
def test_any_sources_give_each_image_once_and_in_order(shelf: Path, sources: list[str]) -> None:
    folder = shelf.with_name("tree")
    if not folder.exists():
        touch(folder, "0.png", "a/1.png", "a/b/2.png", "a/b.png", "c/3.png", "a-b.png")
    found = list(walk_images([folder / source for source in sources]))
    parts = [path.parts for path in found]
    assert all(one < other for one, other in pairwise(parts))
    for source in sources:
        below = list(walk_images([folder / source]))
        assert set(below) <= set(found)


def test_a_folder_is_read_while_it_is_walked(tmp_path: Path) -> None:
    touch(tmp_path, "a/1.png", "b/1.png")
    walk = walk_images([tmp_path])
    next(walk)
    touch(tmp_path, "b/2.png")
    assert [path.name for path in walk] == ["1.png", "2.png"]


@pytest.mark.skipif(os.geteuid() == 0, reason="root may list everything")
def test_a_folder_that_cannot_be_listed_is_told(tmp_path: Path) -> None:
    (tmp_path / "locked").mkdir(mode=0)
    with pytest.raises(RefusedError, match="locked: cannot be listed: Permission denied"):
        list(walk_images([tmp_path]))


def test_the_common_root_is_where_the_sources_part(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    touch(tmp_path, "a/b/1.png", "a/c/2.png")
    a = tmp_path / "a"
    assert common_root([a]) == a
    assert common_root([a / "b" / "1.png"]) == a / "b"
    assert common_root([a / "b", a / "c"]) == a
    assert common_root([a / "b" / "1.png", a]) == a
    monkeypatch.chdir(a / "b")
    assert common_root([Path("../c"), Path()]) == a
    assert common_root([Path("../c/2.png"), Path("../b/1.png")]) == a


def test_mirrored_names_never_leave_the_tree(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    touch(tmp_path, "here/1.png", "train/2.png")
    monkeypatch.chdir(tmp_path / "here")
    assert names([Path("../train"), Path("../here")]) == ["here/1.png", "train/2.png"]
    assert names([Path("../train"), Path("1.png")]) == ["here/1.png", "train/2.png"]


@pytest.mark.parametrize(
    ("name", "wanted"),
    [
        ("a.png", "a.png"),
        ("a/0001.PNG", "a/0001.PNG"),
        ("a.jpg", "a.jpg.png"),
        ("a.bmp", "a.bmp.png"),
        ("a", "a.png"),
        ("part.0001.png", "part.0001.png"),
        ("a.jpg.png", "a.jpg.png.png"),
    ],
)
def test_a_mask_is_named_as_its_image(name: str, wanted: str) -> None:
    assert png_name(name) == wanted


suffixes = st.lists(
    st.sampled_from([*sorted(IMAGE_SUFFIXES), ".PNG", ".Jpg", ".x"]), min_size=1, max_size=4
)


@given(suffixes, suffixes)
def test_two_images_never_share_a_mask(one: list[str], other: list[str]) -> None:
    first, second = ("part" + "".join(parts) for parts in (one, other))
    if all(Path(name).suffix.lower() in IMAGE_SUFFIXES for name in (first, second)):
        assert (png_name(first) == png_name(second)) == (first == second)
    assert png_name(first).lower().endswith(".png")


# infer


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
    lines: list[Line] | None = None,
) -> Summary:
    return infer(
        [sources] if isinstance(sources, Path) else sources,
        output,
        backend or FakeBackend(contract=Contract(64, 64)),
        threshold=threshold,
        min_area=min_area,
        batch_size=batch_size,
        workers=workers,
        outputs=outputs or Outputs(),
        each=None if lines is None else lines.append,
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
    assert summary == Summary(images=7, ok=7, skipped=0, ng=defective, reasons={})
    assert sorted(tree(tmp_path / "out")) == sorted(
        [*(f"masks/{name}" for name in images), "defects.csv", "report.jsonl", "run.json"]
    )
    run(station, tmp_path / "half", threshold=0.5)
    assert tree(tmp_path / "half" / "masks") != masks, "the threshold makes a difference"


def test_the_report_tells_each_image_and_ends_in_a_summary(station: Path, tmp_path: Path) -> None:
    lines: list[Line] = []
    summary = run(station, tmp_path / "out", lines=lines)
    text = (tmp_path / "out" / "report.jsonl").read_text()
    assert text.endswith("}\n")
    written = [json.loads(line) for line in text.splitlines()]
    assert written[:-1] == json.loads(json.dumps(lines))
    assert written[-1] == {
        "schema_version": 1,
        "summary": {"images": 7, "ok": 7, "skipped": 0, "ng": 4, "reasons": {}},
    }
    names = [path.relative_to(station).as_posix() for path in walk_images([station])]
    assert [line["path"] for line in lines] == names
    for line in lines:
        score = read_image(station / line["path"])
        defects = find_defects(score, 0.5, 4)
        assert line["status"] == "ok"
        assert line["verdict"] == ("NG" if defects else "OK")
        assert line["max_score"] == score.max()
        assert [tuple(defect["bbox"]) for defect in line["defects"]] == [d.bbox for d in defects]
        assert [defect["area_px"] for defect in line["defects"]] == [d.area_px for d in defects]
    assert read_report(tmp_path / "out" / "report.jsonl") == (written[:-1], summary)


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
    write_png(station / "day 2" / "small.png", np.zeros((33, 50), np.uint8))
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
    assert (summary.images, summary.ok, summary.skipped, summary.ng) == (12, 7, 5, 4)
    assert summary.reasons == dict.fromkeys(broken.values(), 1)
    assert tree(tmp_path / "out" / "masks") == tree(tmp_path / "before" / "masks")
    lines, told = read_report(tmp_path / "out" / "report.jsonl")
    assert told == summary
    skipped = {line["path"]: line["reason"] for line in lines if line["status"] == "skipped"}
    assert skipped == broken
    what = {line["path"]: line["what"] for line in lines if line["status"] == "skipped"}
    assert what["day 2/small.png"] == "has 50x33 pixels, the model takes 64x64"


def test_scores_and_overlays_are_written_when_asked_for(station: Path, tmp_path: Path) -> None:
    run(station, tmp_path / "out", outputs=Outputs(overlays=True, scores=True))
    written = tree(tmp_path / "out")
    for path in walk_images([station]):
        name = path.relative_to(station).as_posix()
        assert f"masks/{name}" in written
        score = read_image(tmp_path / "out" / "scores" / name)
        assert np.array_equal(score, read_image(path)), "the fake gives the image back"
        assert written[f"overlays/{name}.jpg"].startswith(b"\xff\xd8\xff")
    assert len(written) == 3 * 7 + 3


def test_a_jpeg_and_its_png_have_a_mask_each(tmp_path: Path) -> None:
    station = tmp_path / "station"
    station.mkdir()
    bright = np.full((64, 64, 3), 255, np.uint8)
    (station / "a.jpg").write_bytes(encode_jpeg(bright))
    write_png(station / "a.jpg.png", np.zeros((64, 64), np.uint8))
    write_png(station / "a.png", np.zeros((64, 64), np.uint8))
    run(station, tmp_path / "out")
    masks = tree(tmp_path / "out" / "masks")
    assert list(masks) == ["a.jpg.png", "a.jpg.png.png", "a.png"]
    assert read_image(tmp_path / "out" / "masks" / "a.jpg.png").min() == 255
    assert read_image(tmp_path / "out" / "masks" / "a.jpg.png.png").max() == 0


def test_names_of_any_bytes_survive(tmp_path: Path) -> None:
    station = tmp_path / "station"
    station.mkdir()
    names = ["a\nb.png", "検査 1.png", "tab\t.png", os.fsdecode(b"\xff\xfe.png"), '"quoted".png']
    for name in names:
        write_png(station / name, np.zeros((64, 64), np.uint8))
    (station / os.fsdecode(b"broken-\xff.png")).touch()
    summary = run(station, tmp_path / "out")
    assert (summary.ok, summary.skipped) == (5, 1)
    assert sorted(path.name for path in (tmp_path / "out" / "masks").iterdir()) == sorted(names)
    lines, _ = read_report(tmp_path / "out" / "report.jsonl")
    assert len(lines) == 6
    assert {line["path"] for line in lines if line["status"] == "ok"} == set(names)
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
    touch(station, "notes.txt")
    with pytest.raises(RefusedError, match=r"station: holds no image \(suffixes are .bmp .jpeg"):
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
    really_replace, left = Path.replace, 4

    def replace(temporary: Path, target: Path) -> Path:
        nonlocal left
        left -= 1
        if left < 0:
            raise OSError(28, "No space left on device")
        return really_replace(temporary, target)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", replace)
        with pytest.raises(RuntimeUnavailable, match="cannot write: No space left on device"):
            run(station, tmp_path / "out", batch_size=1, workers=1)
    assert decoders_and_runners() == []
    wanted = tree(tmp_path / "undisturbed")
    for name, data in tree(tmp_path / "out" / "masks").items():
        assert data == wanted[f"masks/{name}"]
    assert read_report(tmp_path / "out" / "report.jsonl")[1] is None
    run(station, tmp_path / "out")
    assert tree(tmp_path / "out") == wanted
