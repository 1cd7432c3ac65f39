"""What the values of a network mean: decided where they show it, asked for where they do not."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

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
    assert decide_output(of(0, 1), None, "sigmoid", None).activation == "sigmoid"
    for open_question in (of(0, 1), of(0, 255), of(0.2, 0.9)):
        assert list(decide_output(open_question, None, None, None).missing) == [
            "--activation sigmoid|probability"
        ]


def test_a_graph_that_ends_in_a_sigmoid_but_gives_more_is_asked_about() -> None:
    assert decide_output(of(0, 255), "sigmoid", None, None).missing


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
    with pytest.raises(ValueError, match="labels 0 and 1"):
        decide_output([scores[0] % 2], None, None, None)
    with pytest.raises(ValueError, match="leave --activation out"):
        decide_output(scores, None, "sigmoid", None)


@pytest.mark.parametrize(
    ("values", "last", "activation", "defect", "words"),
    [
        (of(0, 1), "sigmoid", "sigmoid", None, "already ends in sigmoid"),
        (of(-1, 1), None, "probability", None, "does not give probabilities"),
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
