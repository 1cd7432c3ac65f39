"""Keep the runtimes from reporting their usage over the network and in the user's home.

Importing this package calls :func:`switch_off`, so it comes before every runtime that the package,
the trainer or the exporter imports. The settings hold for this process and for those it starts;
nothing is written to opt out, and no setting of the user is overridden.
"""

from __future__ import annotations

import os
import sys
from typing import Final

__all__ = ["SETTINGS", "switch_off"]

SETTINGS: Final = {
    # onnxruntime 1.31 and later: a device id and an event store below $XDG_CACHE_HOME, uploads.
    # disable_telemetry_events() comes too late: the import has made both by then.
    "ORT_DISABLE_TELEMETRY": "1",
    # Ray reports the cluster that it starts; the cluster that --ray names was started by others.
    "RAY_USAGE_STATS_ENABLED": "0",
}
"""Environment variable -> value that switches usage reports off."""


def switch_off() -> None:
    """Switch off the usage reports of the runtimes that are not imported yet.

    ``import openvino`` counts its use in ``~/intel`` and sends an event to a web address from a
    forked process. It does neither if its package ``openvino_telemetry`` cannot be imported: it
    then uses a built-in replacement.
    """
    for name, value in SETTINGS.items():
        os.environ.setdefault(name, value)
    sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]
