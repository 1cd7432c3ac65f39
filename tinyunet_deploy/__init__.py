"""Takes a trained defect-segmentation network to the production line.

>>> import tinyunet_deploy as td
>>> model = td.load()  # the package's model; td.load("engines/class1.onnx") for another
>>> for part in td.inspect("photos", model):  # also each part that cannot be used, never silent
...     print(part.name, part.verdict, len(part.defects))
0.png NG 1
1.png OK 0
2.png None 0
>>> images = [td.read_image(path) for path in ("photos/0.png", "photos/1.png")]
>>> scores = model(images)  # uint8 [N, H, W]: defect probability x 255
>>> [len(defects) for defects in model.defects(scores)]  # each with bbox, area_px, max_score
[1, 0]

Everything behind these names is imported when it is first used. The import itself switches off the
usage reports of the runtimes that are imported later (:mod:`tinyunet_deploy.telemetry`).
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from tinyunet_deploy import telemetry

if TYPE_CHECKING:
    from tinyunet_deploy.api import Model, evaluate, inspect, load, parity, watch
    from tinyunet_deploy.data.decoding import read_image
    from tinyunet_deploy.errors import TinyUNetError
    from tinyunet_deploy.inspection.defects import Defect
    from tinyunet_deploy.inspection.inspected_part import InspectedPart
    from tinyunet_deploy.inspection.report_line import ReportLine
    from tinyunet_deploy.quality.evaluation import Evaluation
    from tinyunet_deploy.quality.parity import Parity

__all__ = [
    "Defect",
    "Evaluation",
    "InspectedPart",
    "Model",
    "Parity",
    "ReportLine",
    "TinyUNetError",
    "__version__",
    "evaluate",
    "inspect",
    "load",
    "parity",
    "read_image",
    "watch",
]
__version__ = "0.1.0"

telemetry.switch_off()

_WHERE = {
    "Defect": "inspection.defects",
    "Evaluation": "quality.evaluation",
    "InspectedPart": "inspection.inspected_part",
    "Model": "api.model",
    "Parity": "quality.parity",
    "ReportLine": "inspection.report_line",
    "TinyUNetError": "errors",
    "evaluate": "api.measurements",
    "inspect": "api.folders",
    "load": "api.model",
    "parity": "api.measurements",
    "read_image": "data.decoding",
    "watch": "api.folders",
}


def __getattr__(name: str) -> Any:
    if name not in _WHERE:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_WHERE[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
