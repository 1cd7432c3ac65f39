"""Facts in a sidecar that code reads: about the network, its adoption, and a TensorRT plan."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import Final, Literal, Self, TypeAlias, get_args

from tinyunet_deploy.artifacts.architectures import NETWORKS, Architecture

__all__ = [
    "HARDWARE_COMPATIBILITIES",
    "Activation",
    "AdoptionFacts",
    "HardwareCompatibility",
    "Layout",
    "NetworkFacts",
    "PlanFacts",
    "PrecisionAudit",
    "Profile",
]


@dataclass(frozen=True)
class NetworkFacts:
    """Facts about a network that other modules need."""

    name: str | None
    """Name of the architecture, such as ``tiny``; None if not recorded."""
    size_multiple: int | None = None
    """Number that must divide the height and width of an image; None if unknown."""
    reach_before: int | None = None
    """Number of pixels above and left of a pixel that its score depends on; None if unknown."""
    reach_after: int | None = None
    """Number of pixels below and right of a pixel that its score depends on; None if unknown."""
    architecture: Architecture | None = None
    """Widths of a network that a recipe defines; None for one that :data:`NETWORKS` has under its
    name, and for a network of another kind."""

    @classmethod
    def of(cls, name: str, architecture: Architecture | None = None) -> Self:
        """Return the facts of a network.

        Args:
            name: a key of :data:`NETWORKS`, or another name for an architecture that is given.
            architecture: widths of the network; None takes those that :data:`NETWORKS` names.
        """
        widths = architecture or NETWORKS[name]
        return cls(name, widths.size_multiple, *widths.reach, architecture)

    def __post_init__(self) -> None:
        if self.name is not None and not isinstance(self.name, str):
            raise ValueError(f"network.name {self.name!r} is not a string")
        for field, least in (("size_multiple", 1), ("reach_before", 0), ("reach_after", 0)):
            value = getattr(self, field)
            if value is not None and (type(value) is not int or value < least):
                raise ValueError(f"network.{field} {value!r} is not a number of at least {least}")
        if (self.reach_before is None) != (self.reach_after is None):
            raise ValueError("network has only one of reach_before and reach_after")

    @property
    def reach(self) -> tuple[int, int] | None:
        """``reach_before`` and ``reach_after``, pixels; None if unknown."""
        if self.reach_before is None or self.reach_after is None:
            return None
        return self.reach_before, self.reach_after

    def check_size(self, height: int, width: int) -> None:
        """Check that the network takes images of a size.

        Raises:
            ValueError: it does not.
        """
        multiple = self.size_multiple or 1
        for side, value in (("height", height), ("width", width)):
            if value < multiple or value % multiple:
                raise ValueError(f"{side} {value!r} is not a multiple of {multiple}")


Layout: TypeAlias = Literal["NCHW", "NHWC", "NHW"]
"""Order of a tensor's axes; NHW is an output with one value per pixel and no axis for it."""
Activation: TypeAlias = Literal["sigmoid", "softmax", "probability", "bytes"]
"""How a network's output becomes a probability: by a sigmoid, by a softmax over the channels, or
it is one already, as a float of 0..1 or as a uint8 of 0..255."""


@dataclass(frozen=True)
class AdoptionFacts:
    """How a network of another origin was wrapped so that it keeps the contract, and the proof.

    A file that is made from an adopted one, such as its fp16 file or its plan, has the same facts.
    """

    original_sha256: str
    """sha256 of the file that was adopted, 64 hex digits."""
    original_name: str
    """Name of that file, without its folder."""
    input_layout: Layout
    input_channels: int
    """1, or 3 if the grey image is repeated to three channels."""
    mean: tuple[float, ...] | None
    """Value that is subtracted from each channel of the grey image (0..255), one number for all
    channels or one for each; None if the network takes the bytes."""
    std: tuple[float, ...] | None
    """Value that each channel is then divided by; None if the network takes the bytes."""
    output_layout: Layout
    activation: Activation
    """Applied by the wrapper; ``probability`` and ``bytes`` are left as they are."""
    defect_channels: tuple[int, ...]
    """Output channels that are defects, from 0."""
    combine: Literal["sum", "largest"]
    """How the probabilities of several defect channels become one: the sum where the channels
    exclude each other (softmax), else the largest."""
    batch: Literal["free", "fixed"]
    """``fixed``: the file takes one image per call."""
    size: Literal["free", "fixed"]
    """``free``: the original takes other sizes, so that it can be adopted again with ``--size``."""
    reach: Literal["measured", "declared", "whole image"]
    """Where the network's reach comes from; ``whole image``: a score may depend on any pixel, so
    tiles only approximate it."""
    proof_steps: int
    """Largest difference between the file and the original with its pre- and post-processing in
    numpy, steps of 1/255."""
    proof_images: int
    """Number of images that the two were compared on."""

    def __post_init__(self) -> None:
        if not re.fullmatch("[0-9a-f]{64}", self.original_sha256):
            raise ValueError("adoption.original_sha256 is not a SHA-256 in hex")
        if not isinstance(self.original_name, str):
            raise ValueError(f"adoption.original_name {self.original_name!r} is not a string")
        for field, choices in _CHOICES.items():
            if getattr(self, field) not in choices:
                raise ValueError(f"adoption.{field} {getattr(self, field)!r} is not known")
        for field in ("mean", "std"):
            values = getattr(self, field)
            if values is not None and not all(
                type(value) in (int, float) and math.isfinite(value) for value in values
            ):
                raise ValueError(f"adoption.{field} is not a list of numbers")
        counts = (*self.defect_channels, self.proof_steps, self.proof_images)
        if any(type(count) is not int or count < 0 for count in counts):
            raise ValueError("adoption has a count or channel that is not a number from 0")


_CHOICES: Final[dict[str, tuple[object, ...]]] = {
    "input_layout": get_args(Layout),
    "input_channels": (1, 3),
    "output_layout": get_args(Layout),
    "activation": get_args(Activation),
    "combine": ("sum", "largest"),
    "batch": ("free", "fixed"),
    "size": ("free", "fixed"),
    "reach": ("measured", "declared", "whole image"),
}
"""Field of :class:`AdoptionFacts` -> its possible values."""


@dataclass(frozen=True)
class Profile:
    """Batch sizes that a plan is built for."""

    min: int = 1
    opt: int = 8
    """Batch size for which TensorRT chooses its kernels."""
    max: int = 16

    def __post_init__(self) -> None:
        if any(type(size) is not int for size in self.sizes) or not (
            1 <= self.min <= self.opt <= self.max
        ):
            raise ValueError(
                f"profile {self.sizes} is not three ascending batch sizes of at least 1"
            )

    @property
    def sizes(self) -> tuple[int, int, int]:
        """``min``, ``opt`` and ``max``."""
        return self.min, self.opt, self.max


@dataclass(frozen=True)
class PrecisionAudit:
    """Number types of a plan's convolutions: name -> ``Float``, ``Half``, ``Int8`` ..."""

    parsed_network: dict[str, str]
    """Types in the ONNX file, as TensorRT's parser reads them."""
    engine: dict[str, str] | None
    """Types in the built plan, as TensorRT's inspector reports them; None if not inspected."""
    not_inspected: str | None = None
    """Reason why the plan itself was not inspected; None if it was."""

    def __post_init__(self) -> None:
        for types in (self.parsed_network, self.engine or {}):
            if not isinstance(types, dict) or not all(isinstance(t, str) for t in types.values()):
                raise ValueError("the precision audit does not map names to types")
        if not isinstance(self.not_inspected, str | None):
            raise ValueError(f"not_inspected {self.not_inspected!r} is not a string")


HardwareCompatibility: TypeAlias = Literal["ampere-plus", "same-compute-capability"]
"""GPUs that a plan may run on beside its own: all from NVIDIA's Ampere on, or those of the same
compute capability."""
HARDWARE_COMPATIBILITIES: Final[tuple[HardwareCompatibility, ...]] = get_args(HardwareCompatibility)


@dataclass(frozen=True)
class PlanFacts:
    """TensorRT, GPU and batch sizes that a plan was built for, and the command to rebuild it."""

    flavour: str
    """``tensorrt`` or ``tensorrt_rtx``."""
    version: str
    """TensorRT's version, such as ``11.4.0.106``."""
    gpu_name: str | None
    """Name of the GPU by its driver; None if the plan was built without a GPU."""
    compute_capability: str
    """Compute capability of the GPU, such as ``8.6``."""
    profile: Profile
    """Batch sizes of the first optimisation profile."""
    rebuild: str = "tinyunet build MODEL.onnx"
    """Command that rebuilds the plan."""
    audit: PrecisionAudit | None = None
    size_bytes: int | None = None
    """Size of the plan, bytes."""
    build_s: float | None = None
    """Time that TensorRT took to build the plan, seconds."""
    level: int | None = None
    """Effort to find fast tactics, 0..5; None in a plan of an earlier release."""
    workspace_mb: int | None = None
    """Largest scratch memory of a tactic, MiB; None allows all that the GPU has."""
    flags: tuple[str, ...] = ()
    """Names of TensorRT's builder flags that were set, such as ``TF32``."""
    timing_cache: str | None = None
    """Use of tactic timings of an earlier build: ``off``, ``empty``, ``hit`` if the build added
    none, or ``extended``; None in a plan of an earlier release."""
    more_profiles: tuple[Profile, ...] = ()
    """Further optimisation profiles, each tuned for its own batch size; the one that suits a batch
    best is chosen when it is run."""
    version_compatible: bool = False
    """True if later releases of TensorRT run it too; it then contains TensorRT's lean runtime."""
    hardware_compatible: HardwareCompatibility | None = None
    """Other GPUs that run it; None is only the GPU that it was built for."""
    refittable: bool = False
    """True if new weights of the same network can be put into it."""
    structure: str | None = None
    """sha256 of the ONNX file without the weights of its convolutions, for a refit; None if the
    plan is not refittable."""
    refitted_from: str | None = None
    """sha256 of the plan that these weights were put into; None if it was built."""

    @property
    def profiles(self) -> tuple[Profile, ...]:
        """All optimisation profiles, in the plan's order."""
        return self.profile, *self.more_profiles

    @property
    def max_batch(self) -> int:
        """Largest batch of any profile."""
        return max(profile.max for profile in self.profiles)

    def __post_init__(self) -> None:
        for field in ("flavour", "version", "compute_capability", "rebuild"):
            value = getattr(self, field)
            if not isinstance(value, str):
                raise ValueError(f"plan.{field} {value!r} is not a string")
        if not isinstance(self.gpu_name, str | None):
            raise ValueError(f"plan.gpu_name {self.gpu_name!r} is not a string")
        if type(self.size_bytes) not in (int, type(None)):
            raise ValueError(f"plan.size_bytes {self.size_bytes!r} is not a number")
        for field in ("level", "workspace_mb"):
            if type(getattr(self, field)) not in (int, type(None)):
                raise ValueError(f"plan.{field} {getattr(self, field)!r} is not a number")
        if not isinstance(self.timing_cache, str | None):
            raise ValueError(f"plan.timing_cache {self.timing_cache!r} is not a string")
        if not all(isinstance(flag, str) for flag in self.flags):
            raise ValueError("plan.flags is not a list of names")
        for field in ("version_compatible", "refittable"):
            if type(getattr(self, field)) is not bool:
                raise ValueError(f"plan.{field} {getattr(self, field)!r} is not true or false")
        if self.hardware_compatible not in (None, *HARDWARE_COMPATIBILITIES):
            raise ValueError(f"plan.hardware_compatible {self.hardware_compatible!r} is not known")
        for field in ("structure", "refitted_from"):
            if not isinstance(getattr(self, field), str | None):
                raise ValueError(f"plan.{field} {getattr(self, field)!r} is not a string")
        if type(self.build_s) not in (int, float, type(None)):
            raise ValueError(f"plan.build_s {self.build_s!r} is not a number")
