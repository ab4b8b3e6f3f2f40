"""Scheme, host, port and path of a Service's URL."""

import msgspec
import pytest

from dynamic_toolset.settings import Settings

from .building import detect, headless, ports, service

CUSTOM = {"-type": "custom"}


def url(listens, **spec):
    return detect(service("api", "", listens, annotations=CUSTOM, **spec)).endpoint


@pytest.mark.parametrize(
    ("listens", "scheme"),
    [
        ("8080", "http"),
        ("http:8080", "http"),
        ("https:8080", "https"),
        ("https-web:8080", "https"),
        ("web-https:8080", "https"),
        ("tls:8080", "https"),
        ("management-tls:8080", "https"),
        ("oauth-proxy:8080", "https"),
        ("tlsless:8080", "http"),
        ("443", "https"),
        ("8443", "https"),
        ("15671", "https"),
        ("80>8443", "https"),
        ("http:443", "https"),
        ("web:8080/https", "https"),
        ("web:8080/HTTPS", "https"),
        ("https:8080/http", "http"),
        ("443/kubernetes.io/h2c", "http"),
        ("443/kubernetes.io/ws", "http"),
        ("8080/kubernetes.io/wss", "https"),
        ("https:8080/tcp", "https"),
    ],
)
def test_scheme(listens, scheme):
    assert url(listens).startswith(f"{scheme}://")


@pytest.mark.parametrize(
    ("listens", "scheme"),
    [
        ("api:8080 grpc:9095", "https"),
        ("http:8080 grpc:9095", "http"),
        ("http-web:8080", "https"),  # it must be for a port, and there is no other
        ("http:8080", "https"),
        ("api:8080 https:9091", "http"),  # it is for the proxy
    ],
)
def test_a_serving_certificate_of_openshift_means_https(listens, scheme):
    one = service("api", "", listens, annotations=CUSTOM)
    more = {**one.metadata.annotations, "service.beta.openshift.io/serving-cert-secret-name": "tls"}
    one = msgspec.structs.replace(one, metadata=msgspec.structs.replace(one.metadata, annotations=more))
    assert detect(one).endpoint.startswith(f"{scheme}://")


def test_an_annotated_scheme_beats_all_others():
    one = service("api", "", "https:443/https", annotations={**CUSTOM, "-scheme": "http"})
    assert detect(one).endpoint == "http://api.shop.svc.cluster.local:443"


@pytest.mark.parametrize(
    ("listens", "port"),
    [("80>8080", 8080), ("80>web", 80), ("80>99999", 80), ("9090", 9090)],
)
def test_headless_leads_to_the_pods(listens, port):
    assert (
        detect(headless("api", "", listens, annotations=CUSTOM)).endpoint == f"http://api.shop.svc.cluster.local:{port}"
    )
    assert url(listens) == f"http://api.shop.svc.cluster.local:{ports(listens)[0].port}"


@pytest.mark.parametrize("listens", ["http:80>3000 ui:3000", "ui:3000 http:80>3000"])
def test_of_two_ports_to_one_target_the_one_with_the_number_of_the_product_counts(listens):
    assert detect(service("grafana", "app=grafana", listens)).endpoint.endswith(":3000")


def test_the_cluster_domain_is_a_setting():
    one = service("api", annotations=CUSTOM)
    assert detect(one, Settings(cluster_domain="k8s.example")).endpoint == "http://api.shop.svc.k8s.example:80"
    own = service("api", annotations={**CUSTOM, "-endpoint": "http://api.shop.svc.k8s.example:80"})
    assert detect(own, Settings(cluster_domain="k8s.example")).candidate
    assert detect(own).candidate is None


@pytest.mark.parametrize(
    ("address", "host", "dialled"),
    [
        ("10.96.0.7", "10.96.0.7", "10.96.0.7"),
        ("fd00::7", "[fd00::7]", "fd00::7"),
        ("FD00:0::7", "[fd00::7]", "fd00::7"),
        ("None", "api.shop.svc.cluster.local", None),
        ("", "api.shop.svc.cluster.local", None),
        (None, "api.shop.svc.cluster.local", None),
        ("fe80::1%eth0", "api.shop.svc.cluster.local", None),
        ("evil.example.com", "api.shop.svc.cluster.local", None),
    ],
)
def test_the_host_can_be_the_cluster_ip(address, host, dialled):
    one = service("api", annotations=CUSTOM, cluster_ip=address)
    decision = detect(one, Settings(endpoint_host="clusterIP"))
    assert decision.endpoint == f"http://{host}:80"
    assert decision.candidate.endpoint.address == dialled
    assert detect(one).endpoint == "http://api.shop.svc.cluster.local:80"


def test_impossible_ports_do_not_count():
    assert url("0 65536 -5:8080") == "http://api.shop.svc.cluster.local:8080"
