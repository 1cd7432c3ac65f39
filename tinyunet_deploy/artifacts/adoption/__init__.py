"""Adoption: what an ONNX graph of another origin takes and gives, and its wrapping by surgery.

``form`` describes the graph and the choices, ``surgery`` wraps it into the contract, ``hints``
names the commands that bring a file of another format here.
"""
