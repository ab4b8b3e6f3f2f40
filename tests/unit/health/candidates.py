"""Candidates for the tests of this folder."""

from dynamic_toolset.model import Candidate, Endpoint, HealthCheck, HttpBinding, Identity, Scheme, ServiceKey

BUILDINFO = Identity(path="/api/v1/status/buildinfo", json={"/status": "success", "/data/revision": ".*"})
PROMETHEUS = HealthCheck(path="/-/healthy", identity=(BUILDINFO,))


def candidate(
    name: str = "prometheus",
    *,
    check: HealthCheck = PROMETHEUS,
    scheme: Scheme = "http",
    host: str = "prometheus.monitoring.svc.cluster.local",
    port: int = 9090,
    path: str = "",
    address: str | None = None,
    title: str = "Prometheus",
) -> Candidate:
    return Candidate(
        key=ServiceKey("monitoring", name),
        type="prometheus",
        name=name,
        endpoint=Endpoint(scheme, host, port, path, address),
        check=check,
        agent=HttpBinding(instructions="Ask it."),
        title=title,
        description="Metrics.",
    )
