from __future__ import annotations

import dataclasses
import math
from pathlib import Path

import pytest

from tinyunet_deploy.artifacts.precision import PRECISIONS
from tinyunet_deploy.errors import DataError
from tinyunet_deploy.quality.parity_limits import (
    FIGURES,
    LIMITS,
    Limit,
    LimitCheck,
    Limits,
    outcome_of,
    read_limits,
)


def test_limits_of_the_package_are_those_that_were_promised() -> None:
    limits = read_limits()
    promised = {
        "fp32": {"largest_steps": 1, "agreement": 0.9999},
        "fp16": {"agreement": 0.999, "flips": 0},
        "int8": {"iou_drop": 0.005, "agreement": 0.95, "flips_defective": 0, "new_alarms": 0},
    }
    for precision, wanted in promised.items():
        found = {limit.figure: limit.value for limit in limits.of(precision, "openvino")}
        assert wanted.items() <= found.items()
    other = {limit.figure: limit.value for limit in limits.of("another-network")}
    assert other == {"lost_defective": 0, "new_alarms": 0, "iou_drop": 0.02}
    assert all(limit.reason for limit in limits.limits)
    for precision in PRECISIONS:
        figures = {limit.figure for limit in limits.of(precision)}
        assert "batch_steps" in figures
        assert figures & {"golden_mean_steps", "golden_largest_steps"}, "the self-test needs one"


def test_a_backend_may_have_a_limit_of_its_own() -> None:
    loose = dataclasses.replace(
        read_limits().of("fp32", "openvino")[0], value=9, backend="openvino"
    )
    limits = Limits((loose, *read_limits().limits))
    assert loose in limits.of("fp32", "openvino")
    assert loose not in limits.of("fp32", "onnxruntime")


GOOD = 'precision = "fp32"\nfigure = "flips"\nmost = 0\nreason = "so"\n'


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("", "it has no"),
        ("[limits]\n", "unknown key limits"),
        ("[[limit]]\n" + GOOD + "hint = 1\n", "unknown key"),
        ("[[limit]]\n" + GOOD.replace("flips", "steps"), "figure is 'steps'"),
        ("[[limit]]\n" + GOOD.replace("most", "least"), "needs most"),
        ("[[limit]]\n" + GOOD.replace("0", "true"), "needs most"),
        ("[[limit]]\n" + GOOD.replace('"so"', '" "'), "no reason"),
        ("[[limit]]\n" + GOOD + 'backend = "cuda"\n', "backend is 'cuda'"),
        (2 * ("[[limit]]\n" + GOOD), "twice"),
    ],
)
def test_a_file_of_limits_is_read_strictly(tmp_path: Path, text: str, what: str) -> None:
    path = tmp_path / "limits.toml"
    path.write_text(text)
    with pytest.raises(DataError, match=what):
        read_limits(path)
    assert read_limits(LIMITS)


MOST = Limit("fp32", "largest_steps", 2.0, "so")
LEAST = Limit("fp32", "agreement", 0.9, "so")


def test_a_limit_holds_up_to_its_value_and_never_for_nan() -> None:
    assert MOST.holds(2.0) and not MOST.holds(math.nextafter(2.0, 3.0))
    assert LEAST.holds(0.9) and not LEAST.holds(math.nextafter(0.9, 0.0))
    assert not MOST.holds(math.nan) and not LEAST.holds(math.nan)
    assert (str(MOST), str(LEAST)) == ("<= 2", ">= 0.9")


def test_figures_are_checked_by_precision_the_gravest_first() -> None:
    limits = Limits((MOST, LEAST, Limit("fp16", "flips", 0.0, "so")))
    figures = {"largest_steps": 3.0, "agreement": 0.95, "flips": 1.0}
    assert limits.check(figures, "fp32") == [
        LimitCheck(LEAST, 0.95, True),
        LimitCheck(MOST, 3.0, False),
    ]
    assert [check.limit.figure for check in limits.check(figures, "fp16")] == ["flips"]
    assert limits.check(figures, "int8") == []


def test_missing_and_undefined_figures_are_left_out() -> None:
    limits = Limits((MOST, LEAST))
    assert limits.check({"largest_steps": math.nan}, "fp32") == []
    assert limits.check({"largest_steps": 0.0}, "fp32") == [LimitCheck(MOST, 0.0, True)]


def test_a_limit_of_the_backend_replaces_the_common_one() -> None:
    own = dataclasses.replace(MOST, value=9.0, backend="openvino")
    for order in ((MOST, own), (own, MOST)):
        limits = Limits(order)
        figures = {"largest_steps": 5.0}
        assert limits.check(figures, "fp32", "openvino") == [LimitCheck(own, 5.0, True)]
        assert limits.check(figures, "fp32", "onnxruntime") == [LimitCheck(MOST, 5.0, False)]
        assert limits.check(figures, "fp32") == [LimitCheck(MOST, 5.0, False)]


def test_one_broken_limit_is_red() -> None:
    holds, broken = LimitCheck(MOST, 0.0, True), LimitCheck(LEAST, 0.0, False)
    assert outcome_of([]) == "no limits"
    assert outcome_of([holds]) == "green"
    assert outcome_of([holds, broken]) == "red"


def test_lost_defects_are_the_gravest_figure() -> None:
    assert list(FIGURES)[:2] == ["flips_defective", "new_alarms"]
