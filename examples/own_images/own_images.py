"""From a folder of images with masks to a model of its own, and to pictures of what it finds."""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path

import cv2

import tinyunet_deploy as td

REPOSITORY = Path(__file__).resolve().parents[2]
START = REPOSITORY / "tinyunet_deploy" / "models" / "tinyunet.safetensors"


def main() -> None:
    """Train, export, measure, and draw."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("parts", type=Path, help="folder with images/ and masks/")
    parser.add_argument("output", type=Path, help="folder for the model and the pictures")
    parser.add_argument("--steps", type=int, default=60, help="how long to train (default: 60)")
    options = parser.parse_args()
    parts, output = options.parts.resolve(), options.output.resolve()

    steps = ["--steps", str(options.steps), "--init", START]
    workbench("training", "crops", "--data", parts, "-o", output / "run", *steps)
    engine = output / "engines" / "parts.onnx"
    workbench("export", output / "run" / "checkpoint.safetensors", "-o", engine)

    with td.load(engine) as model:
        print(model)
        result = td.evaluate(parts, model, misses=output / "missed")
        total = result.all
        print(
            f"{total.images} images, {total.defective} of them defective: "
            f"{total.escapes} defective parts let through, {total.overkills} good parts rejected, "
            f"IoU of defective parts {total.iou_defective:.2f}"
        )
        images = [item.image for item in result.dataset.items]
        for number, part in enumerate(td.inspect(images, model), start=1):
            if part.error is not None:
                print(f"no verdict: {part.error}")
                continue
            picture = output / "overlays" / f"{number:04}-{part.verdict}-{part.path.stem}.jpg"
            picture.parent.mkdir(parents=True, exist_ok=True)
            picture.write_bytes(cv2.imencode(".jpg", part.overlay())[1].tobytes())
    print(f"look at {output / 'overlays'}")


def workbench(module: str, *words: str | Path) -> None:
    """Run a workbench of the repository, which is not part of the installed package."""
    command = [sys.executable, "-m", module, *map(str, words)]
    subprocess.run(command, cwd=REPOSITORY, check=True)


if __name__ == "__main__":
    main()
