"""BrainUNet for glioma segmentation: reading cases, training, scoring and model files, without a network server."""

from importlib.metadata import version

__version__ = version("brainunet-fl")
