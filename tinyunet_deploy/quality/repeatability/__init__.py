"""Repeatability: whether a part gets the same verdict each time it is photographed."""
