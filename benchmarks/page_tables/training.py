"""Tables of training: throughput, recipes, precision."""

from __future__ import annotations

from benchmarks.page_tables.stored import Rows, read_result
from tinyunet_deploy.artifacts.architectures import NETWORKS

__all__ = ["mixed_precision", "quick_recipe", "recipes", "training_gpu", "training_throughput"]


def training_throughput() -> Rows:
    """Return the trainer's images per second against a plain PyTorch loop."""
    result = read_result("training_throughput.json")
    labels = {
        "plain": "plain PyTorch loop with a DataLoader",
        "ours_fp32": "`python -m training crops`, float32",
        "ours_bf16": "the same with `--amp`, bf16",
    }
    return [
        ["two processors of an EPYC", "images/s", "times as fast"],
        *(
            [
                label,
                f"{result['median_images_per_s'][key]:.1f}",
                f"{result['ratio_to_plain'][key]:.1f}",
            ]
            for key, label in labels.items()
        ),
    ]


def training_gpu() -> Rows:
    """Return the reference recipe at full size on a GPU."""
    speed = read_result("h200/training_speed.json")
    published = speed["published_images_per_s"]["A100"]
    rows = [
        ["`reference`, 2500 steps, one H200", "images/s", "share of a batch that stays on the GPU",
         "time to train", "iou_defective, Class1", "escapes", "overkills",
         "published A100, images/s"],
    ]  # fmt: skip
    for result in speed["results"]:
        precision = result["precision"]
        rows.append(
            [
                {"float32": "float32 (TF32 convolutions)", "amp": "`--amp`, fp16"}[precision],
                f"{result['images_per_s']:.0f}",
                f"{result['share_of_resident']:.1%}",
                f"{result['seconds_to_train']:.0f} s",
                f"{result['figures']['iou_defective']:.3f}",
                f"{result['escapes']} / {result['defective']}",
                f"{result['overkills']} / {result['defect_free']}",
                str(published[precision]),
            ]
        )
    return rows


def quick_recipe() -> Rows:
    """Return what forms of the recipe ``quick`` reached on a public set's validation images."""
    result = read_result("quick-recipe.json")
    defective, good = result["validation"]["defective"], result["validation"]["good"]
    rows = [
        ["network", "batch normalisation", "turned by", "step", "iou_defective", "escapes",
         "overkills", "processor time of the run"],
    ]  # fmt: skip
    for recipe in result["recipes"]:
        turns = ", ".join(map(str, recipe["rotations"]))
        rows += [
            [
                f"`{recipe['network']}`" if recipe["network"] in NETWORKS else recipe["network"],
                "yes" if recipe["batch_norm"] else "no",
                f"{turns} degrees",
                f"{reached['step']} of {recipe['steps']}",
                f"{reached['iou_defective']:.3f}",
                f"{reached['escapes']} / {defective}",
                f"{reached['overkills']} / {good}",
                f"{recipe['processor_s']} s",
            ]
            for reached in recipe["validations"]
        ]
    return rows


def _spread(figures: dict[str, float]) -> str:
    return f"{figures['mean']:.3f} ({figures['min']:.3f} to {figures['max']:.3f})"


def recipes() -> Rows:
    """Return the figures of four recipes, with their spread over seeds."""
    training = read_result("training.json")
    data = list(dict.fromkeys(row["data"] for row in training["summary"]))
    cells = {
        (row["recipe"], row["data"]): _spread(row["iou_defective"]) for row in training["summary"]
    }
    rows = [["recipe", *("real Class1" if "dagm" in d else f"synthetic {d[-1]}" for d in data)]]
    rows[0] += ["escapes", "overkills"]
    for recipe in ("reference", "robust", "crops", "readme"):
        runs = [run for run in training["results"] if run["recipe"] == recipe]
        totals = {
            key: sum(run[key] for run in runs)
            for key in ("escapes", "defective", "overkills", "defect_free")
        }
        rows.append(
            [
                f"`{recipe}`",
                *(cells[recipe, name] for name in data),
                f"{totals['escapes']} / {totals['defective']}",
                f"{totals['overkills']} / {totals['defect_free']}",
            ]
        )
    return rows


def mixed_precision() -> Rows:
    """Return the figures of one recipe in bf16 and in float32."""
    rows = [["`robust`, real Class1, three seeds", "iou_defective"]]
    for name, label in (("training.json", "bf16"), ("training-float32.json", "float32")):
        summary = next(
            row
            for row in read_result(name)["summary"]
            if (row["recipe"], row["data"]) == ("robust", "dagm2007/Class1")
        )
        rows.append([label, _spread(summary["iou_defective"])])
    return rows
