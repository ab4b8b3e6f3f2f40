"""From a Service to a URL: which port, which scheme, which host. Pure."""

import ipaddress
from collections.abc import Iterable
from urllib.parse import urlsplit

from dynamic_toolset.discovery.annotations import Url
from dynamic_toolset.discovery.catalog import port_pattern
from dynamic_toolset.discovery.policy import is_host, own_hosts
from dynamic_toolset.kube.objects import Service, ServicePort
from dynamic_toolset.model import Endpoint, Scheme
from dynamic_toolset.settings import Settings

# appProtocol: IANA service names, the kubernetes.io prefix (KEP-3726), and what operators write besides. A port whose
# protocol is none of these is not spoken to by HTTP.
_PROTOCOLS: dict[str, Scheme | None] = {
    "http": "http",
    "http2": "http",
    "h2c": "http",
    "kubernetes.io/h2c": "http",
    "kubernetes.io/ws": "http",
    "kgateway.dev/mcp": "http",
    "https": "https",
    "kubernetes.io/wss": "https",
    "tls": "https",
    "tcp": None,
}
_TLS_ANNOTATIONS = frozenset(
    {"service.beta.openshift.io/serving-cert-secret-name", "service.alpha.openshift.io/serving-cert-secret-name"}
)
"""OpenShift writes a certificate for the Service's name into the Secret that this names: its ports speak TLS
(docs.openshift.com, "Securing service traffic using service serving certificate secrets")."""

_TLS_PORTS = frozenset({443, 8443, 15671})
_API_NAMES = ("http", "web", "api", "http-web", "http-api", "https", "rest", "rest-api")


def web_ports(service: Service) -> tuple[ServicePort, ...]:
    """Return the ports that may speak HTTP: TCP, with a possible number, and no other protocol by appProtocol."""
    return tuple(
        port
        for port in service.spec.ports or ()
        if port.protocol in {None, "", "TCP"}
        and 0 < port.port < 65536
        and (not port.app_protocol or port.app_protocol.lower() in _PROTOCOLS)
    )


def matching_port(ports: tuple[ServicePort, ...], patterns: Iterable[int | str]) -> ServicePort | None:
    """Return the first port that fits the earliest pattern: a number, a name, or both.

    A target port counts too: it is the product's own, where the Service's may be anybody's (80). Of two ports to one
    target, that with the product's number is chosen, whatever their order.
    """
    for pattern in patterns:
        name, number = port_pattern(pattern)
        behind: ServicePort | None = None
        for port in ports:
            if (name is None or name in (port.name, port.target_port)) and (
                number is None or number in (port.port, target_number(port))
            ):
                if number is None or number == port.port:
                    return port
                behind = behind or port
        if behind is not None:
            return behind
    return None


def only_port(ports: tuple[ServicePort, ...]) -> ServicePort | None:
    """Return the port of an API that we know nothing about: the only one, or the one whose name says API."""
    if len(ports) == 1:
        return ports[0]
    return next((port for name in _API_NAMES for port in ports if port.name == name), None)


def named_port(service: Service, wanted: str) -> ServicePort | None:
    """Return the port that a person means by number or name; a headless Service is reached at the target port too."""
    for port in web_ports(service):
        numbers = (port.port, target_number(port)) if is_headless(service) else (port.port,)
        if wanted == port.name or (wanted.isdigit() and int(wanted) in numbers):
            return port
    return None


def outside_port(service: Service, wanted: str) -> ServicePort | None:
    """Return the port of another host that a person means by number, or by the name that the Service gives it."""
    for port in web_ports(service):
        if wanted in (port.name, str(port.port)):
            return port
    return ServicePort(int(wanted)) if wanted.isdigit() else None


def target_number(port: ServicePort) -> int | None:
    """Return the number of the port on the Pods; None where only the Pods know it, by name."""
    target = port.target_port
    if isinstance(target, str):
        target = int(target) if target.isascii() and target.isdigit() and len(target) <= 5 else None
    if target is None:
        return port.port if port.target_port in {None, ""} else None
    return target if 0 < target < 65536 else None


def is_headless(service: Service) -> bool:
    return service.spec.cluster_ip == "None"


def scheme_of(service: Service, port: ServicePort, default: Scheme) -> Scheme:
    """Return the scheme of a port: appProtocol, then its name, its number, OpenShift's certificate, the default.

    A name can only say https: charts that speak TLS on a port named ``http`` are common (Elasticsearch, OpenSearch).
    """
    if port.app_protocol:
        scheme = _PROTOCOLS.get(port.app_protocol.lower())
        if scheme:
            return scheme
    name = port.name or ""
    if (
        name in {"https", "tls", "oauth-proxy"}
        or name.startswith(("https-", "tls-"))
        or name.endswith(("-https", "-tls"))
    ):
        return "https"
    if port.port in _TLS_PORTS or port.target_port in _TLS_PORTS:
        return "https"
    if not _TLS_ANNOTATIONS.isdisjoint(service.metadata.annotations or ()):
        # Istio wants ports to be named http-*, whatever they speak, so the certificate is for the only port even then.
        # Where a port is called https, the certificate is that port's: a proxy in front of the product.
        others = [other.name for other in web_ports(service) if other is not port]
        plain = name == "http" or name.startswith("http-") or "https" in others
        if not plain or not others:
            return "https"
    return default


def foreign_host(service: Service, url: Url | None, cluster_domain: str) -> str | None:
    """Return the host that a Service leads to if that is not itself: by its annotation's URL, or as ExternalName.

    A Service of type ExternalName is an alias: its own name leads to the other host too.
    """
    external = (service.spec.external_name or "") if service.spec.type == "ExternalName" else None
    if url is not None and url.host not in own_hosts(service.metadata, cluster_domain):
        return url.host
    return external


def named_elsewhere(service: Service, url: Url | None) -> str | None:
    """Return the host that a Service of another cluster names itself, by its annotation's URL or as ExternalName."""
    if url is not None:
        return url.host
    return (service.spec.external_name or "") if service.spec.type == "ExternalName" else None


def endpoint(service: Service, port: ServicePort, scheme: Scheme, path: str, settings: Settings) -> Endpoint:
    """Return the URL of a port of a Service.

    The DNS name of a headless Service leads to the Pods themselves, so the number of the target port counts there
    (kubernetes.io/docs/concepts/services-networking/service/#headless-services); a named target port is taken to
    have the Service's number.
    """
    number = (target_number(port) or port.port) if is_headless(service) else port.port
    address = _address(service)
    host = own_hosts(service.metadata, settings.cluster_domain)[-1]
    if settings.endpoint_host == "clusterIP" and address:
        host = address
    return Endpoint(scheme, host, number, path, address)


def balanced_host(service: Service, cluster_domain: str) -> str | None:
    """Return the address or name at which a load balancer takes traffic for a Service, the first if there are several.

    Who runs the cluster writes that, not who owns the Service. A name that could be one of our own cluster, which our
    DNS would complete, is none.
    """
    balancer = service.status.load_balancer if service.status and service.spec.type == "LoadBalancer" else None
    for ingress in (balancer.ingress if balancer else None) or ():
        if ingress.ip and (address := _plain(ingress.ip)):
            return address
        name = (ingress.hostname or "").lower().rstrip(".")
        ours = name.count(".") < 2 or name.endswith((".svc", f".{cluster_domain}"))
        if is_host(name) and not ours:
            return name
    return None


def external_addresses(service: Service) -> tuple[str, ...]:
    """Return the addresses that its owner says lead to a Service too (``externalIPs``): anybody's, so not to trust."""
    return tuple(address for one in service.spec.external_ips or () if (address := _plain(one)))


def _address(service: Service) -> str | None:
    return _plain(service.spec.cluster_ip or "")


def _plain(address: str) -> str | None:
    """Return an address in its usual spelling, None for what is none."""
    try:
        return None if "%" in address else str(ipaddress.ip_address(address))
    except ValueError:
        return None


def read_url(url: str) -> Endpoint | None:
    """Return the endpoint whose URL it is; None if it is that of none."""
    try:
        parts = urlsplit(url)
        host, port, scheme = parts.hostname, parts.port, parts.scheme
    except ValueError:
        return None
    if not host or not port or (scheme != "http" and scheme != "https"):
        return None
    found = Endpoint("https" if scheme == "https" else "http", host, port, parts.path)
    return found if found.url == url else None
