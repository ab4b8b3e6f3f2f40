"""What people, programs and the kubelet see of the running service: probes, API, page, metrics."""
