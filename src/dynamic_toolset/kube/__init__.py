"""Everything that speaks Kubernetes, and nothing that knows about toolsets."""
