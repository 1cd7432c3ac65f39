"""``tinyunet infer`` from end to end, with the tiny network as an ONNX file."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from tests.conftest import REPOSITORY
from tinyunet_deploy.backends.registry import open_backend
from tinyunet_deploy.cli import run, tinyunet
from tinyunet_deploy.cli.infer import infer
from tinyunet_deploy.contract import Score, defect_mask
from tinyunet_deploy.data.decoding import read_image
from tinyunet_deploy.data.encoding import encode_png, write_png
from tinyunet_deploy.inspection.run_report import read_report
from tinyunet_deploy.inspection.walk import walk_images

THRESHOLD = 0.55
"""Probability that the scores of the untrained network lie on both sides of."""


class Outcome(NamedTuple):
    code: int
    out: str
    err: str

    @property
    def summary(self) -> dict[str, Any]:
        """What ``--format json`` printed, and nothing beside it."""
        fields: dict[str, Any] = json.loads(self.out)
        return fields


Tinyunet = Callable[..., Outcome]


@pytest.fixture
def tinyunet_infer(tiny_onnx: Path, capfd: pytest.CaptureFixture[str]) -> Tinyunet:
    """``tinyunet infer ...`` with the tiny model; also what OpenCV prints by itself is seen."""

    def call(*arguments: object) -> Outcome:
        words = [str(argument) for argument in arguments]
        if "--model" not in words:
            words += ["--model", str(tiny_onnx)]
        if "--backend" not in words:
            words += ["--backend", "onnxruntime"]
        capfd.readouterr()
        code = run(tinyunet, ["infer", *words])
        return Outcome(code, *capfd.readouterr())

    return call


@pytest.fixture(scope="module")
def score(tiny_onnx: Path) -> Callable[[Path], Score]:
    """The score of one image by itself."""
    backend = open_backend(tiny_onnx, "onnxruntime")

    def score(path: Path) -> Score:
        result: Score = backend.run(read_image(path)[None, None]).score[0, 0]
        return result

    return score


def tree(folder: Path) -> dict[str, bytes]:
    """Every file below a folder, hidden ones too."""
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def test_masks_are_the_scores_over_the_threshold(
    station: Path, tmp_path: Path, tinyunet_infer: Tinyunet, score: Callable[[Path], Score]
) -> None:
    outcome = tinyunet_infer(station, "-o", tmp_path / "out", "--threshold", THRESHOLD)
    assert outcome.code == 0
    masks = [read_image(tmp_path / "out" / "masks" / name) for name in mirrored(station)]
    for name, mask in zip(mirrored(station), masks, strict=True):
        assert set(np.unique(mask)) <= {0, 255}
        assert np.array_equal(mask, defect_mask(score(station / name), THRESHOLD)), name
    assert sum(mask.any() for mask in masks) > 0, "a test worth its name"
    assert not all(mask.all() for mask in masks)
    assert outcome.err.splitlines()[-1].startswith("7 images in ")
    lines, summary = read_report(tmp_path / "out" / "report.jsonl")
    assert summary is not None
    assert outcome.out == (
        f"7 images: {7 - summary.ng} OK, {summary.ng} NG, 0 skipped\n"
        f"masks: {tmp_path}/out/masks (7)  report: {tmp_path}/out/report.jsonl (7 images)"
        f"  defects: {tmp_path}/out/defects.csv ({sum(len(line['defects']) for line in lines)})\n"
    )
    assert [line["path"] for line in lines] == mirrored(station)


def mirrored(station: Path) -> list[str]:
    return [path.relative_to(station).as_posix() for path in walk_images([station])]


def test_the_model_says_threshold_and_min_area_unless_the_user_does(
    station: Path, tmp_path: Path, tinyunet_infer: Tinyunet
) -> None:
    assert tinyunet_infer(station, "-o", tmp_path / "a").code == 0
    assert (
        tinyunet_infer(station, "-o", tmp_path / "b", "--threshold", 0.45, "--min-area", 3).code
        == 0
    )
    assert tree(tmp_path / "a") == tree(tmp_path / "b")
    run_record = json.loads((tmp_path / "a" / "run.json").read_text())
    assert (run_record["threshold"], run_record["min_area"]) == (0.45, 3)
    assert tinyunet_infer(station, "-o", tmp_path / "c", "--min-area", 5000).code == 0
    _, summary = read_report(tmp_path / "c" / "report.jsonl")
    assert summary is not None
    assert summary.ng == 0


def test_json_is_all_there_is_on_stdout(
    station: Path, tmp_path: Path, tinyunet_infer: Tinyunet
) -> None:
    break_some(station)
    outcome = tinyunet_infer(station, "-o", tmp_path / "out", "--format", "json")
    assert outcome.code == 3
    assert outcome.summary["schema_version"] == 2
    assert outcome.summary["images"] == 10
    assert outcome.summary["skipped"] == 3
    assert outcome.summary["reasons"] == {"truncated": 1, "not-an-image": 1, "wrong-size": 1}


def break_some(station: Path) -> None:
    (station / "day 1" / "cut.png").write_bytes(encode_png(np.zeros((64, 64), np.uint8))[:-9])
    (station / "day 1" / "text.png").write_text("not an image")
    write_png(station / "day 2" / "small.png", np.zeros((33, 15), np.uint8))


def test_broken_images_are_skipped_and_told_one_line_each(
    station: Path, tmp_path: Path, tinyunet_infer: Tinyunet
) -> None:
    tinyunet_infer(station, "-o", tmp_path / "whole")
    break_some(station)
    outcome = tinyunet_infer(station, "-o", tmp_path / "out")
    assert outcome.code == 3
    assert outcome.err.splitlines()[:-1] == [
        "skipped: day 1/cut.png: ends before the image does",
        "skipped: day 1/text.png: is not a PNG, JPEG, BMP, TIFF, WebP or PNM image",
        "skipped: day 2/small.png: has 15x33 pixels, fewer than 16 on a side",
    ]
    assert ", 3 skipped\n" in outcome.out
    assert tree(tmp_path / "out" / "masks") == tree(tmp_path / "whole" / "masks")


def test_grey_stored_as_rgb_or_jpeg_is_taken(
    station: Path, tmp_path: Path, tinyunet_infer: Tinyunet, score: Callable[[Path], Score]
) -> None:
    grey = read_image(station / "z" / "y" / "x.png")
    colours = tmp_path / "colours"
    colours.mkdir()
    write_png(colours / "rgb.png", cv2.cvtColor(grey, cv2.COLOR_GRAY2BGR))
    cv2.imwrite(str(colours / "grey.jpg"), grey)
    assert tinyunet_infer(colours, "-o", tmp_path / "out", "--threshold", THRESHOLD).code == 0
    masks = tmp_path / "out" / "masks"
    wanted = defect_mask(score(station / "z" / "y" / "x.png"), THRESHOLD)
    assert np.array_equal(read_image(masks / "rgb.png"), wanted)
    assert read_image(masks / "grey-jpg.png").shape == (64, 64)


def test_nothing_usable_is_refused(tmp_path: Path, tinyunet_infer: Tinyunet) -> None:
    empty, broken = tmp_path / "empty", tmp_path / "broken"
    empty.mkdir()
    broken.mkdir()
    (broken / "a.png").touch()
    outcome = tinyunet_infer(empty, "-o", tmp_path / "out")
    assert outcome.code == 4
    assert outcome.out == ""
    assert outcome.err.startswith(
        f"error: {empty}: contains no images (image files end in .bmp .jpeg"
    )
    outcome = tinyunet_infer(broken, "-o", tmp_path / "out2")
    assert outcome.code == 4
    assert outcome.err.splitlines()[-1] == (
        f"error: {tmp_path}/out2/report.jsonl: no image was usable (the report has each reason)"
    )


@pytest.mark.parametrize(
    "arguments",
    [
        ["missing.png", "-o", "out"],
        ["station"],
        ["-o", "out"],
        ["station", "-o", "out", "--threshold", "1.5"],
        ["station", "-o", "out", "--threshold", "1"],
        ["station", "-o", "out", "--threshold", "0.999"],
        ["station", "-o", "out", "--min-area", "0"],
        ["station", "-o", "out", "--min-area", "100000000"],
        ["station", "-o", "out", "--batch-size", "0"],
        ["station", "-o", "out", "--workers", "0"],
        ["station", "-o", "out", "--backend", "magic"],
        ["station", "-o", "file"],
        ["station", "-o", "out", "--nonsense"],
    ],
    ids=" ".join,
)
def test_usage_errors_write_nothing(
    station: Path,
    tmp_path: Path,
    tinyunet_infer: Tinyunet,
    monkeypatch: pytest.MonkeyPatch,
    arguments: list[str],
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.chdir(tmp_path)
    outcome = tinyunet_infer(*arguments)
    assert outcome.code == 2
    assert outcome.out == ""
    assert "Usage:" in outcome.err
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "station"]


def test_an_unusable_model_or_device_writes_nothing(
    station: Path, tmp_path: Path, tinyunet_infer: Tinyunet, tiny_onnx: Path
) -> None:
    changed = tmp_path / "model.onnx"
    changed.write_bytes(tiny_onnx.read_bytes()[:-1])
    shutil.copy(f"{tiny_onnx}.json", f"{changed}.json")
    alone = tmp_path / "alone.onnx"
    shutil.copy(tiny_onnx, alone)
    for arguments, code, line in [
        (
            ["--model", changed],
            4,
            f"error: {changed}: is not the file that its sidecar describes (",
        ),
        (["--model", alone], 4, f"error: {alone}: has no sidecar, so nothing is known about it ("),
        (["--model", tmp_path / "no.onnx"], 4, f"error: {tmp_path}/no.onnx: does not exist ("),
        (
            ["--model", tmp_path / "no.engine"],
            4,
            f"error: {tmp_path}/no.engine: is not a model by its",
        ),
        (["--backend", "torch"], 4, f"error: {tiny_onnx}: is of kind onnx, which torch does"),
        (["--device", "gpu"], 5, "error: gpu: is not a device (use cpu or cuda:0)"),
    ]:
        outcome = tinyunet_infer(station, "-o", tmp_path / "out", *arguments)
        assert outcome.code == code, outcome
        assert outcome.err.startswith(line)
        assert outcome.err.count("\n") == 1
        assert outcome.out == ""
        assert not (tmp_path / "out").exists()


def test_a_second_run_says_the_same_and_changes_nothing(
    station: Path, tmp_path: Path, tinyunet_infer: Tinyunet
) -> None:
    break_some(station)
    first = tinyunet_infer(station, "-o", tmp_path / "out", "--format", "json")
    before = tree(tmp_path / "out")
    second = tinyunet_infer(station, "-o", tmp_path / "out", "--format", "json")
    assert (second.code, second.summary) == (3, first.summary)
    assert second.err.splitlines()[-1].startswith("3 images in "), "the skipped ones"
    assert tree(tmp_path / "out") == before


def test_another_run_is_refused_and_changes_nothing(
    station: Path, tmp_path: Path, tinyunet_infer: Tinyunet, tiny_onnx: Path
) -> None:
    from tinyunet_deploy.artifacts.sidecar import Sidecar, digest, read_sidecar, write_artifact

    assert tinyunet_infer(station, "-o", tmp_path / "out").code == 0
    before = tree(tmp_path / "out")
    newer = tmp_path / "newer.onnx"
    data = tiny_onnx.read_bytes() + b"\x72\x00"  # an empty field that every reader skips
    fields = {**vars(read_sidecar(tiny_onnx)), "sha256": digest(data)}
    write_artifact(newer, data, Sidecar(**fields))
    for arguments, name in [
        (["--threshold", 0.6], "threshold"),
        (["--min-area", 9], "min_area"),
        (["--scores"], "scores"),
        (["--overlays"], "overlays"),
        (["--backend", "openvino"], "backend"),
        (["--model", newer], "model_sha256"),
    ]:
        outcome = tinyunet_infer(station, "-o", tmp_path / "out", *arguments)
        assert outcome.code == 4, outcome
        assert outcome.err == (
            f"error: {tmp_path}/out: was made with another {name} (give another -o)\n"
        )
        assert tree(tmp_path / "out") == before


def test_a_foreign_folder_and_a_folder_in_use_are_refused(
    station: Path, tmp_path: Path, tinyunet_infer: Tinyunet
) -> None:
    before = tree(station)
    outcome = tinyunet_infer(station, "-o", station)
    assert outcome.code == 4
    assert "is not empty and was not written by tinyunet" in outcome.err
    assert tree(station) == before

    (tmp_path / "out").mkdir()
    lock = os.open(tmp_path / "out", os.O_RDONLY)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        outcome = tinyunet_infer(station, "-o", tmp_path / "out")
    finally:
        os.close(lock)
    assert outcome.code == 4
    assert outcome.err == f"error: {tmp_path}/out: is in use by another process\n"
    assert tree(tmp_path / "out") == {}


@pytest.mark.parametrize(("batch_size", "workers"), [(1, 4), (3, 1), (8, 4)])
def test_batch_size_and_workers_change_no_byte(
    station: Path, tmp_path: Path, tinyunet_infer: Tinyunet, batch_size: int, workers: int
) -> None:
    break_some(station)
    options = ["--scores", "--overlays", "--threshold", THRESHOLD]
    tinyunet_infer(station, "-o", tmp_path / "one", "-b", 1, "--workers", 1, *options)
    tinyunet_infer(
        station, "-o", tmp_path / "two", "-b", batch_size, "--workers", workers, *options
    )
    assert len(tree(tmp_path / "one")) == 3 * 7 + 3
    assert tree(tmp_path / "one") == tree(tmp_path / "two")


def test_a_traceback_only_with_debug(
    station: Path, tmp_path: Path, tinyunet_infer: Tinyunet
) -> None:
    arguments = (station, "-o", tmp_path / "out", "--device", "gpu")
    assert "Traceback" not in tinyunet_infer(*arguments).err
    outcome = tinyunet_infer(*arguments, "--debug")
    assert outcome.code == 5
    assert outcome.err.startswith("Traceback")
    assert outcome.err.endswith("error: gpu: is not a device (use cpu or cuda:0)\n")


def test_without_a_backend_the_first_that_fits_is_taken(
    station: Path, tmp_path: Path, tiny_onnx: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert run(infer, [str(station), "-o", str(tmp_path / "out"), "-m", str(tiny_onnx)]) == 0
    assert capfd.readouterr().err.endswith(" on openvino\n")
    assert json.loads((tmp_path / "out" / "run.json").read_text())["backend"] == "openvino"


def start(*arguments: object, **environment: str) -> subprocess.Popen[bytes]:
    """``tinyunet-infer`` in a process of its own."""
    entry = "from tinyunet_deploy.cli import infer_main; infer_main()"
    return subprocess.Popen(
        [sys.executable, "-c", entry, *map(str, arguments)],
        env={**os.environ, "PYTHONPATH": str(REPOSITORY), **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )


@pytest.mark.parametrize("language", ["C.UTF-8", "C"])
def test_names_of_any_bytes_survive(tmp_path: Path, tiny_onnx: Path, language: str) -> None:
    station = tmp_path / os.fsdecode(b"station \xfe")
    station.mkdir()
    names = ["a\nb.png", "検査.png", os.fsdecode(b"\xff.png")]
    for name in names:
        write_png(station / name, np.zeros((64, 64), np.uint8))
    (station / os.fsdecode(b"broken\n\xff.png")).touch()
    output = tmp_path / os.fsdecode(b"out \xfd")
    arguments = (station, "-o", output, "-m", tiny_onnx, "--backend", "onnxruntime")
    with start(*arguments, LC_ALL=language) as process:
        out, err = process.communicate(timeout=120)
    assert process.returncode == 3, err
    assert b"3 images: " not in out
    assert out.startswith(b"4 images: ")
    assert b"skipped: broken\\n\\udcff.png: is an empty file\n" in err
    assert sorted(path.name for path in (output / "masks").iterdir()) == sorted(names)
    lines, summary = read_report(output / "report.jsonl")
    assert {line["path"] for line in lines if line["status"] == "inspected"} == set(names)
    assert summary is not None


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGKILL, -9)])
def test_an_interrupted_run_is_gone_on_with_to_the_same_bytes(
    tmp_path: Path, tiny_onnx: Path, tinyunet_infer: Tinyunet, number: int, code: int
) -> None:
    station = tmp_path / "station"
    station.mkdir()
    for index in range(100):
        write_png(station / f"{index:03}.png", np.full((64, 64), index, np.uint8))
    (station / "007.png").write_bytes(b"")
    report = tmp_path / "out" / "report.jsonl"
    arguments = ("--backend", "onnxruntime", "--batch-size", 1, "--threshold", THRESHOLD)
    for _ in range(10):  # on a busy machine the signal may come after the last image
        shutil.rmtree(tmp_path / "out", ignore_errors=True)
        with start(station, "-o", tmp_path / "out", "-m", tiny_onnx, *arguments) as process:
            while not (report.exists() and report.read_bytes().count(b"\n") >= 5):
                assert process.poll() is None, process.communicate()
                time.sleep(0.005)
            process.send_signal(number)
            _, err = process.communicate(timeout=60)
        if read_report(report)[1] is None:
            break
    assert process.returncode == code
    if number == signal.SIGINT:
        assert err.endswith(b"interrupted; run the same command again to resume\n")
    done, summary = read_report(report)
    assert summary is None
    assert 5 <= len(done) < 100
    assert tinyunet_infer(station, "-o", tmp_path / "out", *arguments).code == 3
    assert tinyunet_infer(station, "-o", tmp_path / "undisturbed", *arguments).code == 3
    assert tree(tmp_path / "out") == tree(tmp_path / "undisturbed")


def test_scores_that_are_labels_are_named(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A model that gives 0 and 1 calls every part good, with exit 0."""
    nodes = [
        helper.make_node("Cast", ["image"], ["grey"], to=TensorProto.FLOAT),
        helper.make_node("Sub", ["grey", "limit"], ["brightness"]),
        helper.make_node("Clip", ["brightness", "none", "one"], ["label"]),
        helper.make_node("Cast", ["label"], ["score"], to=TensorProto.UINT8),
    ]
    ends = [
        helper.make_tensor_value_info(name, TensorProto.UINT8, ["N", 1, 16, 16])
        for name in ("image", "score")
    ]
    limits = {"limit": 100, "none": 0, "one": 1}
    constants = [numpy_helper.from_array(np.float32(v), name) for name, v in limits.items()]
    graph = helper.make_graph(nodes, "labels", ends[:1], ends[1:], constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    onnx.save(model, tmp_path / "labels.onnx")
    write_png(tmp_path / "part.png", np.arange(256, dtype=np.uint8).reshape(16, 16))
    words = [str(tmp_path / "part.png"), "-m", str(tmp_path / "labels.onnx"), "--trust-engine"]
    assert run(infer, [*words, "-o", str(tmp_path / "out")]) == 0
    assert caplog.text.count("note: no score is above 1 of 255") == 1
    caplog.clear()
    write_png(tmp_path / "part.png", np.full((16, 16), 100, np.uint8))
    assert run(infer, [*words, "-o", str(tmp_path / "other")]) == 0
    assert "no score is above" not in caplog.text, "no score at all: a good part"


def test_what_is_passed_over_is_printed_and_reported(
    station: Path, tmp_path: Path, tinyunet_infer: Tinyunet
) -> None:
    (station / "notes.raw").touch()
    (station / ".hidden").mkdir()
    tinyunet_infer(station / "day 2", "-o", station / "day 2" / "out")
    outcome = tinyunet_infer(station, "-o", tmp_path / "out")
    assert outcome.code == 0
    counts = "; passed over: 1 earlier-output, 1 hidden, 1 suffix .raw\n"
    assert outcome.out.splitlines(keepends=True)[0].endswith(f", 0 skipped{counts}")
    wanted = {"earlier-output": 1, "hidden": 1, "suffix .raw": 1}
    outcome = tinyunet_infer(station, "-o", tmp_path / "out", "--format", "json")
    assert outcome.summary["passed_over"] == wanted
    last = json.loads((tmp_path / "out" / "report.jsonl").read_text().splitlines()[-1])
    assert last["summary"]["passed_over"] == wanted
    outcome = tinyunet_infer(station / "day 2" / "out", "-o", tmp_path / "again")
    assert outcome.code == 4
    assert "is output of an earlier inspection" in outcome.err


def test_images_that_changed_are_inspected_again_and_said_so(
    station: Path, tmp_path: Path, tinyunet_infer: Tinyunet, tiny_onnx: Path
) -> None:
    tinyunet_infer(station, "-o", tmp_path / "out")
    write_png(station / "day 2" / "a.png", np.full((64, 64), 7, np.uint8))
    (station / "day-3.png").unlink()
    arguments = (station, "-o", tmp_path / "out", "-m", tiny_onnx, "--backend", "onnxruntime")
    with start(*arguments) as process:
        out, err = process.communicate(timeout=120)
    assert process.returncode == 0
    assert err.decode().splitlines()[:2] == [
        f"{tmp_path}/out: 1 image changed after the verdict: inspected again",
        f"{tmp_path}/out: 1 image in the report but no longer in the input: "
        "dropped from the report",
    ]
    assert out.startswith(b"6 images: ")
    tinyunet_infer(station, "-o", tmp_path / "fresh")
    assert tree(tmp_path / "out") == tree(tmp_path / "fresh")


def test_a_camera_of_12_bits_gives_the_masks_of_its_8_bit_images(
    station: Path,
    tmp_path: Path,
    tinyunet_infer: Tinyunet,
    caplog: pytest.LogCaptureFixture,
) -> None:
    deep = tmp_path / "deep"
    deep.mkdir()
    for name in ("a.png", "b.PNG"):
        grey = read_image(station / "day 1" / name).astype(float)
        ok, data = cv2.imencode(".png", np.rint(grey * (4095 / 255)).astype(np.uint16))
        assert ok
        (deep / name).write_bytes(data.tobytes())
    options = ("-o", tmp_path / "out", "--threshold", THRESHOLD)
    assert tinyunet_infer(deep, *options, "--bits", 12).code == 0
    assert tinyunet_infer(station, "-o", tmp_path / "8", "--threshold", THRESHOLD).code == 0
    for name in ("a.png", "b.PNG"):
        same = [tmp_path / "out" / "masks" / name, tmp_path / "8" / "masks" / "day 1" / name]
        assert same[0].read_bytes() == same[1].read_bytes()
    assert json.loads((tmp_path / "out" / "run.json").read_bytes())["bits"] == 12
    assert json.loads((tmp_path / "8" / "run.json").read_bytes())["bits"] is None
    outcome = tinyunet_infer(deep, *options)
    assert outcome.code == 4, "masks of another depth are never mixed in"
    outcome = tinyunet_infer(deep, "-o", tmp_path / "black", "--threshold", THRESHOLD)
    assert outcome.code == 0
    assert caplog.text.count("declare the depth of the camera") == 1
    assert tinyunet_infer(deep, "-o", tmp_path / "x", "--bits", 7).code == 2
