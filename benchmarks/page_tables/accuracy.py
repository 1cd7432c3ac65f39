"""Tables of accuracy: evaluation, tuning, parity."""

from __future__ import annotations

from typing import Any, Final

import numpy as np

from benchmarks.page_tables.stored import Rows, read_result
from tinyunet_deploy.quality.confidence import clopper_pearson_upper

__all__ = [
    "acceptance",
    "accuracy",
    "accuracy_classes",
    "accuracy_classes_slim",
    "accuracy_slim",
    "blocks",
    "foreign_networks",
    "learned_by_heart",
    "parity",
    "plateau",
    "public_sets",
    "public_types",
    "score_quality",
    "temperature",
    "tuned",
]

_RESAMPLES: Final = 10_000
"""Number of bootstrap samples of an interval."""
_SCORED: Final = {
    "real, 40 of Class1 Test": {"tiny": "class1-test-openvino", "slim": "class1-test-slim"},
    "synthetic, ten classes": {"tiny": "synthetic-test", "slim": "synthetic-test-slim"},
}
"""Images -> network -> name of its stored evaluation."""
_TRIED: Final = {
    "blocks of 4x4": "blocks-of-4",
    "the same, trained on, blends with contrast": "blocks-of-4-contrast",
    "the same, warped instead": "blocks-of-4-warped",
    "the same, without `slim-crops`": "blocks-of-4-images",
}
"""Label of a network that is not shipped -> end of the names of its evaluations."""


def _bootstrap(evaluation: dict[str, Any]) -> tuple[float, float]:
    """Return the 95 % interval of iou_defective, the mean over classes, by resampling images."""
    threshold = str(evaluation["threshold"])
    by_class: dict[int, list[float]] = {}
    for image in evaluation["per_image"]:
        if image["defective"]:
            inside = image["intersection_px"][threshold]
            union = image["predicted_px"][threshold] + image["truth_px"] - inside
            by_class.setdefault(image["class"], []).append(inside / union if union else 0.0)
    random = np.random.default_rng(0)
    means = [
        np.asarray(values)[random.integers(0, len(values), (_RESAMPLES, len(values)))].mean(axis=1)
        for values in by_class.values()
    ]
    low, high = np.quantile(np.mean(means, axis=0), (0.025, 0.975))
    return float(low), float(high)


def _counted(events: int, trials: int) -> str:
    return f"{events} / {trials}, at most {clopper_pearson_upper(events, trials):.1%}"


def accuracy() -> Rows:
    """Return IoU, escapes, overkills and AUROC on real and on synthetic images."""
    return _accuracy_of("class1-test-openvino.json", "synthetic-test.json")


def accuracy_slim() -> Rows:
    """Return the same of the model ``slim``."""
    return _accuracy_of("class1-test-slim.json", "synthetic-test-slim.json")


def learned_by_heart() -> Rows:
    """Return the figures of models on images that trained them and on others."""
    rows = [
        ["model", "Class1, trained on", "Class1, others", "synthetic", "mistakes on the others"]
    ]
    for label, name in {"`tiny`": "tiny", "`slim`": "slim", **_TRIED}.items():
        evaluations = [read_result(f"tried/class1-train-{name}.json"), *_tested(name)]
        ious = [f"{evaluation['mean']['iou_defective']:.3f}" for evaluation in evaluations]
        escapes, overkills = (
            " and ".join(str(evaluation["all"][kind]) for evaluation in evaluations[1:])
            for kind in ("escapes", "overkills")
        )
        rows.append([label, *ious, f"{escapes} escapes, {overkills} overkills"])
    return rows


def blocks() -> Rows:
    """Return the figures of networks on blocks of pixels, beside those of their teacher."""
    rows = [["network", "Class1 Test", "synthetic", "escapes", "overkills"]]
    for label, name in (
        ("`tiny`", "tiny"),
        ("blocks of 4x4", "blocks-of-4"),
        ("blocks of 2x2, one run", "blocks-of-2-one-run"),
        ("`slim`, the mean of four", "slim"),
    ):
        evaluations = _tested(name)
        cells = [_iou_defective(evaluation) for evaluation in evaluations]
        counts = [
            f"{sum(evaluation['all'][kind] for evaluation in evaluations)} of "
            f"{sum(_trials(evaluation['all'], kind) for evaluation in evaluations)}"
            for kind in ("escapes", "overkills")
        ]
        rows.append([label, *cells, *counts])
    return rows


def _tested(name: str) -> list[dict[str, Any]]:
    """Return the evaluations of a network on real and on synthetic test images.

    Args:
        name: a network of the package, or the end of the names of evaluations that are kept as
            tried.
    """
    files = [names[name] for names in _SCORED.values() if name in names]
    files = files or [f"tried/class1-test-{name}", f"tried/synthetic-test-{name}"]
    return [read_result(f"{file}.json") for file in files]


def _iou_defective(evaluation: dict[str, Any]) -> str:
    """Return the mean over classes with its interval."""
    low, high = _bootstrap(evaluation)
    return f"{evaluation['mean']['iou_defective']:.3f} ({low:.3f} to {high:.3f})"


def _trials(counts: dict[str, Any], kind: str) -> int:
    """Return the number of parts in which an escape or an overkill could happen."""
    defective: int = counts["defective"]
    return defective if kind == "escapes" else counts["images"] - defective


def _accuracy_of(real: str, synthetic: str) -> Rows:
    rows = [["images", "n", "iou_defective (95 %)", "escapes", "overkills", "AUROC"]]
    for name, label in (
        (real, "real, 40 of Class1 Test"),
        (synthetic, "synthetic, mean of ten classes"),
    ):
        evaluation = read_result(name)
        whole = evaluation["all"]
        rows.append(
            [
                label,
                str(whole["images"]),
                _iou_defective(evaluation),
                *(_counted(whole[kind], _trials(whole, kind)) for kind in ("escapes", "overkills")),
                f"{evaluation['mean']['auroc']:.3f}",
            ]
        )
    return rows


def accuracy_classes() -> Rows:
    """Return the figures of each synthetic class, and those of the best guess of a label."""
    return _classes_of("synthetic-test.json")


def accuracy_classes_slim() -> Rows:
    """Return the same of the model ``slim``."""
    return _classes_of("synthetic-test-slim.json")


def _classes_of(synthetic: str) -> Rows:
    best = read_result("labels.json")["classes"]
    rows = [
        ["synthetic class", "iou_defective", "iou_global", "Dice", "Dice of nothing", "escapes",
         "overkills", "best guess"],
    ]  # fmt: skip
    for name, figures in read_result(synthetic)["classes"].items():
        good = figures["images"] - figures["defective"]
        rows.append(
            [
                name,
                *(f"{figures[key]:.3f}" for key in ("iou_defective", "iou_global")),
                *(f"{figures[key]:.3f}" for key in ("dice", "dice_nothing")),
                f"{figures['escapes']} / {figures['defective']}",
                f"{figures['overkills']} / {good}",
                f"{best[name]:.3f}",
            ]
        )
    return rows


def tuned() -> Rows:
    """Return the pair that tuning chose on Class1, and its results on Train and Test."""
    rows = [["Class1", "threshold", "min_area, px", "escapes", "overkills"]]
    tune = read_result("tune-class1.json")
    for label, choice in (("Train, chosen", tune["chosen"]), ("Train, before", tune["before"])):
        rows.append(
            [
                label,
                f"{choice['threshold']:g}",
                str(choice["min_area"]),
                _counted(choice["escapes"], tune["defective"]),
                _counted(choice["overkills"], tune["good"]),
            ]
        )
    for label, name in (
        ("Test, chosen", "tuned-class1-test.json"),
        ("Test, before", "class1-test-openvino.json"),
    ):
        evaluation = read_result(name)
        whole = evaluation["all"]
        rows.append(
            [
                label,
                f"{evaluation['threshold']:g}",
                str(evaluation["min_area_px"]),
                _counted(whole["escapes"], whole["defective"]),
                _counted(whole["overkills"], whole["images"] - whole["defective"]),
            ]
        )
    return rows


def parity() -> Rows:
    """Return the agreement of every artifact on every backend with its checkpoint."""
    rows = [
        ["model", "backend", "images", "largest step", "agreement", "flips, defective",
         "new alarms", "change of iou_defective", "gate"],
    ]  # fmt: skip
    for name in ("parity-class1.json", "parity-synthetic.json"):
        parity = read_result(name)
        rows += [
            [
                pair["precision"],
                pair["backend"],
                f"{parity['images']} of {parity['data']}",
                str(pair["largest_steps"]),
                f"{pair['agreement']:.4f}",
                str(pair["flips_defective"]),
                str(pair["new_alarms"]),
                f"{-pair['iou_drop']:+.4f}",
                pair["outcome"],
            ]
            for pair in parity["comparisons"]
            if pair["outcome"] != "skipped"
        ]
    return rows


def plateau() -> Rows:
    """Return the plateau of every artifact on every backend."""
    rows = [
        ["model", "backend", "images", "defective", "thresholds without another verdict",
         "width kept", "to the nearest edge", "min_area without another verdict, px"],
    ]  # fmt: skip
    for pair in read_result("plateau.json")["plateaus"]:
        flat = pair["plateau"]
        images = f"{flat['images']} of {pair['data']}"
        row = [pair["precision"], pair["backend"], images, str(flat["defective"])]
        if flat["steps"] is None:
            rows.append([*row, "none: a verdict differs", "0%", "-", "none"])
            continue
        low, high = flat["steps"]
        margin, (smallest, largest) = flat["margin_steps"], flat["areas_px"]
        rows.append(
            [
                *row,
                f"{low / 255:.3f} to {high / 255:.3f}",
                f"{pair['plateau_kept']:.1%}",
                "-" if margin is None else f"{margin / 255:.3f}",
                f"{smallest} to {largest}",
            ]
        )
    return rows


def temperature() -> Rows:
    """Return what a temperature does to the scores of the package's model."""
    result = read_result("temperature.json")
    rows = [
        ["temperature", "threshold", "iou_defective", "escapes", "overkills",
         "parts between 5 and 250", "pixels between 5 and 250", "calibration error, pixels"],
    ]  # fmt: skip
    good = result["images"] - result["defective"]
    for kind in ("before", "after"):
        row = result[kind]
        rows.append(
            [
                f"{row['temperature']:.2f}",
                f"{row['threshold']:.3f}",
                f"{row['iou_defective']:.4f}",
                f"{row['escapes']} / {result['defective']}",
                f"{row['overkills']} / {good}",
                f"{row['graded_parts']} / {result['images']}",
                f"{row['graded_pixels']}",
                f"{row['expected_calibration_error_pixels']:.4f}",
            ]
        )
    return rows


def score_quality() -> Rows:
    """Return how graded and how well calibrated the scores of the package's models are."""
    rows = [
        ["images", "network", "parts between 5 and 250", "calibration error, parts",
         "calibration error, pixels"],
    ]  # fmt: skip
    for label, names in _SCORED.items():
        for network, name in names.items():
            result = read_result(f"{name}.json")
            quality, images = result["score_quality"], result["all"]["images"]
            rows.append(
                [
                    label,
                    f"`{network}`",
                    f"{quality['graded_parts']} / {images}",
                    f"{quality['parts']['expected_calibration_error']:.4f}",
                    f"{quality['pixels']['expected_calibration_error']:.4f}",
                ]
            )
    return rows


_PUBLIC: Final = {
    "public-steel": "NEU_Seg, hot-rolled steel, 200x200",
    "public-magnetic": "magnetic tiles, 103 to 632 pixels a side",
    "public-magnetic-tuned": "the same, after `tinyunet tune --cost 1:1`",
}
"""Name of the stored result -> public set and sizes of its images."""


def public_sets() -> Rows:
    """Return what the tutorial's commands reach on public sets of other products."""
    rows = [
        ["images", "trained on", "steps", "time", "tested on", "iou_defective (95 %)",
         "escapes", "overkills", "AUROC"],
    ]  # fmt: skip
    for name, label in _PUBLIC.items():
        evaluation, run = read_result(f"{name}.json"), read_result("public.json")[name]
        whole = evaluation["all"]
        low, high = _bootstrap(evaluation)
        good = whole["images"] - whole["defective"]
        rows.append(
            [
                label,
                f"{run['train_defective']} defective, {run['train_good']} good",
                str(run["steps"]),
                f"{run['wall_s'] / 60:.0f} min, {run['threads']} thread(s)",
                f"{whole['defective']} defective, {good} good",
                f"{whole['iou_defective']:.3f} ({low:.3f} to {high:.3f})",
                _counted(whole["escapes"], whole["defective"]),
                _counted(whole["overkills"], good) if good else "-",
                f"{whole['auroc']:.3f}" if good else "-",
            ]
        )
    return rows


def public_types() -> Rows:
    """Return found and all defects of each type, where a public set has types."""
    rows = [["images", "type", "defects", "hit", "recall, at least", "parts", "escapes"]]
    for name, label in _PUBLIC.items():
        rows += [
            [
                label,
                row["type"],
                str(row["defects"]),
                str(row["hit"]),
                f"{row['recall']:.3f}, {row['recall_lower_95']:.3f}",
                str(row["parts"]),
                _counted(row["escapes"], row["parts"]),
            ]
            for row in read_result(f"{name}.json")["defects"]["by_type"]
        ]
    return rows


def acceptance() -> Rows:
    """Return the verdict of each requirement in the acceptance tests of the documentation."""
    tests = read_result("acceptance.json")["acceptances"]
    rows = [["requirement", *(_accepted(test) for test in tests)]]
    for place, row in enumerate(tests[0]["requirements"]):
        outcomes = [test["requirements"][place]["outcome"] for test in tests]
        rows.append([row["title"], *outcomes])
    return [*rows, ["the page says", *(test["decision"]["word"] for test in tests)]]


def _accepted(test: dict[str, Any]) -> str:
    """Return the model of an acceptance test and the parts that it judged."""
    counts = test["detection"]
    return f"{test['model']['name']}: {counts['good']} good, {counts['defective']} defective parts"


def foreign_networks() -> Rows:
    """Return how trained networks of another project were adopted, and what they reach."""
    rows = [
        ["network", "exported by", "size", "batch", "difference on real images",
         "iou_defective fp32", "fp16", "int8"],
    ]  # fmt: skip
    for network in read_result("foreign-networks.json")["networks"]:
        reached = [
            f"{network['files'][precision]['iou_defective']:.3f}"
            if precision in network["files"]
            else ("refused" if precision in network["refused"] else "-")
            for precision in ("fp32", "fp16", "int8")
        ]
        rows.append(
            [
                network["name"],
                network["exporter"],
                f"{network['side']}x{network['side']}",
                network["batch"],
                f"{network['proof_steps']} of 255 at most",
                *reached,
            ]
        )
    return rows
