"""Ten classes of synthetic textures with small defects, in the layout of DAGM2007."""

from tinyunet_deploy.data.synthetic.dataset_writer import write_dataset
from tinyunet_deploy.data.synthetic.samples import CLASSES, Sample, sample, weak_label

__all__ = ["CLASSES", "Sample", "sample", "weak_label", "write_dataset"]
