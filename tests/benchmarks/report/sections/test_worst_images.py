from __future__ import annotations

import json
from pathlib import Path

from benchmarks.__main__ import benchmarks
from tests.benchmarks.made_up_results import section_titles
from tests.conftest import REPOSITORY
from tinyunet_deploy.cli import run
from tinyunet_deploy.data import synthetic


def test_the_worst_images_are_shown_from_the_folder_that_is_given(tmp_path: Path) -> None:
    data = tmp_path / "synth"
    synthetic.write_dataset(data, classes=(1,), train=0, test=4, defective=0.5, size=512, seed=0)
    result = tmp_path / "evaluation.json"
    fields = json.loads((REPOSITORY / "benchmarks/results/synthetic-test.json").read_text())
    fields["dataset"]["name"] = "synth"
    fields["model"]["sha256"] = "0" * 64  # of no model that is here: the label alone is drawn
    names = sorted(p.relative_to(data).as_posix() for p in data.rglob("Test/*.PNG"))
    from tinyunet_deploy.data.layouts import read_dataset
    from tinyunet_deploy.data.masks import read_mask

    for image, item in zip(fields["per_image"], read_dataset(data).items, strict=False):
        image["name"] = item.image.relative_to(data).as_posix()
        image["defective"] = bool(item.defective)
        image["truth_px"] = int((read_mask(item, (512, 512)) > 0).sum())
    del fields["per_image"][len(names) :]
    result.write_text(json.dumps(fields))
    output = tmp_path / "report.html"
    arguments = ["report", str(result), "-o", str(output), "--data", str(data)]
    assert run(benchmarks, arguments) == 0
    assert output.read_text().count("data:image/jpeg;base64,") == 4
    fields["per_image"][0]["truth_px"] += 1
    result.write_text(json.dumps(fields))
    assert run(benchmarks, arguments) == 4


def test_pictures_are_only_of_a_folder_that_is_given(report: Path) -> None:
    assert "The worst images" in section_titles(report)
    assert "data:image" not in report.read_text()
