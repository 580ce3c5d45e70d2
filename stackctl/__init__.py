"""Build GPU training images, run one job on processes, Compose or Kubernetes, and learn why it failed."""

__version__ = "0.1.0"
