"""The form of a network of another origin: what it takes, what it gives, and what is chosen."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

from tinyunet_deploy.artifacts.facts import Activation, Layout
from tinyunet_deploy.artifacts.onnx_guard import CONTRACT_ENDS, GraphEnd, GraphEnds
from tinyunet_deploy.artifacts.onnx_reader import read_graph

__all__ = [
    "NORMALIZATIONS",
    "InputForm",
    "LastActivation",
    "Normalization",
    "OutputForm",
    "chosen_output",
    "input_form",
    "last_activation",
    "output_layout",
]

_TYPES: Final = ("float32", "float16", "uint8")
"""Element types of an image, and of values that become a probability."""
_PASSED_OVER: Final = {
    "Cast", "Clip", "Identity", "Reshape", "Slice", "Squeeze", "Transpose", "Unsqueeze",
}  # fmt: skip
"""Operators that leave a probability a probability, and a label a label."""

LastActivation = Literal["sigmoid", "softmax", "log", "negation", "tanh", "labels"]
"""Kind of the operator that a graph's values come from."""

_ACTIVATIONS: Final[dict[str, LastActivation]] = {
    "Sigmoid": "sigmoid", "HardSigmoid": "sigmoid", "Softmax": "softmax",
    "Log": "log", "LogSoftmax": "log", "Neg": "negation", "Tanh": "tanh",
}  # fmt: skip
"""Operator -> its kind."""
_LABELS: Final = {
    "And", "ArgMax", "ArgMin", "Equal", "Greater", "GreaterOrEqual", "Less", "LessOrEqual", "Not",
    "Or", "Sign", "Xor",
}  # fmt: skip
"""Operators whose values are classes, without a degree that a threshold could be set for."""


@dataclass(frozen=True)
class Normalization:
    """(grey - mean) / std, of grey values 0..255, with one number for all channels or one each."""

    mean: tuple[float, ...]
    std: tuple[float, ...]

    @classmethod
    def scaled(cls, scale: float, mean: tuple[float, ...], std: tuple[float, ...]) -> Normalization:
        """Return (scale * grey - mean) / std, as training code writes it, in our form."""
        return cls(tuple(m / scale for m in mean), tuple(s / scale for s in std))

    def fits(self, channels: int) -> bool:
        """Return whether each list has one number, or one for each channel."""
        return all(len(values) in (1, channels) for values in (self.mean, self.std))


NORMALIZATIONS: Final = {
    "raw": Normalization((0.0,), (1.0,)),
    "unit": Normalization((0.0,), (255.0,)),
    "symmetric": Normalization((127.5,), (127.5,)),
    "imagenet": Normalization.scaled(1 / 255, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
}
"""Name -> normalisation: ``raw`` leaves 0..255, ``unit`` gives 0..1, ``symmetric`` -1..1, and
``imagenet`` is that of networks pre-trained on ImageNet (torchvision's documentation)."""


@dataclass(frozen=True)
class InputForm:
    """The image that a network takes."""

    name: str
    type_name: str
    """``float32``, ``float16`` or ``uint8``."""
    layout: Layout
    channels: Literal[1, 3]
    batch: int | None
    """Images per call that the file states; None if free."""
    height: int | None
    """Rows, pixels; None if free."""
    width: int | None
    """Columns, pixels; None if free."""

    def shape(self, height: int, width: int, images: int = 1) -> tuple[int, ...]:
        """Return the shape of the array for some images of a size, in this layout."""
        if self.layout == "NCHW":
            return images, self.channels, height, width
        return images, height, width, self.channels


@dataclass(frozen=True)
class OutputForm:
    """The values that a network gives, and how they become the probability of a defect."""

    name: str
    type_name: str
    layout: Layout
    channels: int
    activation: Activation
    defect: tuple[int, ...]
    """Output channels that are defects, from 0."""
    combine: Literal["sum", "largest"]


def input_form(ends: GraphEnds, layout: Layout | None) -> InputForm:
    """Return what a graph takes.

    Args:
        layout: the user's; None reads it from the number of channels.

    Raises:
        ValueError: the graph does not take one image; the message is for the user.
    """
    if len(ends.inputs) != 1:
        raise ValueError(f"{_found(ends)}; adopt takes a network with one input, an image")
    (end,) = ends.inputs
    if end.type_name not in _TYPES:
        raise ValueError(f"{_found(ends)}; the image must be {', '.join(_TYPES)}")
    if len(end.dims) != 4:
        raise ValueError(f"{_found(ends)}; the image must have four axes, NCHW or NHWC")
    axes: dict[Layout, int] = {"NCHW": 1, "NHWC": 3}
    fitting = [name for name, axis in axes.items() if end.dims[axis] in (1, 3)]
    if layout is not None:
        fitting = [name for name in fitting if name == layout]
    if not fitting:
        where = "axis 1 or 3" if layout is None else f"the axis of {layout}"
        raise ValueError(f"{_found(ends)}; {where} must be 1 or 3 channels, fixed at export")
    if len(fitting) > 1:
        raise ValueError(
            f"{_found(ends)}; two axes can be the channels: pass --layout NCHW or NHWC"
        )
    batch, *sides = end.dims
    channels = sides.pop(0 if fitting[0] == "NCHW" else 2)
    return InputForm(end.name, end.type_name, fitting[0], 1 if channels == 1 else 3, batch, *sides)


def chosen_output(ends: GraphEnds, name: str | None) -> GraphEnd:
    """Return the output that is adopted.

    Args:
        name: the user's choice; None takes the only one.

    Raises:
        ValueError: there is no such output, or several and none was chosen, or its type is unfit;
            the message is for the user.
    """
    names = [end.name for end in ends.outputs]
    if name is not None and name not in names:
        raise ValueError(f"{_found(ends)}; it has no output {name!r}: known: {', '.join(names)}")
    if name is None and len(names) != 1:
        raise ValueError(f"{_found(ends)}; pass --output-name to choose one output")
    end = ends.outputs[0 if name is None else names.index(name)]
    if end.type_name not in _TYPES:
        labels = "; labels have no threshold: export the network without its ArgMax or comparison"
        raise ValueError(
            f"{_found(ends)}; the output must be {', '.join(_TYPES)}"
            + (labels if "int" in end.type_name or end.type_name == "bool" else "")
        )
    return end


def output_layout(
    shape: tuple[int, ...], height: int, width: int, batch: int, preferred: Layout
) -> tuple[Layout, int]:
    """Return the layout and the number of channels of an output, by its shape for one image size.

    Args:
        shape: of the output for ``batch`` images of ``height`` x ``width`` pixels.
        preferred: layout of the input, which decides where the shape fits both.

    Raises:
        ValueError: it does not have one value, or one per class, for each pixel.
    """
    if shape == (batch, height, width):
        return "NHW", 1
    fitting: dict[Layout, int] = {}
    if len(shape) == 4 and shape[0] == batch:
        if shape[2:] == (height, width):
            fitting["NCHW"] = shape[1]
        if shape[1:3] == (height, width):
            fitting["NHWC"] = shape[3]
    if not fitting or 0 in fitting.values():
        raise ValueError(
            f"gives {list(shape)} for {batch} image of {height}x{width} pixels (HxW); expected one "
            "value per pixel and class, as a segmentation network gives: export it with the "
            "enlargement to the image's size inside"
        )
    layout = preferred if preferred in fitting else next(iter(fitting))
    return layout, fitting[layout]


def last_activation(data: bytes, output: str) -> LastActivation | None:
    """Return the kind of operator that a graph's output comes from; None if none is seen.

    Args:
        data: a file that ``check_onnx_graph`` has accepted.
    """
    graph = read_graph(data)
    producers = {name: node for node in graph.nodes for name in node.outputs}
    for _ in graph.nodes:
        node = producers.get(output)
        if node is None or not node.inputs:
            return None
        if node.operator in _ACTIVATIONS:
            return _ACTIVATIONS[node.operator]
        if node.operator in _LABELS:
            return "labels"
        if node.operator not in _PASSED_OVER:
            return None
        output = node.inputs[0]
    return None


def _found(ends: GraphEnds) -> str:
    return f"has {ends}; expected {CONTRACT_ENDS}"
