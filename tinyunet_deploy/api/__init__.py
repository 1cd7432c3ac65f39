"""The library in Python: the verbs of the command line as functions, with their words and defaults.

``import tinyunet_deploy as td`` gives all of it: ``td.load``, ``td.inspect`` and so on. The
examples in the docstrings run in the tests, in a folder with ``photos/`` (a part with a defect, a
good one, and a file that was cut off) and ``data/`` (a labelled data set).
"""

from tinyunet_deploy.api.folders import inspect, watch
from tinyunet_deploy.api.measurements import evaluate, parity
from tinyunet_deploy.api.model import Model, load

__all__ = ["Model", "evaluate", "inspect", "load", "parity", "watch"]
