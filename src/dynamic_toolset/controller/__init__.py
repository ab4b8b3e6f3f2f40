"""Ties the stages together."""

from dynamic_toolset.controller.controller import Controller

__all__ = ["Controller"]
