"""An in-process Kubernetes API and sample backends, for the demo and for fast tests."""

from dynamic_toolset.sandbox.backends import Backend
from dynamic_toolset.sandbox.server import Sandbox

__all__ = ["Backend", "Sandbox"]
