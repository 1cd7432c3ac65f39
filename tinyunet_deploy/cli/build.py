"""``tinyunet build``: an ONNX file becomes a TensorRT plan for the GPU of this machine."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click
from click.core import ParameterSource

from tinyunet_deploy.artifacts.facts import HARDWARE_COMPATIBILITIES, HardwareCompatibility
from tinyunet_deploy.cli.options import ModelPath, debug_option, trust_option
from tinyunet_deploy.cli.progress import Progress


class BatchRange(click.ParamType):  # type: ignore[type-arg]  # not subscriptable before click 8.4
    """Smallest, usual and largest batch, such as ``1,8,16``; one number stands for all three."""

    name = "batch"

    def get_metavar(self, param: click.Parameter, ctx: click.Context) -> str:
        return "MIN,OPT,MAX"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[int, int, int]:
        if isinstance(value, tuple):
            return value
        parts = str(value).split(",")
        parts = parts * 3 if len(parts) == 1 else parts
        if len(parts) != 3 or not all(part.isascii() and part.isdigit() for part in parts):
            self.fail(f"{value!r} is not three numbers such as 1,8,16", param, ctx)
        least, usual, most = map(int, parts)
        if not 1 <= least <= usual <= most:
            self.fail(f"{value!r} is not three ascending numbers of at least 1", param, ctx)
        return least, usual, most


@click.command()
@click.argument("model", type=ModelPath(dir_okay=False))
@click.option(
    "-o",
    "--output",
    required=True,
    type=click.Path(path_type=Path),
    help="Folder of the plan, or its file name, which ends in .plan.",
)
@click.option(
    "--batch",
    "batches",
    type=BatchRange(),
    multiple=True,
    default=["1,8,16"],
    show_default=True,
    help="Images per call: smallest, usual (the size it is tuned for) and largest. If repeated, "
    "the plan has a profile for each, and each batch runs in the one that suits it.",
)
@click.option(
    "--workspace-mb",
    type=click.IntRange(min=1),
    help="GPU memory that a kernel may use as workspace, MiB. Default: all of it.",
)
@click.option(
    "--timing-cache",
    type=click.Path(path_type=Path, dir_okay=False),
    help="File of kernel timings; read if it exists, then updated, to speed up later builds.",
)
@click.option(
    "--builder-level",
    type=click.IntRange(0, 5),
    default=3,
    show_default=True,
    help="Effort to find fast kernels; a higher level builds longer.",
)
@click.option(
    "--flavour",
    type=click.Choice(["tensorrt", "tensorrt_rtx"]),
    help="TensorRT to build with. Default: the first one installed.",
)
@click.option(
    "--compute-capability",
    metavar="X.Y",
    help="Build for a GPU that this machine lacks, such as 8.6; TensorRT-RTX only.",
)
@click.option(
    "--version-compatible",
    is_flag=True,
    help="Also run on later releases of TensorRT. May be slower, and the plan is larger.",
)
@click.option(
    "--hardware-compatible",
    type=click.Choice(HARDWARE_COMPATIBILITIES),
    help="Also run on all GPUs from NVIDIA's Ampere on, or on those of the same compute "
    "capability. May be slower. Default: only this GPU.",
)
@click.option(
    "--refittable",
    is_flag=True,
    help="Let --refit put new weights into the plan later. May be slower; not for int8.",
)
@click.option(
    "--refit",
    "plan_to_refit",
    metavar="PLAN",
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    help="Do not build: put the weights of MODEL into a copy of this refittable plan, in seconds. "
    "MODEL is another training of the same network.",
)
@trust_option
@debug_option
def build(
    model: Path,
    output: Path,
    batches: tuple[tuple[int, int, int], ...],
    workspace_mb: int | None,
    timing_cache: Path | None,
    builder_level: int,
    flavour: str | None,
    compute_capability: str | None,
    version_compatible: bool,
    hardware_compatible: HardwareCompatibility | None,
    refittable: bool,
    plan_to_refit: Path | None,
    trust_engine: bool,
) -> None:
    """Build the ONNX file MODEL into a TensorRT plan.

    A plan runs only on the TensorRT release and the GPU it was built with, unless it is made
    compatible with others. It is refused unless its convolutions compute in the precision of MODEL.
    """
    if plan_to_refit is not None:
        _refit(plan_to_refit, model, output)
        return
    from tinyunet_deploy.artifacts.facts import Profile
    from tinyunet_deploy.artifacts.foreign import is_foreign
    from tinyunet_deploy.artifacts.golden import inherit_golden
    from tinyunet_deploy.backends.install_hint import install_hint
    from tinyunet_deploy.errors import RuntimeUnavailable

    try:
        from tinyunet_deploy.backends import tensorrt_builder
        from tinyunet_deploy.backends.precision_audit import mixture
    except ModuleNotFoundError as error:
        raise RuntimeUnavailable(
            error.name or "onnx", "is not installed", install_hint(error.name or "onnx", "gpu")
        ) from error

    profiles = [Profile(*sizes) for sizes in batches]
    options = tensorrt_builder.Options(
        profile=profiles[0],
        more_profiles=tuple(profiles[1:]),
        workspace_mb=workspace_mb,
        level=builder_level,
        timing_cache=timing_cache,
        compute_capability=compute_capability,
        version_compatible=version_compatible,
        hardware_compatible=hardware_compatible,
        refittable=refittable,
    )
    with Progress("building", unit="plans"):
        plan = tensorrt_builder.build(model, output, options, flavour, trust_engine=trust_engine)
    if not is_foreign(model):
        inherit_golden(plan.path, model)
    facts = plan.sidecar.plan
    assert facts is not None and facts.audit is not None
    audit = facts.audit
    inspected = "plan" if audit.engine else "parsed network"
    types = mixture(audit.engine or audit.parsed_network)
    click.echo(plan.path)
    click.echo(
        f"{facts.size_bytes:,} bytes in {facts.build_s:.1f} s; convolutions of the "
        f"{inspected}: {', '.join(f'{count} {name}' for name, count in types.items())}",
        err=True,
    )
    if audit.not_inspected is not None:
        click.echo(f"the plan itself was not inspected: {audit.not_inspected}", err=True)


def _refit(plan: Path, model: Path, output: Path) -> None:
    """Put weights into a plan; options of a build have no effect there, so they are refused."""
    from tinyunet_deploy.quality.refitting import refit_plan

    context = click.get_current_context()
    ours = {"model", "output", "plan_to_refit"}
    for parameter in context.command.params:
        name = parameter.name
        given = name and context.get_parameter_source(name) is ParameterSource.COMMANDLINE
        if given and name not in ours:
            raise click.UsageError(f"{parameter.opts[0]} has no effect with --refit")
    with Progress("refitting", unit="plans"):
        artifact, test = refit_plan(plan, model, output)
    click.echo(artifact.path)
    click.echo(
        f"self-test passed: {test.mean_steps:.3g} steps of 255 from the golden scores on average, "
        f"{test.largest_steps} at most",
        err=True,
    )
