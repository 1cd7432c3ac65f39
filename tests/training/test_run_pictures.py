from __future__ import annotations

import json
import shutil
from pathlib import Path

import cv2
import numpy as np

from tests.training.small_runs import SMALL
from tinyunet_deploy.inspection.overlays import TRUTH
from training.run_pictures import draw_run
from training.sources import read_source


def test_a_finished_run_is_drawn_once_with_its_worst_images(
    finished: Path, tiny_data: Path, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    shutil.copytree(finished, run)
    source = read_source(tiny_data, None, SMALL)
    draw_run(run, [source, source])
    assert "<svg" in (run / "curve.svg").read_text()
    assert cv2.imread(str(run / "curve.png")).shape[2] == 3
    worst = json.loads((run / "result.json").read_text())["validation"]["worst"]
    assert len(worst) >= 2
    assert sorted(path.name for path in (run / "worst").iterdir()) == [
        f"{rank:02}.png" for rank in range(1, len(worst) + 1)
    ]
    for row in worst:
        example = source.validation[row["number"]]
        assert row["image"] == example.item.image.name
        drawn = cv2.imread(str(run / row["picture"]))
        grey = cv2.cvtColor(example.image, cv2.COLOR_GRAY2BGR)
        height, width = example.image.shape
        share = (drawn[:height, :width] == grey).all(axis=2).mean()
        assert 0.3 < share <= 1.0, "the picture shows another image"
        outlined = (drawn[:height, :width] == np.array(TRUTH)).all(axis=2).any()
        assert outlined == example.item.defective, "the truth is outlined where there is one"

    before = {path: path.stat().st_mtime_ns for path in run.rglob("*.png")}
    draw_run(run, [source])
    assert {path: path.stat().st_mtime_ns for path in run.rglob("*.png")} == before


def test_a_run_without_validation_has_its_curve_alone(
    finished: Path, tiny_data: Path, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    shutil.copytree(finished, run)
    result = json.loads((run / "result.json").read_text())
    (run / "result.json").write_text(json.dumps({**result, "validation": None}))
    draw_run(run, [read_source(tiny_data, None, SMALL)])
    assert (run / "curve.png").exists() and not (run / "worst").exists()
