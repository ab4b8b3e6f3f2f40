"""The settings while the service runs: where they come from, which are in force, and what is said of that.

``sources`` and ``toolset_configs`` follow what they are made from; ``configuration`` decides, and puts a controller
with the new ones in the place of the one before; ``resource_status`` tells the ToolsetConfig what became of it.
"""
