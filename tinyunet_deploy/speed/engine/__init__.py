"""Engine report: what every layer of a TensorRT plan does, how long it takes, and what limits it.

* :mod:`layer_info` and :mod:`layer_profile`: the JSON of TensorRT's inspector and profiler, as
  TensorRT 10 and 11 and trtexec write it; :mod:`trtexec_times`: times that trtexec exported
* :mod:`network_names`: names and operations of the ONNX file's layers
* :mod:`report`: the report as dataclasses; :mod:`report_file`: its JSON
* :mod:`findings`: sentences that follow from the numbers; :mod:`comparison`: two plans side by side
* :mod:`page`: HTML and Markdown
* :mod:`measurement`: measures a plan
"""
