"""``python -m benchmarks.picture``: every picture of README.md and docs/.

Parts are synthetic, masks and scores come from the model in the package, and pictures that a verb
draws are drawn by the verb's own function. A picture whose source is missing (a result, a browser)
is left out, with the reason.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import click
import cv2
import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from benchmarks.example_engine import example_report
from benchmarks.options import HELP, REPOSITORY, RESULTS
from benchmarks.report.drawing import NARROW
from benchmarks.report.page import TEMPLATES, write_report
from benchmarks.report.results import read_results
from benchmarks.report.sections.line_speed import draw_line_speed
from tinyunet_deploy.backends.base import Backend
from tinyunet_deploy.backends.registry import open_backend
from tinyunet_deploy.cli import run
from tinyunet_deploy.contract import Image, defect_mask
from tinyunet_deploy.data import synthetic
from tinyunet_deploy.data.encoding import write_png
from tinyunet_deploy.data.layouts import read_dataset
from tinyunet_deploy.data.tiles import score_in_tiles
from tinyunet_deploy.files import write_atomic
from tinyunet_deploy.inspection import drift
from tinyunet_deploy.inspection.drawing import draw_svg
from tinyunet_deploy.inspection.infer import infer
from tinyunet_deploy.inspection.outputs import Outputs
from tinyunet_deploy.inspection.overlays import TRUTH, outline
from tinyunet_deploy.quality.evaluation import evaluate
from tinyunet_deploy.quality.plateau import Plateau
from tinyunet_deploy.quality.plateau_picture import draw_plateaus
from tinyunet_deploy.quality.tuning import tune
from tinyunet_deploy.quality.tuning_report import draw_curve
from tinyunet_deploy.speed.engine.page import write_page

BROWSERS: Final = (
    "chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome",
)  # fmt: skip
"""Program names of Chromium."""
Picture = NDArray[np.integer[Any] | np.floating[Any]]
"""Grey values [H, W] or BGR [H, W, 3], as OpenCV returns them."""
_HAND_OVER: Final = (200, 160, 60)
"""BGR of the lines where one tile hands over to the next."""


class SourceMissing(Exception):
    """Error for a picture whose source is missing: names the source and its origin."""


def draw_part(backend: Backend, path: Path) -> None:
    """Draw one part as the camera saw it, and beside it the same part with its defect found."""
    side, threshold = backend.contract.height, backend.artifact.sidecar.threshold
    part = synthetic.sample(7, 10_001, defective=True, size=side)
    found = defect_mask(backend.run(part.image[None, None]).score[0, 0], threshold)
    cells = [cv2.cvtColor(part.image, cv2.COLOR_GRAY2BGR), outline(part.image, found)]
    _write_small(path, np.hstack([_framed(cell, 360) for cell in cells]))


def draw_prediction(backend: Backend, path: Path) -> None:
    """Draw five classes in columns: the input, the label, the score, the prediction."""
    side, threshold = backend.contract.height, backend.artifact.sidecar.threshold
    columns = []
    for class_id in (1, 2, 4, 7, 9):
        part = synthetic.sample(class_id, 10_001, defective=True, size=side)
        assert part.label is not None
        score = backend.run(part.image[None, None]).score[0, 0]
        cells = (
            cv2.cvtColor(part.image, cv2.COLOR_GRAY2BGR),
            outline(part.image, part.label, TRUTH),
            cv2.applyColorMap(score, cv2.COLORMAP_INFERNO),
            outline(part.image, defect_mask(score, threshold)),
        )
        columns.append(np.vstack([_framed(cell) for cell in cells]))
    _write_small(path, np.hstack(columns))


def _write_small(path: Path, picture: Picture) -> None:
    """Write a PNG file for the web: small rather than fast."""
    _, data = cv2.imencode(".png", picture, [cv2.IMWRITE_PNG_COMPRESSION, 9])
    write_atomic(path, data.tobytes())


def _framed(cell: Picture, side: int = 240) -> Picture:
    """Scale a picture to side x side with a white frame of 4 pixels."""
    small = cv2.resize(cell, (side, side), interpolation=cv2.INTER_AREA)
    return cv2.copyMakeBorder(small, 4, 4, 4, 4, cv2.BORDER_CONSTANT, value=(255, 255, 255))


def draw_missed(backend: Backend, path: Path) -> None:
    """Draw the first miss of ``tinyunet evaluate --misses`` on twelve defective images.

    If none is missed at the model's own min_area, it is raised above every defect's area.
    """
    side, sidecar = backend.contract.height, backend.artifact.sidecar
    with tempfile.TemporaryDirectory() as folder:
        data, misses = Path(folder, "data"), Path(folder, "misses")
        synthetic.write_dataset(
            data, classes=(2,), train=0, test=12, defective=1, size=side, seed=1
        )
        for min_area in (sidecar.min_area, side * side + 1):
            evaluate(
                read_dataset(data),
                backend,
                threshold=sidecar.threshold,
                min_area=min_area,
                batch_size=4,
                workers=1,
                misses=misses,
            )
            first = min(misses.rglob("*.png"), default=None)
            if first is not None:
                picture = cv2.imread(str(first))
                assert picture is not None
                _write_small(path, picture)
                return


def draw_tiles(backend: Backend, path: Path) -> None:
    """Draw a part of two by three tiles as ``infer`` runs it: hand-overs, outlines, score."""
    side = backend.contract.height
    height, width = 2 * side, 3 * side
    tiling = backend.artifact.sidecar.tiling
    lines, columns = ([span.first for span in axis[1:]] for axis in tiling.axes((height, width)))
    on_lines = [(lines[0], columns[0]), (lines[0], columns[2]), (lines[-1], columns[-1])]
    elsewhere = [(0.68, 0.33), (0.15, 0.81), (0.86, 0.1)]
    places = on_lines + [(round(y * height), round(x * width)) for y, x in elsewhere]
    part = _large_part(side, places)
    score = score_in_tiles(part, lambda tile: backend.run(tile[None, None]).score[0, 0], tiling)
    drawn = outline(part, defect_mask(score, backend.artifact.sidecar.threshold))
    for y in lines:
        cv2.line(drawn, (0, y), (width - 1, y), _HAND_OVER, 2)
    for x in columns:
        cv2.line(drawn, (x, 0), (x, height - 1), _HAND_OVER, 2)
    gap = np.full((8, width, 3), 128, np.uint8)
    both = np.vstack([drawn, gap, cv2.applyColorMap(score, cv2.COLORMAP_INFERNO)])
    small = cv2.resize(both, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA)
    _write_small(path, small)


def _large_part(side: int, places: list[tuple[int, int]]) -> Image:
    """Draw a part of class 5, uint8 [2 side, 3 side], with one defect at each (row, column)."""
    good = synthetic.sample(5, 1, defective=False, size=3 * side).image
    part = good[: 2 * side].astype(np.int64)
    for index, (row, column) in enumerate(places):
        flawed, plain = (
            synthetic.sample(5, index, defective=bad, size=side).image.astype(np.int64)
            for bad in (True, False)
        )
        rows, columns = (flawed - plain).nonzero()
        flaw = (flawed - plain)[rows.min() : rows.max() + 1, columns.min() : columns.max() + 1]
        top, left = row - flaw.shape[0] // 2, column - flaw.shape[1] // 2
        part[top : top + flaw.shape[0], left : left + flaw.shape[1]] += flaw
    return np.clip(part, 0, 255).astype(np.uint8)


def draw_tuning(backend: Backend, path: Path) -> None:
    """Draw the curve of ``tinyunet tune``."""
    side = backend.contract.height
    with tempfile.TemporaryDirectory() as folder:
        data = Path(folder)
        synthetic.write_dataset(
            data, classes=(6, 9), train=24, test=0, defective=0.5, size=side, seed=2
        )
        tuning = tune(read_dataset(data), backend, batch_size=4, workers=1)
    drawing = draw_curve(tuning)
    write_atomic(path, drawing)


def draw_plateau(_: Backend, path: Path) -> None:
    """Draw the stored plateaus of the first images, a row for each precision and backend."""
    try:
        rows = json.loads((RESULTS / "plateau.json").read_text())["plateaus"]
    except FileNotFoundError:
        raise SourceMissing("benchmarks/results has no plateau.json: benchmarks.plateau") from None
    first = [row["plateau"] for row in rows if row["data"] == rows[0]["data"]]
    write_atomic(path, draw_plateaus([Plateau.from_fields(fields) for fields in first]))


def draw_quick(_: Backend, path: Path) -> None:
    """Draw what forms of the recipe ``quick`` reached on validation images, step by step."""
    forms = json.loads((RESULTS / "quick-recipe.json").read_text())["recipes"]

    def draw(figure: Figure) -> None:
        left, right = figure.subplots(1, 2)
        for form in forms:
            reached = form["validations"]
            turns = "turned" if len(form["rotations"]) > 1 else "mirrored only"
            label = f"{form['network']}, {turns}, {form['steps']} steps"
            steps = [one["step"] for one in reached]
            left.plot(steps, [one["iou_defective"] for one in reached], "o-", label=label)
            wrong = [one["escapes"] + one["overkills"] for one in reached]
            right.plot(steps, wrong, "o-", label=label)
        left.set_title("iou_defective")
        right.set_title("escapes and overkills of 39 parts")
        for axes in (left, right):
            axes.set_xlabel("step")
            axes.set_ylim(bottom=0)
        left.legend(fontsize=8)

    write_atomic(path, draw_svg(9.0, 3.4, draw))


def draw_drift(backend: Backend, path: Path) -> None:
    """Draw the picture of ``tinyunet drift -o`` after the light has dropped by 15 %."""
    side, sidecar = backend.contract.height, backend.artifact.sidecar
    with tempfile.TemporaryDirectory() as folder:
        reports = []
        for first, light in ((0, 1.0), (24, 0.85)):
            source, report = Path(folder, f"{light}"), Path(folder, f"{light}.out")
            source.mkdir()
            for index in range(first, first + 24):
                part = synthetic.sample(3, index, defective=index % 4 == 0, size=side)
                dark = np.rint(light * part.image).astype(np.uint8)
                write_png(source / f"{index}.png", dark)
            infer(
                [source],
                report,
                backend,
                threshold=sidecar.threshold,
                min_area=sidecar.min_area,
                batch_size=4,
                workers=1,
            )
            reports.append(report)
        before, now = reports
        drawing = drift.draw_distributions(now, before, drift.compare_reports(now, before))
    write_atomic(path, drawing)


def draw_line(_: Backend, path: Path) -> None:
    """Draw the report's line-speed curve of the first ``tinyunet line-sim`` result."""
    results = read_results([RESULTS]).lines
    if not results:
        raise SourceMissing("benchmarks/results has no result of tinyunet line-sim -o")
    svg = draw_line_speed(next(iter(results.values())), NARROW)
    page = (TEMPLATES / "report.html.j2").read_text()
    light = re.search(r":root \{.*?\}", page, re.DOTALL)
    assert light is not None
    head, drawing = svg.split(">", 1)
    paper = '<rect width="100%" height="100%" fill="var(--paper)"/>'
    text = f'{head} width="640"><style>{light[0]}</style>{paper}{drawing}\n'
    write_atomic(path, text.encode())


def draw_report(backend: Backend, path: Path) -> None:
    """Draw the top of ``python -m benchmarks report benchmarks/results`` as a browser shows it."""
    with tempfile.TemporaryDirectory() as folder:
        page = Path(folder, "report.html")
        command = "python -m benchmarks report benchmarks/results -o report.html"
        parts = _inspected_parts(backend, Path(folder))
        write_report(read_results([RESULTS]), page, parts=parts, command=command)
        _photograph(page, path, 1200, 1060)


def draw_engine(_: Backend, path: Path) -> None:
    """Draw the top of the example of an engine report."""
    with tempfile.TemporaryDirectory() as folder:
        page = Path(folder, "engine.html")
        write_page([example_report("fp16").report], page)
        _photograph(page, path, 1100, 1240)


def draw_engines(_: Backend, path: Path) -> None:
    """Draw the top of the example of two engines side by side."""
    with tempfile.TemporaryDirectory() as folder:
        page = Path(folder, "engines.html")
        write_page([example_report(name).report for name in ("fp16", "int8")], page)
        _photograph(page, path, 1100, 1120)


def _photograph(page: Path, path: Path, width: int, height: int) -> None:
    """Write the top of a page as a browser shows it, PNG."""
    browser = next((program for name in BROWSERS if (program := shutil.which(name))), None)
    if browser is None:
        raise SourceMissing("no Chromium is on the PATH (Debian: apt-get install chromium)")
    shot = page.with_suffix(".png")
    options = ["--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars"]
    options += [f"--user-data-dir={page.parent}/profile", f"--screenshot={shot}"]
    subprocess.run(
        [browser, *options, f"--window-size={width},{height}", page.as_uri()],
        check=True,
        capture_output=True,
        timeout=120,
    )
    write_atomic(path, shot.read_bytes())


def _inspected_parts(backend: Backend, folder: Path) -> Path:
    """Inspect two defective parts and a good one; return the output with their overlays."""
    side, sidecar = backend.contract.height, backend.artifact.sidecar
    source, output = folder / "parts", folder / "inspected"
    source.mkdir()
    for class_id, defective in ((4, True), (7, True), (9, False)):
        part = synthetic.sample(class_id, 10_001, defective=defective, size=side)
        write_png(source / f"class-{class_id}.png", part.image)
    infer(
        [source],
        output,
        backend,
        threshold=sidecar.threshold,
        min_area=sidecar.min_area,
        batch_size=1,
        workers=1,
        outputs=Outputs(overlays=True),
    )
    return output


PICTURES: Final[dict[str, Callable[[Backend, Path], None]]] = {
    "part.png": draw_part,
    "prediction.png": draw_prediction,
    "missed.png": draw_missed,
    "tiles.png": draw_tiles,
    "tune.svg": draw_tuning,
    "plateau.svg": draw_plateau,
    "quick.svg": draw_quick,
    "drift.svg": draw_drift,
    "line.svg": draw_line,
    "report.png": draw_report,
    "engine.png": draw_engine,
    "engines.png": draw_engines,
}
"""File name -> a function that draws it with a backend to a path."""


@click.command(context_settings=HELP)
@click.argument("names", nargs=-1, type=click.Choice(list(PICTURES)))
@click.option(
    "-m",
    "--model",
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    help="An artifact. Default: the package's model.",
)
@click.option(
    "-o",
    "--output",
    default=REPOSITORY / "docs" / "pictures",
    type=click.Path(path_type=Path, file_okay=False),
    help="Folder of the pictures. Default: docs/pictures.",
)
def picture(names: tuple[str, ...], model: Path | None, output: Path) -> None:
    """Draw the named pictures of README.md and docs/, or all of them."""
    output.mkdir(parents=True, exist_ok=True)
    with open_backend(model) as backend:
        for name in names or PICTURES:
            try:
                PICTURES[name](backend, output / name)
            except SourceMissing as missing:
                click.echo(f"left out: {name}: {missing}", err=True)
            else:
                click.echo(output / name)


if __name__ == "__main__":
    sys.exit(run(picture))
