"""Takes a trained defect-segmentation network to the production line."""

__version__ = "0.1.0"
