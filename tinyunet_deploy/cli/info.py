"""Command ``tinyunet info``: print the facts of a model."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from tinyunet_deploy.cli.options import ModelPath, debug_option, format_option, trust_option
from tinyunet_deploy.errors import printable

if TYPE_CHECKING:
    from tinyunet_deploy.artifacts.sidecar import Artifact, Sidecar


@click.command()
@click.argument("model", required=False, type=ModelPath(dir_okay=False))
@trust_option
@format_option
@debug_option
def info(model: Path | None, trust_engine: bool, style: str) -> None:
    """Print what MODEL is and what it was made from.

    MODEL is a file, or the name of a model in the package; without it, the models of the package
    are listed. The file is checked against its sidecar.
    With --trust-engine, a file without one is described by what can be read from it.
    """
    from tinyunet_deploy.backends.registry import read_tried

    if model is None:
        click.echo(_packaged_json() if style == "json" else _packaged_table())
        return
    artifact = read_tried(model, trust_engine=trust_engine)
    sidecar = artifact.sidecar
    if style == "json":
        click.echo(sidecar.as_json() if artifact.has_sidecar else _foreign_json(sidecar), nl=False)
        return
    facts = _facts(artifact) if artifact.has_sidecar else _foreign_facts(artifact)
    origin = sidecar.origin.items() if artifact.has_sidecar else ()
    rows = [*facts.items(), *((printable(name), _one_line(value)) for name, value in origin)]
    width = max(len(name) for name, _ in rows) + 2
    for name, fact in rows:
        click.echo(f"{name:{width}}" + fact.replace("\n", "\n" + " " * width))


def _packaged() -> dict[str, Artifact]:
    """Return name -> checked ONNX file of the models in the package, the default first."""
    from tinyunet_deploy.artifacts.packaged import PACKAGED
    from tinyunet_deploy.artifacts.sidecar import read_artifact

    return {name: read_artifact(path) for name, path in PACKAGED.items()}


def _packaged_table() -> str:
    """Return the models in the package, a line each."""
    lines = []
    for number, (name, artifact) in enumerate(_packaged().items()):
        sidecar = artifact.sidecar
        lines.append(
            f"{name:8}{len(artifact.data) / 1e6:.1f} MB  {sidecar.contract.height}x"
            f"{sidecar.contract.width}  threshold {sidecar.threshold:g}  "
            f"min_area {sidecar.min_area} px{'' if number else '  (default)'}"
        )
    return "\n".join([*lines, "tinyunet info NAME prints all about one; -m NAME runs it"])


def _packaged_json() -> str:
    """Return the models in the package as JSON."""
    import json

    models = [
        {
            "name": name,
            "default": number == 0,
            "file": str(artifact.path),
            "bytes": len(artifact.data),
            "sha256": artifact.sidecar.sha256,
            "threshold": artifact.sidecar.threshold,
            "min_area_px": artifact.sidecar.min_area,
        }
        for number, (name, artifact) in enumerate(_packaged().items())
    ]
    return json.dumps({"schema_version": 1, "models": models}, indent=2)


def _facts(artifact: Artifact) -> dict[str, str]:
    """Return the facts of an artifact with a sidecar, a row each."""
    from tinyunet_deploy.artifacts.lineage import lineage

    path, sidecar = artifact.path, artifact.sidecar
    return {
        "file": f"{click.format_filename(path)}  {len(artifact.data) / 1e6:.1f} MB",
        "kind": f"{sidecar.kind}, {sidecar.precision}"
        + (", unsigned activations: for CPUs, not TensorRT" * sidecar.unsigned_activations),
        "sha256": f"{sidecar.sha256}  (checked)",
        "made from": "\n".join(
            f"{click.format_filename(link.path.name) if link.path else 'not found:'}  {link.sha256}"
            for link in lineage(path)[1:]
        )
        or _first_of(sidecar),
        **_contract_facts(sidecar),
        "batch": f"{sidecar.verified_batch} verified" if sidecar.verified_batch else "not verified",
        "self-test": "golden images" if sidecar.golden else "no golden images",
        "threshold": f"{sidecar.threshold:g}",
        "min_area": f"{sidecar.min_area} px",
        **_network_facts(sidecar),
        **_adoption_facts(sidecar),
        **_speed_facts(sidecar),
        **_plan_facts(sidecar),
    }


def _first_of(sidecar: Sidecar) -> str:
    """Return what the first artifact of a lineage was made from."""
    if sidecar.adoption is not None:
        return "an adopted network"
    return "training" if sidecar.kind == "checkpoint" else "unknown"


def _foreign_facts(artifact: Artifact) -> dict[str, str]:
    """Return the facts of a trusted file without a sidecar: what was read from it, or unknown."""
    path, sidecar = artifact.path, artifact.sidecar
    threshold, min_area = sidecar.decision()
    return {
        "file": f"{click.format_filename(path)}  {len(artifact.data) / 1e6:.1f} MB",
        "kind": f"{sidecar.kind}, {sidecar.precision}",
        "sha256": f"{sidecar.sha256}  (not checked: there is no sidecar)",
        "made from": "unknown",
        **_contract_facts(sidecar),
        "batch": "not verified",
        "self-test": "no golden images",
        "threshold": f"unknown; the default is {threshold:g}",
        "min_area": f"unknown; the default is {min_area} px",
        "network": "unknown",
    }


def _foreign_json(sidecar: Sidecar) -> str:
    """Return the same as JSON: the fields of a sidecar, null where unknown, but not a sidecar."""
    import dataclasses
    import json

    known = ("kind", "precision", "sha256", "contract")
    fields = dataclasses.asdict(sidecar)
    values = {name: value if name in known else None for name, value in fields.items()}
    return json.dumps({"schema_version": None, **values}, indent=2) + "\n"


def _contract_facts(sidecar: Sidecar) -> dict[str, str]:
    contract = sidecar.contract
    grey = f"uint8 [N, 1, {contract.height}, {contract.width}]"
    return {
        "takes": f"image {grey}, " + (f"N <= {most}" if (most := contract.max_batch) else "any N"),
        "gives": f"score {grey}, 255 x probability of a defect",
    }


def _network_facts(sidecar: Sidecar) -> dict[str, str]:
    network = sidecar.network
    if network is None:
        return {"network": "unknown"}
    multiple = network.size_multiple or "unknown"
    reach = "reach unknown"
    if network.reach is not None:
        before, after = network.reach
        reach = f"a score depends on {before} px before and {after} px after its pixel"
    facts = {"network": f"{network.name or 'unnamed'}, size multiple {multiple}, {reach}"}
    if network.architecture is not None:
        facts["widths"] = str(network.architecture)
    if sidecar.step is not None:
        facts["step"] = str(sidecar.step)
    if sidecar.teacher is not None:
        facts["learned from"] = sidecar.teacher
    if sidecar.trained_on:
        facts["trained on"] = f"{len(sidecar.trained_on)} images"
    if sidecar.tuned_on:
        facts["tuned on"] = f"{len(sidecar.tuned_on)} images"
    if sidecar.kept_in_float32:
        facts["kept in float32"] = " ".join(sidecar.kept_in_float32)
    return {name: printable(fact) for name, fact in facts.items()}


def _adoption_facts(sidecar: Sidecar) -> dict[str, str]:
    adoption = sidecar.adoption
    if adoption is None:
        return {}
    normalized = "takes bytes"
    if adoption.mean is not None and adoption.std is not None:
        mean, std = (" ".join(f"{v:g}" for v in values) for values in (adoption.mean, adoption.std))
        normalized = f"(grey - {mean}) / {std}"
    channels = " ".join(map(str, adoption.defect_channels))
    facts = {
        "adopted from": f"{adoption.original_name}  {adoption.original_sha256}",
        "original": f"{adoption.input_channels} channels {adoption.input_layout}, {normalized}; "
        f"{adoption.activation} of channels {channels}; batch {adoption.batch}, "
        f"size {adoption.size}, reach: {adoption.reach}",
        "proof": f"at most {adoption.proof_steps} of 255 from the original on "
        f"{adoption.proof_images} images",
    }
    return {name: printable(fact) for name, fact in facts.items()}


def _speed_facts(sidecar: Sidecar) -> dict[str, str]:
    """Return a line for each runtime that the exporter timed, and where it was measured."""
    speed = sidecar.speed
    if speed is None:
        return {"speed": "not measured"} if sidecar.kind == "onnx" else {}
    lines = [
        f"{one} as {speed.wider} on {one.backend} ({one.low:.2f} to {one.high:.2f})"
        + ("" if speed.pays(one.backend) else ": not faster")
        for one in speed.runtimes
    ]
    lines.append(f"measured on {speed.processors} processors, {speed.processor}")
    return {"speed": "\n".join(printable(line) for line in lines)}


def _plan_facts(sidecar: Sidecar) -> dict[str, str]:
    plan = sidecar.plan
    if plan is None:
        return {}
    batches = (
        f"batches of {profile.min} to {profile.max}, tuned for {profile.opt}"
        for profile in plan.profiles
    )
    facts = {
        "tensorrt": f"{plan.flavour} {plan.version}",
        "gpu": f"{plan.gpu_name or 'any'}, compute capability {plan.compute_capability}",
        "profile": "; ".join(batches),
        "rebuild": plan.rebuild,
    }
    return {name: printable(fact) for name, fact in facts.items()}


def _one_line(value: object) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{printable(key)} {_one_line(part)}" for key, part in value.items())
    if isinstance(value, list | tuple):
        return " ".join(map(_one_line, value))
    return f"{value:.4g}" if isinstance(value, float) else printable(str(value))
