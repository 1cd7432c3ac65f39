"""Tables of what pays on a CPU: precisions, forms of the up-step, streams."""

from __future__ import annotations

from typing import Any

from benchmarks.page_tables.stored import Rows, read_result

__all__ = ["model_speeds", "network_widths", "rounding", "speedups", "streams", "up_step"]


def speedups() -> Rows:
    """Return the speed of the exported files against fp32, by runtime."""
    rows = [["file", "runtime", "times as fast as fp32", "noise"]]
    for file in read_result("speedups.json")["files"]:
        for one in file["runtimes"]:
            figure = f"{one['speedup']:.2f} ({one['low']:.2f} to {one['high']:.2f})"
            rows.append([f"`{file['model']}`", one["backend"], figure, f"{one['floor']:.2f}"])
    return rows


def up_step() -> Rows:
    """Return the time of other forms of the up-steps, relative to the exported form."""
    head = ["precision", "runtime", "form", "time against the exported form", "largest step"]
    return [
        head,
        *(
            [row["precision"], row["backend"], row["form"], "refused", row["refused"]]
            if "refused" in row
            else [
                row["precision"],
                row["backend"],
                row["form"],
                _interval(row["time_ratio"]),
                str(row["largest_steps"]),
            ]
            for row in read_result("up-step.json")["rows"]
            if row["form"] != "as exported"
        ),
    ]


def streams() -> Rows:
    """Return the time of other choices of streams, relative to the backends' own choice."""
    head = ["file", "runtime", "use", "choice", "time against the backend's choice"]
    return [
        head,
        *(
            [
                f"`{row['model']}`",
                row["backend"],
                row["use"],
                row["choice"],
                _interval(row["time_ratio"]),
            ]
            for row in read_result("streams.json")["rows"]
            if row["choice"] != "as chosen"
        ),
    ]


def model_speeds() -> Rows:
    """Return the time of one image with each model, relative to the first."""
    rows = [["file", "backend", "ms", "times as fast"]]
    for row in read_result("xeon-busy/model-speeds.json")["rows"]:
        figures = [f"{row['median_ms']:.1f}", _interval(row["times_as_fast"])]
        rows.append([f"`{row['model']}`", row["backend"], *figures])
    return rows


def _interval(ratio: dict[str, Any]) -> str:
    return f"{ratio['value']:.2f} ({ratio['low']:.2f} to {ratio['high']:.2f})"


def network_widths() -> Rows:
    """Return what networks of other widths would cost in int8, before any training."""
    rows = [
        ["network", "GMAC", "parameters", "reach, px", "size multiple", "times as fast as `tiny`"]
    ]
    for row in read_result("network_widths.json")["networks"]:
        name = row["network"]
        before, after = row["reach_px"]
        rows.append(
            [
                f"`{name}`" if name in ("tiny", "slim") else name,
                f"{row['gmac']:.2f}",
                f"{row['parameters']:,}",
                f"{before} and {after}",
                str(row["size_multiple"]),
                f"{row['times_as_fast_as_tiny']:.1f}",
            ]
        )
    return rows


def rounding() -> Rows:
    """Return what half precision changes on own and on synthetic images."""
    names = {"own": "its own test images", "synthetic": "synthetic, of the DAGM 2007 kind"}
    rows = [
        ["images", "number", "pixels between 5 and 250", "defect pixels", "changed", "agreement",
         "verdicts changed"],
    ]  # fmt: skip
    for name, row in read_result("rounding.json")["images"].items():
        rows.append(
            [
                names[name],
                f"{row['images']}",
                f"{row['graded_px'] / row['pixels']:.1%}",
                f"{row['union_px']}",
                f"{row['flipped_px']}",
                f"{row['agreement']:.5f}",
                f"{row['flips']}",
            ]
        )
    return rows
