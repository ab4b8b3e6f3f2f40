"""From documents to the cluster."""
