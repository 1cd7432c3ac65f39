"""The process in which :func:`tinyunet_deploy.backends.sandbox.try_graph` tries a graph."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np

from tinyunet_deploy import systems
from tinyunet_deploy.backends.foreign_graph import ForeignGraph
from tinyunet_deploy.errors import ArtifactError, RuntimeUnavailable, TinyUNetError


def main(memory_mib: str, seconds: str, output: str, type_name: str, *shape: str) -> int:
    """Run the graph on stdin on zeros and on noise; print the shape of its output as JSON.

    Args:
        output: name of the output that is read.
        type_name: numpy type of the input.
        shape: of the input.

    Returns:
        Exit code 0 if it ran, 4 if it is refused, 5 if this system cannot limit the process, so
        that nothing was tried.
    """
    try:
        systems.limit_this_process(memory_bytes=int(memory_mib) << 20, processor_s=4 * int(seconds))
    except RuntimeUnavailable as error:
        print(error)
        return RuntimeUnavailable.exit_code
    data = sys.stdin.buffer.read()
    try:
        graph = ForeignGraph(data, Path("model.onnx"), output)
        zeros = np.zeros(tuple(map(int, shape)), type_name)
        values = graph.run(zeros)
        graph.run(np.random.default_rng(0).integers(0, 2, zeros.shape).astype(type_name))
    except TinyUNetError as error:
        print(error)
        return ArtifactError.exit_code
    print(json.dumps(values.shape))
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
