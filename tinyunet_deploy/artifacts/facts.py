"""Facts about artifacts that code reads: the network's, and a TensorRT plan's."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["NetworkFacts", "PlanFacts", "PrecisionAudit", "Profile"]


@dataclass(frozen=True)
class NetworkFacts:
    """What the rest of the program must know of a network."""

    name: str | None
    """Its architecture, such as ``tiny``; None where it is not recorded."""
    size_multiple: int | None = None
    """Height and width of an image must divide by this; None where it is unknown."""
    reach_before: int | None = None
    """Pixels above and to the left of a pixel on which its score depends; None where unknown."""
    reach_after: int | None = None
    """Pixels below and to the right of it; None where unknown."""

    def __post_init__(self) -> None:
        if self.name is not None and not isinstance(self.name, str):
            raise ValueError(f"network.name {self.name!r} is not a text")
        for field, least in (("size_multiple", 1), ("reach_before", 0), ("reach_after", 0)):
            value = getattr(self, field)
            if value is not None and (type(value) is not int or value < least):
                raise ValueError(f"network.{field} {value!r} is not a number from {least} on")
        if (self.reach_before is None) != (self.reach_after is None):
            raise ValueError("network has only one of reach_before and reach_after")

    @property
    def reach(self) -> tuple[int, int] | None:
        """``reach_before`` and ``reach_after``, pixels; None where they are unknown."""
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


@dataclass(frozen=True)
class Profile:
    """Images per batch that a plan is built for."""

    min: int = 1
    opt: int = 8
    """The size that tactics are chosen for."""
    max: int = 16

    def __post_init__(self) -> None:
        if any(type(size) is not int for size in self.sizes) or not (
            1 <= self.min <= self.opt <= self.max
        ):
            raise ValueError(f"profile {self.sizes} does not rise from 1 or more")

    @property
    def sizes(self) -> tuple[int, int, int]:
        """``min``, ``opt`` and ``max``."""
        return self.min, self.opt, self.max


@dataclass(frozen=True)
class PrecisionAudit:
    """What the convolutions of a plan compute in: name -> ``Float``, ``Half``, ``Int8`` ..."""

    parsed_network: dict[str, str]
    """As TensorRT's parser read the ONNX file."""
    engine: dict[str, str] | None
    """As the inspector reports them of the built plan; None if it was not inspected."""
    not_inspected: str | None = None
    """Why the plan itself was not inspected; None if it was."""

    def __post_init__(self) -> None:
        for types in (self.parsed_network, self.engine or {}):
            if not isinstance(types, dict) or not all(isinstance(t, str) for t in types.values()):
                raise ValueError("the precision audit does not map names to types")
        if not isinstance(self.not_inspected, str | None):
            raise ValueError(f"not_inspected {self.not_inspected!r} is not a text")


@dataclass(frozen=True)
class PlanFacts:
    """For what a TensorRT plan was built, and how to build it again."""

    flavour: str
    """``tensorrt`` or ``tensorrt_rtx``."""
    version: str
    """TensorRT's version, such as ``11.4.0.106``."""
    gpu_name: str | None
    """The GPU's name as its driver says it; None if it was built without one."""
    compute_capability: str
    """Such as ``8.6``."""
    profile: Profile
    rebuild: str = "tinyunet build MODEL.onnx"
    """The command that builds it again."""
    audit: PrecisionAudit | None = None
    size_bytes: int | None = None
    """Size of the plan."""
    build_s: float | None = None
    """How long TensorRT took to build it, seconds."""

    def __post_init__(self) -> None:
        for field in ("flavour", "version", "compute_capability", "rebuild"):
            value = getattr(self, field)
            if not isinstance(value, str):
                raise ValueError(f"plan.{field} {value!r} is not a text")
        if not isinstance(self.gpu_name, str | None):
            raise ValueError(f"plan.gpu_name {self.gpu_name!r} is not a text")
        if type(self.size_bytes) not in (int, type(None)):
            raise ValueError(f"plan.size_bytes {self.size_bytes!r} is not a number")
        if type(self.build_s) not in (int, float, type(None)):
            raise ValueError(f"plan.build_s {self.build_s!r} is not a number")
