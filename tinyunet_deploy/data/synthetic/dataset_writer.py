"""Write a synthetic data set in the layout of DAGM2007."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np

from tinyunet_deploy.data.encoding import write_png
from tinyunet_deploy.data.synthetic.noise import seed_sequence
from tinyunet_deploy.data.synthetic.samples import CLASSES, check_arguments, sample
from tinyunet_deploy.files import write_atomic
from tinyunet_deploy.host import processor_count

__all__ = ["write_dataset"]

_MOST_THREADS: Final = 8
"""Largest number of threads: with more, writing files is the limit."""


def write_dataset(
    root: Path,
    *,
    classes: Sequence[int] = CLASSES,
    train: int = 80,
    test: int = 40,
    defective: float = 0.25,
    size: int = 512,
    seed: int = 0,
    progress: Callable[[int], None] | None = None,
) -> int:
    """Write ``ClassK/{Train,Test}`` in the layout of the release, with exact ``Truth/`` masks.

    ``Labels.txt`` comes last, so a folder that has one is complete.

    Args:
        root: folder of the data set; made if missing.
        classes: 1 to 10.
        train: images in each Train folder, numbered from 1.
        test: images in each Test folder, numbered from ``train + 1``.
        defective: share of defective images, rounded to whole images in each folder.
        size: height and width in pixels, a multiple of 16 and at least 64.
        seed: another seed gives other images; not negative.
        progress: called with 1 after each image.

    Returns:
        Number of images written.

    Raises:
        ValueError: an argument is out of its range.
    """
    check_arguments(classes, size, seed)
    if train < 0 or test < 0:
        raise ValueError(f"the counts must not be negative: train={train}, test={test}")
    if not 0 <= defective <= 1:
        raise ValueError(f"the defective share must lie in [0, 1], not {defective}")

    jobs, tables = [], {}
    for class_id in dict.fromkeys(classes):
        for split, first, count in (("Train", 1, train), ("Test", train + 1, test)):
            folder = Path(root) / f"Class{class_id}" / split
            for name in ("Label", "Truth"):
                (folder / name).mkdir(parents=True, exist_ok=True)
            rng = np.random.default_rng(seed_sequence(seed, class_id, first, count))
            chosen = set((first + rng.permutation(count)[: round(defective * count)]).tolist())
            images = [
                _ImageJob(folder, class_id, index, index in chosen, seed, size)
                for index in range(first, first + count)
            ]
            jobs += images
            rows = "".join(image.table_row() for image in images)
            tables[folder / "Label" / "Labels.txt"] = f"1\n{rows}".encode()
    with ThreadPoolExecutor(min(_MOST_THREADS, processor_count())) as pool:
        for _ in pool.map(_ImageJob.write, jobs):
            if progress is not None:
                progress(1)
    for path, table in tables.items():
        write_atomic(path, table)
    return len(jobs)


@dataclass(frozen=True)
class _ImageJob:
    """One image to write, with its label and its exact mask."""

    folder: Path
    class_id: int
    index: int
    defective: bool
    seed: int
    size: int

    def table_row(self) -> str:
        """Return the image's row in ``Labels.txt``."""
        label = f"{self.index:04}_label.PNG" if self.defective else "0\t"
        return f"{self.index:04}\t{int(self.defective)}\t{self.index:04}.PNG\t0\t{label}\n"

    def write(self) -> None:
        """Make the image and write its files."""
        image, label, truth, _ = sample(
            self.class_id, self.index, defective=self.defective, seed=self.seed, size=self.size
        )
        write_png(self.folder / f"{self.index:04}.PNG", image)
        if label is not None and truth is not None:
            write_png(self.folder / "Label" / f"{self.index:04}_label.PNG", label)
            write_png(self.folder / "Truth" / f"{self.index:04}_truth.PNG", truth)
