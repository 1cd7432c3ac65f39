"""Test whether a model keeps up with a belt: simulation, live run, verification."""
