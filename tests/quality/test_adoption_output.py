"""What the values of a network mean: decided where they show it, asked for where they do not."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from tinyunet_deploy.artifacts.facts import Activation
from tinyunet_deploy.quality.adoption_output import decide_output


def of(low: float, high: float, channels: int = 1) -> list[NDArray[np.float32]]:
    """Values that span a range."""
    values = np.linspace(low, high, channels * 16, dtype=np.float32)
    return [values.reshape(1, channels, 4, 4)]


def distribution(channels: int) -> list[NDArray[np.float32]]:
    powers = np.exp(of(0, 3, channels)[0])
    return [(powers / powers.sum(axis=1, keepdims=True)).astype(np.float32)]


def test_one_channel() -> None:
    assert decide_output(of(-3, 2), None, None, None).activation == "sigmoid"
    assert decide_output(of(0, 1), "sigmoid", None, None).activation == "probability"
    assert decide_output(of(0, 1), None, "probability", None).activation == "probability"
    assert decide_output(of(-1, 1), None, "sigmoid", None).activation == "sigmoid"
    positive = decide_output(of(0.1, 1), None, "sigmoid", None)
    assert positive.reason.endswith("no score is below 128 of 255"), "as of untrained networks"
    for open_question in (of(0, 1), of(0, 5), of(0.2, 0.9), of(-9, -3)):
        assert list(decide_output(open_question, None, None, None).missing) == [
            "--activation sigmoid|probability"
        ]


def test_values_of_which_none_is_above_0_are_not_taken_for_logits() -> None:
    """They may be logarithms of probabilities; a network that finds nothing can give them, too."""
    (why,) = decide_output(of(-9, -3), None, None, None).missing.values()
    assert "logits, or logarithms of probabilities" in why
    assert decide_output(of(-9, -3), None, "sigmoid", None).activation == "sigmoid"
    assert decide_output(of(-9, -3), "negation", "sigmoid", None).activation == "sigmoid"
    assert decide_output(of(-9, 3), "log", None, None).activation == "sigmoid", "log(p / (1 - p))"


def test_a_softmax_undoes_its_logarithm() -> None:
    logarithms = [np.log(values) for values in distribution(3)]
    for last in ("log", None):
        decided = decide_output(logarithms, last, None, None)  # type: ignore[arg-type]
        assert (decided.activation, decided.defect) == ("softmax", (1, 2))
    assert decide_output(logarithms, "log", "softmax", (2,)).defect == (2,)
    for wrong in ("sigmoid", "probability"):
        with pytest.raises(ValueError, match=r"pass --activation softmax$"):
            decide_output(logarithms, "log", wrong, (2,))  # type: ignore[arg-type]


def test_a_softmax_over_another_axis_is_refused() -> None:
    powers = np.exp(of(-3, 3, 4)[0][:, :1])
    for axes, name in (((3,), "each row"), ((2,), "each column"), ((1, 2, 3), "each class")):
        values = powers / powers.sum(axis=axes, keepdims=True)
        for given in (values, np.log(values)):
            with pytest.raises(ValueError, match=f"sum to 1 over {name}"):
                decide_output([given], "softmax", None, None)
    powers = np.exp(of(-3, 3, 4)[0])
    with pytest.raises(ValueError, match="sum to 1 over the whole image"):
        decide_output([powers / powers.sum()], "softmax", None, (1,))


@pytest.mark.parametrize("activation", [None, "sigmoid", "probability"])
def test_labels_are_refused_whatever_the_user_calls_them(activation: Activation | None) -> None:
    for highest in (1, 2, 255):
        labels = np.arange(16, dtype=np.float32).reshape(1, 1, 4, 4) % (highest + 1)
        with pytest.raises(ValueError, match="as labels are"):
            decide_output([labels], None, activation, None)
    one_hot = np.stack([labels > 7, labels <= 7], axis=1)[:, :, 0].astype(np.float32)
    with pytest.raises(ValueError, match="as labels are"):
        decide_output([one_hot], None, activation, None)


def test_logits_of_whole_numbers_are_those_of_an_int8_network() -> None:
    steps = np.arange(-8, 8, dtype=np.float32).reshape(1, 1, 4, 4)
    assert decide_output([steps], None, None, None).activation == "sigmoid"


def test_several_channels() -> None:
    softmax = decide_output(distribution(5), "softmax", None, None)
    assert (softmax.activation, softmax.defect, softmax.combine) == (
        "probability",
        (1, 2, 3, 4),
        "sum",
    )
    assert decide_output(distribution(3), None, None, (2,)).defect == (2,)
    assert decide_output(of(-3, 3, 4), None, None, None).missing
    logits = decide_output(of(-3, 3, 4), None, "softmax", None)
    assert (logits.activation, logits.defect, logits.combine) == ("softmax", (1, 2, 3), "sum")
    assert list(decide_output(of(-3, 3, 4), None, "sigmoid", None).missing) == ["--defect 1,2"]
    each = decide_output(of(-3, 3, 4), None, "sigmoid", (0, 3))
    assert (each.activation, each.defect, each.combine) == ("sigmoid", (0, 3), "largest")


def test_bytes() -> None:
    scores = [np.arange(256, dtype=np.uint8).reshape(1, 1, 16, 16)]
    assert decide_output(scores, None, None, None).activation == "bytes"
    for highest in (1, 4, 20):
        with pytest.raises(ValueError, match=f"labels 0 to {highest} .* if they are scores, --ima"):
            decide_output([scores[0] % (highest + 1)], None, None, None)
    with pytest.raises(ValueError, match=r"above 100 of 255 on 1 images: percent.* --images"):
        decide_output([scores[0] % 101], None, None, None)
    assert decide_output([scores[0] % 102], None, None, None).activation == "bytes"
    with pytest.raises(ValueError, match="labels 0 to 150"):
        decide_output([scores[0] % 151], "labels", None, None)
    assert "only 0 and 255" in decide_output([scores[0] % 2 * 255], None, None, None).reason
    assert "only" not in decide_output(scores, None, None, None).reason
    with pytest.raises(ValueError, match="leave --activation out"):
        decide_output(scores, None, "sigmoid", None)


@pytest.mark.parametrize(
    ("values", "last", "activation", "defect", "words"),
    [
        (of(0, 1), "sigmoid", "sigmoid", None, "already ends in sigmoid"),
        (of(0, 5), None, "probability", None, "does not give prob.*pass --activation sigmoid"),
        (of(-1, 1), None, "probability", None, "does not give probabilities"),
        (of(0, 99.5), None, "probability", None, "percent, or another scale.*--images"),
        (of(0, 99.5), None, "sigmoid", None, "percent, or another scale.*--images"),
        (of(0, 99.5), None, None, None, "percent, or another scale.*--images"),
        (of(0, 99.5), "sigmoid", None, None, "percent, or another scale.*--images"),
        (of(-9, -0.1), "log", "sigmoid", None, "ends in a log: .* not logits"),
        (of(-1, -0.1), "negation", "sigmoid", None, "ends in a negation: .* not logits"),
        (of(-1, 1), "tanh", "sigmoid", None, "ends in a tanh"),
        (of(-1, 1), None, "softmax", None, "always 1"),
        (distribution(3), None, None, (0, 1, 2), "not all of them"),
        (distribution(3), None, None, (3,), "--defect 3 is none"),
    ],
)
def test_a_choice_that_the_values_contradict_is_refused(
    values: list[NDArray[np.float32]], last: str, activation: str, defect: tuple[int], words: str
) -> None:
    with pytest.raises(ValueError, match=words):
        decide_output(values, last, activation, defect)  # type: ignore[arg-type]
