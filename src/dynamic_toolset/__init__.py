"""Dynamic Toolset: keeps the toolset of an AI agent in step with the observability services of a cluster."""

__version__ = "0.1.0"
