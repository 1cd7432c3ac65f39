"""Options of a TensorRT build, and which of them go together."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, assert_never

from tinyunet_deploy.artifacts.facts import HardwareCompatibility, Profile
from tinyunet_deploy.artifacts.sidecar import Artifact
from tinyunet_deploy.backends.nvidia_probe import GPU, TensorRT
from tinyunet_deploy.backends.plan_check import AMPERE
from tinyunet_deploy.errors import RefusedError

__all__ = ["Options", "check_gpu_option", "check_options", "set_compatibility"]


@dataclass(frozen=True)
class Options:
    """Options of a build."""

    profile: Profile = field(default_factory=Profile)
    more_profiles: tuple[Profile, ...] = ()
    """Further optimisation profiles of the same plan, each tuned for its own batch size."""
    workspace_mb: int | None = None
    """Largest scratch memory of a tactic, MiB; None allows all that the GPU has."""
    level: int = 3
    """Effort to find fast tactics, 0..5; 3 is TensorRT's own default."""
    timing_cache: Path | None = None
    """File of tactic timings, read if it exists and then updated; TensorRT-RTX has none."""
    compute_capability: str | None = None
    """The GPU to build for, such as ``8.6``; TensorRT-RTX only, None is the GPU of this machine."""
    version_compatible: bool = False
    """Also run on later releases of TensorRT; the plan then contains TensorRT's lean runtime."""
    hardware_compatible: HardwareCompatibility | None = None
    """Also run on other GPUs; None is only the GPU of this machine."""
    refittable: bool = False
    """Let new weights of the same network be put into the plan."""

    @property
    def costs(self) -> list[str]:
        """Sentences on what compatibility and refit cost, from NVIDIA's documentation.

        Engine Compatibility (TensorRT 11.1) says that version-compatible engines can be slower;
        HardwareCompatibilityLevel that AMPERE_PLUS limits shared memory to 48 KiB, tactics and
        fusions; Refitting an Engine (11.3) that REFIT has given other results.
        """
        costs = {
            "version-compatible: may be slower; contains TensorRT's lean runtime": (
                self.version_compatible
            ),
            "ampere-plus: fewer kernels and fusions, at most 48 KiB of shared memory": (
                self.hardware_compatible == "ampere-plus"
            ),
            "same-compute-capability: may be slower than for one GPU": (
                self.hardware_compatible == "same-compute-capability"
            ),
            "refittable: fewer fusions; compare it with a plan that is not": self.refittable,
        }
        return [text for text, applies in costs.items() if applies]


def check_options(options: Options, source: Artifact, tensorrt: TensorRT) -> None:
    """Refuse options that this TensorRT lacks or that exclude each other.

    Raises:
        RefusedError: the option, and what to do instead.
    """
    named = {
        "--version-compatible": options.version_compatible,
        "--hardware-compatible": options.hardware_compatible is not None,
        "--refittable": options.refittable,
    }
    if tensorrt.flavour == "tensorrt_rtx" and any(named.values()):
        option = next(name for name, given in named.items() if given)
        raise RefusedError(
            option,
            "is not for TensorRT-RTX, whose plans run on several GPUs as they are and are built "
            "again in a second",
            "use --flavour tensorrt, or leave it out",
        )
    if options.refittable and options.version_compatible:
        raise RefusedError(
            "--refittable", "is not possible with --version-compatible, whose lean runtime has no "
            "refit", "choose one of them",
        )  # fmt: skip
    if options.refittable and source.sidecar.precision == "int8":
        raise RefusedError(
            "--refittable", "is not for int8, whose scales TensorRT builds into its kernels",
            "build the int8 plan again, or refit fp16",
        )  # fmt: skip


def check_gpu_option(options: Options, gpu: GPU | None) -> None:
    """Refuse compatibility that this GPU cannot be built for.

    Raises:
        RefusedError: ampere-plus was named on an older GPU.
    """
    if options.hardware_compatible != "ampere-plus" or gpu is None:
        return
    if float(gpu.compute_capability) < AMPERE:
        raise RefusedError(
            "--hardware-compatible",
            f"ampere-plus is built on compute capability {AMPERE} or newer, but {gpu.name} has "
            f"{gpu.compute_capability}",
            "use same-compute-capability",
        )


def set_compatibility(config: Any, trt: Any, options: Options) -> None:
    """Set the flags and the level of compatibility and refit.

    Args:
        config: TensorRT's ``IBuilderConfig``.
        trt: the module that made it.
    """
    if options.version_compatible:
        config.set_flag(trt.BuilderFlag.VERSION_COMPATIBLE)
    if options.refittable:
        config.set_flag(trt.BuilderFlag.REFIT)
    match options.hardware_compatible:
        case None:
            pass
        case "ampere-plus":
            config.hardware_compatibility_level = trt.HardwareCompatibilityLevel.AMPERE_PLUS
        case "same-compute-capability":
            level = trt.HardwareCompatibilityLevel.SAME_COMPUTE_CAPABILITY
            config.hardware_compatibility_level = level
        case _:
            assert_never(options.hardware_compatible)
