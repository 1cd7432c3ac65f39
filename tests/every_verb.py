"""The verbs that take a model, one after another, on a model that is not one of the package."""

from __future__ import annotations

import importlib.util
from pathlib import Path

from click.testing import CliRunner

from tinyunet_deploy.cli import tinyunet


def go_every_way(
    model: Path, data: Path, photos: Path, folder: Path, *, whole: bool
) -> dict[str, str]:
    """Run the verbs on a model; return verb -> stdout. The slow ones only if ``whole``.

    Args:
        data: a data set with masks.
        photos: a folder of its images.
        folder: an empty folder for what the verbs write.
    """
    json_format = ["--format", "json"]
    commands: dict[str, list[str]] = {
        "infer": [str(photos), "-m", str(model), "-o", str(folder / "out")],
        "evaluate": [str(data), "-m", str(model), *json_format],
        "tune": [str(data), "-m", str(model)],
        "parity": [str(data), "-m", str(model), *json_format],
        "info": [str(model)],
        "verify": [str(model), *json_format],
        "triton": [str(model), "-o", str(folder / "models")],
    }
    if whole:
        quick = ["--samples", "2", "--images", "2", "-b", "1"]
        commands["benchmark"] = [str(photos), "-m", str(model), *quick, *json_format]
        belt = ["--parts-per-minute", "60", "--deadline-ms", "9000", "--seconds", "3"]
        commands["line-sim"] = [str(photos), "-m", str(model), *belt]
        if importlib.util.find_spec("tensorrt_rtx") is not None and model.name != "static.onnx":
            target = ["--flavour", "tensorrt_rtx", "--compute-capability", "8.6"]
            commands["build"] = [str(model), "-o", str(folder / "plans"), *target]
    printed = {}
    for verb, words in commands.items():
        result = CliRunner().invoke(tinyunet, [verb, *words], catch_exceptions=False)
        assert result.exit_code == 0, (verb, result.output)
        printed[verb] = result.stdout
    return printed
