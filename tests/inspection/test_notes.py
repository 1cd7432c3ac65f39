"""Notes on the scores of a whole run: said once on stderr, and in the report or result."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest

from tinyunet_deploy.api.model import Model
from tinyunet_deploy.artifacts.facts import NetworkFacts
from tinyunet_deploy.contract import Batch, Contract
from tinyunet_deploy.data.encoding import write_png
from tinyunet_deploy.data.layouts import read_dataset
from tinyunet_deploy.inspection.infer import infer
from tinyunet_deploy.inspection.outputs import Outputs
from tinyunet_deploy.inspection.run_report import read_report
from tinyunet_deploy.inspection.shards import Shard
from tinyunet_deploy.inspection.watch import watch
from tinyunet_deploy.quality.evaluation import evaluate
from tinyunet_deploy.quality.evaluation_report import evaluation_json
from tinyunet_deploy.quality.tuning import tune
from tinyunet_deploy.quality.tuning_report import tuning_json
from tinyunet_deploy.testing.fake_backend import FakeBackend

SIDE = 64
NEAR = NetworkFacts("near", 16, 4, 4)
UNKNOWN = NetworkFacts("other", 16)
LABELS = "no score is above 1 of 255"
TILES = "in tiles whose scores only approximate"
SIZES = "images of another size than the model's"


def labels(batch: Batch) -> Batch:
    """Scores of a model that gives 0 or 1 instead of probability x 255."""
    return (batch > 128).astype(np.uint8)


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Own images, every other one with a defect: four of the network's size, four larger."""
    for number in range(8):
        side = SIDE if number < 4 else 2 * SIDE
        mask = np.zeros((side, side), np.uint8)
        mask[8:20, 8 : 8 + 12 * (number % 2)] = 255
        for name, image in (("images", mask // 2 + 100 * (mask > 0) + 9), ("masks", mask)):
            path = tmp_path / "data" / name / f"{number}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            write_png(path, image)
    return tmp_path / "data"


def backend(
    score: Callable[[Batch], Batch] | None = None, network: NetworkFacts = NEAR
) -> FakeBackend:
    return FakeBackend(score, contract=Contract(SIDE, SIDE), network=network)


def run(data: Path, output: Path, fake: FakeBackend, shard: Shard | None = None) -> list[str]:
    """Return the notes of an inspection, but for the counts of sizes."""
    summary = infer(
        [data / "images"], output, fake, threshold=0.5, batch_size=2, workers=2, tile=True,
        shard=shard,
    )  # fmt: skip
    if shard is None:
        assert read_report(output / "report.jsonl")[1] == summary
    return without_sizes(summary.notes)


def without_sizes(notes: Sequence[str]) -> list[str]:
    return [note for note in notes if not note.startswith(SIZES)]


def said(caplog: pytest.LogCaptureFixture) -> list[str]:
    texts = [record.getMessage() for record in caplog.records]
    caplog.clear()
    assert all(text.startswith("note: ") for text in texts)
    return without_sizes([text.removeprefix("note: ") for text in texts])


def test_labels_in_place_of_scores_are_said_once(
    data: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    notes = run(data, tmp_path / "out", backend(labels))
    assert [note for note in notes if LABELS in note] == notes
    assert len(notes) == 1
    assert said(caplog) == notes
    assert run(data, tmp_path / "out", backend(labels)) == notes, "also if nothing is left to do"
    assert run(data, tmp_path / "good", backend(np.zeros_like)) == [], "a part without any score"
    assert run(data, tmp_path / "scores", backend()) == []


def test_labels_are_said_of_a_watch(
    data: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    stop = threading.Event()
    images = [f"{number}.png" for number in range(8)]
    watched = watch(
        data / "images", tmp_path / "out", backend(labels), threshold=0.5, batch_size=2, workers=2,
        stop=stop, outputs=Outputs(), settle_ms=1,
        on_line=lambda line: stop.set() if images.remove(line["path"]) or not images else None,
    )  # fmt: skip
    (note,) = without_sizes(watched.summary.notes)
    assert LABELS in note and [note] == said(caplog)


@pytest.mark.parametrize(
    ("score", "network", "note"), [(labels, NEAR, LABELS), (None, UNKNOWN, TILES)]
)
def test_evaluation_and_tuning_have_the_notes(
    data: Path,
    caplog: pytest.LogCaptureFixture,
    score: Callable[[Batch], Batch] | None,
    network: NetworkFacts,
    note: str,
) -> None:
    dataset, fake = read_dataset(data), backend(score, network)
    evaluation = evaluate(
        dataset, fake, threshold=0.5, min_area=1, batch_size=2, workers=2, tile=True
    )
    assert said(caplog) == without_sizes(evaluation.notes)
    assert json.loads(evaluation_json(evaluation))["notes"] == list(evaluation.notes)
    (only,) = without_sizes(evaluation.notes)
    assert note in only
    tuning = tune(dataset, fake, batch_size=2, workers=2, tile=True)
    assert said(caplog) == without_sizes(tuning.notes)
    assert tuning.notes == evaluation.notes
    assert json.loads(tuning_json(tuning))["notes"] == list(tuning.notes)


def test_tiles_that_approximate_are_said_once(
    data: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (note,) = run(data, tmp_path / "out", backend(network=UNKNOWN))
    assert note.startswith(f"4 images were inspected {TILES}")
    assert note.endswith("so seams cannot be excluded")
    assert said(caplog) == [note]
    lines, _ = read_report(tmp_path / "out" / "report.jsonl")
    assert [line["path"] for line in lines if line.get("approximate")] == [
        f"{number}.png" for number in range(4, 8)
    ]


def test_tiles_that_are_exact_are_not_mentioned(data: Path, tmp_path: Path) -> None:
    assert run(data, tmp_path / "out", backend()) == []
    far = NetworkFacts("far", 16, 40, 40)
    assert len(run(data, tmp_path / "far", backend(network=far))) == 1, "too small for the reach"
    for number in range(4, 8):
        (data / "images" / f"{number}.png").unlink()
    assert run(data, tmp_path / "small", backend(network=UNKNOWN)) == [], "no image needs a tile"


def test_shards_give_the_notes_of_one_run(data: Path, tmp_path: Path) -> None:
    notes = run(data, tmp_path / "whole", backend(labels, UNKNOWN))
    assert len(notes) == 2
    for index in (1, 2):
        run(data, tmp_path / "out", backend(labels, UNKNOWN), Shard(index, 2))
    merged, whole = (tmp_path / name / "report.jsonl" for name in ("out", "whole"))
    assert merged.read_bytes() == whole.read_bytes()


def test_images_of_another_size_are_counted_by_what_was_done_with_them(
    data: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    write_png(data / "images" / "small.png", np.zeros((SIDE, SIDE - 1), np.uint8))
    output = tmp_path / "out"
    summary = infer([data / "images"], output, backend(), threshold=0.5, batch_size=2, workers=2)
    (note,) = summary.notes
    assert note == f"{SIZES}: 1 padded by mirroring, 4 inspected in tiles"
    assert [record.getMessage() for record in caplog.records] == [f"note: {note}"]
    assert (summary.padded, summary.tiled) == (1, 4)
    fits = {line["path"]: line.get("fit") for line in read_report(output / "report.jsonl")[0]}
    assert fits["small.png"] == "padded"
    assert [fits[f"{number}.png"] for number in range(8)] == [None] * 4 + ["tiled"] * 4
    again = infer([data / "images"], output, backend(), threshold=0.5, batch_size=2, workers=2)
    assert again == summary, "also of what an earlier run inspected"


def test_a_model_in_python_says_it_once_when_it_is_closed(caplog: pytest.LogCaptureFixture) -> None:
    images = np.full((3, SIDE, SIDE), 200, np.uint8)
    with Model(backend(labels)) as model:
        model(images)
        model(images)
        assert said(caplog) == []
    model.close()
    assert [LABELS in note for note in said(caplog)] == [True]
    with Model(backend()) as model:
        model(images)
    assert said(caplog) == []
