"""Train runs one after another in the processes that torchrun started: they import torch once.

``torchrun two_ranks.py DATA RECIPE OUTPUT [RECIPE OUTPUT ...]``
"""

from __future__ import annotations

import sys
from pathlib import Path

from training.commands import end_process
from training.distributed import join_ranks
from training.loop import train
from training.machine import Machine
from training.recipe import read_recipe
from training.sources import read_source

if __name__ == "__main__":
    data, *words = sys.argv[1:]
    with join_ranks() as ranks:
        for path, output in zip(words[::2], words[1::2], strict=True):
            recipe = read_recipe(path)
            source = read_source(Path(data), None, recipe)
            train(recipe, [source], Path(output), machine=Machine(), ranks=ranks)
    end_process(0)
