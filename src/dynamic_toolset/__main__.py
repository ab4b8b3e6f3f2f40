"""``python -m dynamic_toolset``."""

from dynamic_toolset.cli import main

main()
