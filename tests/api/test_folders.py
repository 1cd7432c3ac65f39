"""``td.inspect`` and ``td.watch``: the verdicts of the command line, in memory."""

from __future__ import annotations

import itertools
import json
import logging
import threading
from pathlib import Path

import numpy as np
import pytest

import tinyunet_deploy as td
from tests.conftest import SIZE, part
from tinyunet_deploy.contract import Contract, defect_mask
from tinyunet_deploy.data.encoding import write_png
from tinyunet_deploy.errors import ImageError, RefusedError
from tinyunet_deploy.inspection.infer import infer
from tinyunet_deploy.inspection.report_line import ReportLine
from tinyunet_deploy.testing.fake_backend import FakeBackend


def fake_model(threshold: float = 0.5, min_area: int = 4) -> td.Model:
    """A model to which bright pixels are defects."""
    backend = FakeBackend(contract=Contract(SIZE, SIZE), threshold=threshold, min_area=min_area)
    return td.Model(backend, batch_size=2)


def spoil(station: Path) -> None:
    """Add a file that is cut off, one of another size, and one that is not an image."""
    whole = (station / "day-3.png").read_bytes()
    (station / "day 1" / "cut.png").write_bytes(whole[: len(whole) // 2])
    write_png(station / "thin.png", part(1)[:8])
    (station / "notes.txt").write_text("not a part")


def test_every_verdict_and_every_reason_is_that_of_the_report(
    station: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    spoil(station)
    model = fake_model()
    lines: list[ReportLine] = []
    infer(
        [station],
        tmp_path / "out",
        model.backend,
        batch_size=3,
        workers=2,
        on_line=lines.append,
    )
    parts = list(td.inspect(str(station), model))
    assert [part.name for part in parts] == [line["path"] for line in lines]
    assert len(parts) == 9
    for part_, line in zip(parts, lines, strict=True):
        assert part_.path == station / line["path"]
        assert part_.verdict == line.get("verdict")
        assert part_.passes == (line.get("verdict") == "OK")
        if part_.error is not None:
            assert (part_.error.reason, part_.error.what) == (line["reason"], line["what"])
            assert (part_.image, part_.score, part_.mask, part_.defects) == (None, None, None, ())
            with pytest.raises(ImageError, match=part_.error.what):
                part_.overlay()
            continue
        assert [json.loads(json.dumps(d.as_fields())) for d in part_.defects] == json.loads(
            json.dumps(line["defects"])
        )
        assert part_.image is not None
        assert part_.score is not None
        assert np.array_equal(part_.image, td.read_image(part_.path))
        assert part_.mask is not None
        assert np.array_equal(part_.mask, defect_mask(part_.score, 0.5))
        mask = tmp_path / "out" / "masks" / line["path"]
        assert np.array_equal(part_.mask, td.read_image(mask))
    reasons = {part.name: part.error.reason for part in parts if part.error}
    assert reasons == {"day 1/cut.png": "truncated", "thin.png": "wrong-size"}
    assert f"{station}: passed over: 1 suffix .txt" in caplog.messages


def test_the_values_of_the_model_decide_unless_others_are_given(station: Path) -> None:
    model = fake_model()
    verdicts = [part.verdict for part in td.inspect(station, model)]
    assert verdicts.count("NG") == 4
    assert all(part.passes for part in td.inspect(station, model, threshold=1.0))
    assert all(part.passes for part in td.inspect(station, model, min_area=SIZE * SIZE))
    model.threshold = 1.0
    assert all(part.passes for part in td.inspect(station, model))
    with pytest.raises(ValueError, match=r"threshold 1\.5 is outside"):
        next(td.inspect(station, model, threshold=1.5))


def test_large_images_are_inspected_in_tiles_unless_told_not_to(
    station: Path, caplog: pytest.LogCaptureFixture
) -> None:
    write_png(station / "large.png", np.full((2 * SIZE, 3 * SIZE), 200, np.uint8))
    (skipped,) = td.inspect(station / "large.png", fake_model(), tile=False)
    (tiled,) = td.inspect(station / "large.png", fake_model())
    assert (skipped.verdict, tiled.verdict) == (None, "NG")
    note = "note: images of another size than the model's: 1 inspected in tiles"
    assert caplog.messages.count(note) == 1
    assert (tiled.overlay()[: 2 * SIZE, : 3 * SIZE] == 200).all(), "it is all defect"


def test_the_bits_of_the_camera_can_be_declared(tmp_path: Path) -> None:
    import cv2

    values = np.full((SIZE, SIZE), 4095, np.uint16)
    (tmp_path / "12.png").write_bytes(cv2.imencode(".png", values)[1].tobytes())
    (dark,) = td.inspect(tmp_path, fake_model())
    (bright,) = td.inspect(tmp_path, fake_model(), bits=12)
    assert (dark.verdict, bright.verdict) == ("OK", "NG")
    (tmp_path / "dataset.toml").write_text("[images]\nbit_depth = 12\n")
    (described,) = td.inspect(tmp_path, fake_model())
    assert described.verdict == "NG"


def test_a_part_comes_before_the_folder_is_read_to_its_end(tmp_path: Path) -> None:
    for index in range(200):
        write_png(tmp_path / f"{index:03}.png", part(index))
    model = fake_model()
    assert isinstance(model.backend, FakeBackend)
    parts = td.inspect(tmp_path, model, workers=1)
    assert [part.name for part in itertools.islice(parts, 3)] == ["000.png", "001.png", "002.png"]
    parts.close()
    assert sum(model.backend.batches) < 20
    assert model(np.zeros((1, SIZE, SIZE), np.uint8)).shape == (1, SIZE, SIZE), "free again"


def test_a_model_serves_one_inspection_at_a_time(station: Path) -> None:
    model = fake_model()
    image = np.zeros((1, SIZE, SIZE), np.uint8)
    for found in td.inspect(station, model):
        for other in (
            lambda: model(image),
            lambda: model.overlay(image[0]),
            lambda: next(td.inspect(station, model)),
        ):
            with pytest.raises(RuntimeError, match="in use by an unfinished inspection"):
                other()
        found.overlay()
    assert model(image).shape == image.shape


def test_no_images_give_no_parts_and_an_empty_folder_is_refused(tmp_path: Path) -> None:
    assert list(td.inspect([], fake_model())) == []
    with pytest.raises(RefusedError, match="contains no images"):
        next(td.inspect(tmp_path, fake_model()))
    with pytest.raises(RefusedError, match=r"absent: does not exist"):
        next(td.inspect([tmp_path, tmp_path / "absent"], fake_model()))


def test_several_files_and_folders_have_names_below_their_common_folder(station: Path) -> None:
    sources = [str(station / "day 1" / "left"), station / "day 2" / "c.png"]
    names = [part.name for part in td.inspect(sources, fake_model())]
    assert names == ["day 1/left/a.png", "day 2/c.png"]


def test_a_model_that_is_named_by_its_file_is_loaded_and_closed(
    station: Path, tiny_onnx: Path
) -> None:
    (named,) = td.inspect(station / "day-3.png", str(tiny_onnx))
    with td.load(tiny_onnx) as model:
        (loaded,) = td.inspect(station / "day-3.png", model)
    assert named.score is not None
    assert loaded.score is not None
    assert np.array_equal(named.score, loaded.score)


def test_a_watch_calls_for_every_part_and_is_resumed(
    station: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.ERROR)
    (station / "cut.png").write_bytes((station / "day-3.png").read_bytes()[:40])

    def watch_until(count: int) -> list[ReportLine]:
        stop = threading.Event()
        lines: list[ReportLine] = []

        def on_line(line: ReportLine) -> None:
            lines.append(line)
            if len(lines) == count:
                stop.set()

        watched = td.watch(
            str(station),
            str(tmp_path / "out"),
            fake_model(),
            on_line=on_line,
            stop=stop,
            overlays=True,
            settle_ms=1.0,
        )
        assert watched.summary.images >= count
        return lines

    first = watch_until(3)
    second = watch_until(5)
    names = [line["path"] for line in first + second]
    assert len(names) == len(set(names)) == 8
    by_name = {part.name: part for part in td.inspect(station, fake_model())}
    assert {line["path"]: line.get("verdict") for line in first + second} == {
        name: part.verdict for name, part in by_name.items()
    }
    assert sum(path.is_file() for path in (tmp_path / "out" / "overlays").rglob("*")) == 7
