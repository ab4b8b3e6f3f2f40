"""From candidates to healthy services."""
