"""``tinyunet repeatability``: does a part get the same verdict each time it is photographed?"""

from __future__ import annotations

from pathlib import Path

import click

from tinyunet_deploy.cli.folding import FoldedLines
from tinyunet_deploy.cli.options import (
    bits_option,
    debug_option,
    format_option,
    model_options,
    operating_options,
    size_options,
)
from tinyunet_deploy.cli.progress import Progress


@click.command()
@click.argument("photographs", type=click.Path(path_type=Path, exists=True))
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path, file_okay=False),
    help="Folder for repeatability.json, repeatability.svg and pictures of parts that flip.",
)
@model_options
@operating_options
@size_options
@bits_option
@click.option(
    "--simulate",
    type=click.IntRange(2),
    metavar="N",
    help="Take single photographs, and simulate N others of each part.",
)
@click.option(
    "--noise",
    type=click.FloatRange(0.0, 100.0),
    help="With --simulate: standard deviation of the sensor noise, grey values (default: 2).",
)
@click.option(
    "--seed", type=click.IntRange(0), help="With --simulate: seed of the changes (default: 0)."
)
@format_option
@debug_option
def repeatability(
    photographs: Path,
    output: Path | None,
    model: Path | None,
    backend: str | None,
    device: str | None,
    trust_engine: bool,
    batch_size: int,
    workers: int | None,
    threshold: float | None,
    min_area: int | None,
    tile: bool,
    max_pixels: int | None,
    bits: int | None,
    simulate: int | None,
    noise: float | None,
    seed: int | None,
    style: str,
) -> int:
    """Compare the verdicts on PHOTOGRAPHS of the same parts.

    PHOTOGRAPHS has a folder for each repeat, in which a part has the same file name. Names of
    folders may give conditions, such as operator=anna,lamp=new,1; the variance is then split by
    them. With --simulate it is a folder of single photographs. Exit code 3 if photographs were
    skipped.
    """
    if simulate is None and (noise is not None or seed is not None):
        raise click.UsageError("--noise and --seed need --simulate")
    if simulate is not None and not tile:
        raise click.UsageError("--simulate cannot be combined with --no-tile")
    from tinyunet_deploy.backends.registry import open_backend
    from tinyunet_deploy.host import processor_count
    from tinyunet_deploy.inspection.drawing import require_matplotlib
    from tinyunet_deploy.quality.repeatability.measure import (
        count_photographs,
        simulate_repeatability,
        study_repeatability,
    )
    from tinyunet_deploy.quality.repeatability.output import (
        PICTURE,
        RESULT,
        study_json,
        study_lines,
        write_study,
    )
    from tinyunet_deploy.quality.repeatability.pictures import FLIPS, write_flips
    from tinyunet_deploy.quality.repeatability.study import Simulation

    simulation = None
    if simulate is not None:
        standard = Simulation()
        simulation = Simulation(
            simulate,
            noise_grey=standard.noise_grey if noise is None else noise,
            seed=standard.seed if seed is None else seed,
        )
    if output is not None:
        require_matplotlib()
    total = count_photographs(photographs, simulation)
    with (
        Progress("loading the model", total, "photographs") as progress,
        open_backend(model, backend, device, trust_engine=trust_engine) as loaded,
    ):
        progress.describe("judging")
        if simulation is None:
            study = study_repeatability(
                photographs,
                loaded,
                threshold=threshold,
                min_area=min_area,
                batch_size=batch_size,
                workers=workers or processor_count(),
                tile=tile,
                bits=bits,
                max_pixels=max_pixels,
                progress=progress.advance,
            )
        else:
            study = simulate_repeatability(
                photographs,
                loaded,
                simulation,
                threshold=threshold,
                min_area=min_area,
                batch_size=batch_size,
                bits=bits,
                max_pixels=max_pixels,
                progress=progress.advance,
            )
        pictures = 0
        if output is not None:
            output.mkdir(parents=True, exist_ok=True)
            write_study(study, output)
            pictures = write_flips(
                study, photographs, loaded, output / FLIPS, bits=bits, max_pixels=max_pixels
            )
    if style == "json":
        click.echo(study_json(study), nl=False)
    else:
        click.echo("\n".join(study_lines(study)))
    if output is not None:
        places = [click.format_filename(output / name) for name in (RESULT, PICTURE, FLIPS)]
        click.echo("result: {}  picture: {}  flips: {} ({})".format(*places, pictures), err=True)
    lines = FoldedLines("--format json lists them all")
    for sentence in study.skipped:
        where, _, what = sentence.partition(": ")
        lines.add("skipped", f"{where}: {what}", what)
    lines.finish()
    return 3 if study.skipped else 0
