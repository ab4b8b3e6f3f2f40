"""A table of attacks on detection, each a Service that somebody who may create one would write.

Where a comparable program was attacked so, the source is named. What a Service is made to do without detection (answers
of a backend, addresses of a name) is attacked in the tests of the health checks, files in those of the toolset.
"""

import json
import re
import time
from collections.abc import Callable, Iterable
from typing import Any

import msgspec
import pytest
import yaml

from dynamic_toolset.discovery.detector import Detector
from dynamic_toolset.discovery.inventory import Inventory
from dynamic_toolset.kube.objects import Service, ServicePort
from dynamic_toolset.model import Decision, DiscoveredService, Health, Outcome, ServiceKey, Verdict
from dynamic_toolset.settings import AllowedTypes, Credential, ForeignEndpoints, Policy, Settings, ToolsetSettings
from dynamic_toolset.toolset import holmesgpt
from dynamic_toolset.toolset.documents import render

from .building import PREFIX, catalog, detect, discover, headless, is_plain, service

SECRET = "PWNED"
"""Whatever must not come through holds this word."""

GRANTED = Settings(policy=Policy(foreign_endpoints=(ForeignEndpoints(("*",), ("*.example.com", "10.1.2.3")),)))
ANYTHING = Settings(
    policy=Policy(
        foreign_endpoints=(ForeignEndpoints(("*",), ("*.local", "*.svc", "*.default", "kubernetes", "*.com")),),
        without_selector=("*",),
    )
)


class Attack(msgspec.Struct, frozen=True):
    """A Service, and what becomes of it: refused with this in the reason, or else harmless at this URL."""

    name: str
    source: str
    service: Service
    refused: str = ""
    url: str = ""
    settings: Settings = Settings()


def own(annotations: dict[str, str] | None = None, **more: Any) -> Service:
    return service("api", annotations={"-type": "custom", **(annotations or {})}, **more)


def alias(host: str, annotations: dict[str, str] | None = None) -> Service:
    return own(annotations, pods="", type="ExternalName", external_name=host)


def endpoint(url: str) -> Service:
    return own({"-endpoint": url})


def with_port(one: Service, port: ServicePort) -> Service:
    return msgspec.structs.replace(one, spec=msgspec.structs.replace(one.spec, ports=(port,)))


def decoded(spec: dict[str, Any], **metadata: Any) -> Service:
    """Return a Service as the API would send it."""
    whole = {"metadata": {"name": "api", "namespace": "shop", **metadata}, "spec": spec, "status": {}}
    return msgspec.json.decode(json.dumps(whole), type=Service)


CVE_2020_8555 = "CVE-2020-8555, kube-controller-manager asks what a StorageClass names: kubernetes/kubernetes#91542"
CVE_2021_25740 = "CVE-2021-25740, Endpoints forward across namespaces: kubernetes/kubernetes#103675"
CONTOUR = "GHSA-5ph6-qq5x-7jwc, Contour: ExternalName reaches Envoy's own admin interface: projectcontour/contour#3926"
TRAEFIK = "Traefik takes no ExternalName by default any more: traefik/traefik#8261"
GATEWAY = "ExternalName passes the barriers between namespaces: kubernetes-sigs/gateway-api#1070"
BACKSTAGE = "Backstage: an annotation names the API server to send credentials to: backstage/backstage#34439"
GRAFANA_PORTS = "Grafana: the test of a data source scans ports: grafana/grafana#26623"
CVE_2025_8341 = "CVE-2025-8341, Grafana Infinity: URLs that only look allowed: golang/vulndb#3843"
CVE_2020_8562 = "CVE-2020-8562, the API server resolves once to check and once to connect: kubernetes/kubernetes#101493"
CVE_2020_8554 = "CVE-2020-8554, externalIPs take over an address: kubernetes/kubernetes#97076"
CVE_2021_25742 = "CVE-2021-25742, ingress-nginx: configuration in an annotation: kubernetes/ingress-nginx#7837"
CVE_2021_25745 = "CVE-2021-25745, ingress-nginx: a path that leads to a file: kubernetes/ingress-nginx#8502"
CVE_2021_25746 = "CVE-2021-25746, ingress-nginx: directives in annotations: kubernetes/ingress-nginx#8503"
CVE_2021_25748 = "CVE-2021-25748, ingress-nginx: a newline passes the check of the path: kubernetes/kubernetes#126814"
CVE_2023_5043 = "CVE-2023-5043, ingress-nginx: commands in an annotation: kubernetes/ingress-nginx#10571"
CVE_2025_24514 = (
    "CVE-2025-24514, ingress-nginx: configuration in the URL of an annotation: kubernetes/kubernetes#131006"
)
CVE_2025_1974 = (
    "CVE-2025-1097 and CVE-2025-1974, ingress-nginx: a value ends its string: kubernetes/kubernetes#131007, #131009"
)
CVE_2025_15566 = "CVE-2025-15566, ingress-nginx: header names in an annotation: kubernetes/kubernetes#136789"
HAPROXY = "HAProxy Ingress: lines of configuration in an annotation: jcmoraisjr/haproxy-ingress#1469"
DATADOG = "Datadog Agent: %%env_X%% is the agent's environment: docs.datadoghq.com/containers/guide/template_variables"
BEATS = "Beats: hints in annotations get no access to the keystore: elastic/beats#18089"
HOLMESGPT = "HolmesGPT fills {{ env.X }} into any value of a toolset file from its own environment"
OPERATOR = "Prometheus Operator: whoever names the target gets the token: prometheus-operator/prometheus-operator#2524"
TOOL_POISONING = "MCP tool poisoning: lbeurerkellner.github.io/jekyll/update/2025/04/01/mcp-tool-poisoning.html"
OURS = "our own grammar"

ELSEWHERE = "policy.foreignEndpoints"

ATTACKS = (
    # --- Where it leads -------------------------------------------------------------------------------------------
    Attack("metadata service by annotation", CVE_2020_8555, endpoint("http://169.254.169.254:80/latest"), ELSEWHERE),
    Attack("our own loopback", CVE_2020_8555, endpoint("http://127.0.0.1:8080"), ELSEWHERE),
    Attack("an address by decimal number", CVE_2020_8555, endpoint("http://2852039166:80"), "no host name"),
    Attack("an address in octal", CVE_2020_8555, endpoint("http://0251.0376.0251.0376:80"), "no host name"),
    Attack("an address in hex", CVE_2020_8555, endpoint("http://0xa9fea9fe:80"), "no host name"),
    Attack("an address cut short", CVE_2020_8555, endpoint("http://127.1:80"), "no host name"),
    Attack("an IPv4-mapped address", CVE_2020_8555, endpoint("http://[::ffff:169.254.169.254]:80"), "a full URL"),
    Attack("a zone", CVE_2020_8555, endpoint("http://[fe80::1%25eth0]:80"), "a full URL"),
    Attack("a name of the metadata service", CVE_2020_8555, endpoint("http://metadata.google.internal:80"), ELSEWHERE),
    Attack("another tenant's Service", BACKSTAGE, endpoint("http://grafana.monitoring.svc:3000"), ELSEWHERE),
    Attack("another host of the world", BACKSTAGE, endpoint("https://evil.org:443"), ELSEWHERE),
    Attack("another scheme", BACKSTAGE, endpoint("file://api.shop.svc:80/etc/passwd"), "a full URL"),
    Attack("a scheme in capitals", BACKSTAGE, endpoint("HTTP://api.shop.svc:80"), "a full URL"),
    Attack(
        "a port that is not the Service's", GRAFANA_PORTS, endpoint("http://api.shop.svc:22"), "a port of this Service"
    ),
    Attack("a port by number", GRAFANA_PORTS, own({"-port": "22"}), "a port of this Service"),
    Attack("localhost as ExternalName", CONTOUR, alias("localhost"), ELSEWHERE),
    Attack("127.0.0.1 as ExternalName", CONTOUR, alias("127.0.0.1"), ELSEWHERE),
    Attack("another namespace as ExternalName", GATEWAY, alias("grafana.monitoring.svc.cluster.local"), ELSEWHERE),
    Attack("another namespace, fewer labels", GATEWAY, alias("grafana.monitoring"), ELSEWHERE),
    Attack(
        "ExternalName and the own name", TRAEFIK, alias("evil.org", {"-endpoint": "http://api.shop.svc:80"}), ELSEWHERE
    ),
    Attack("ExternalName with a selector", TRAEFIK, own(type="ExternalName", external_name="evil.org"), ELSEWHERE),
    Attack("ExternalName without a name", TRAEFIK, own(type="ExternalName"), "no host name"),
    Attack("endpoints by hand", CVE_2021_25740, own(pods=""), "policy.withoutSelector"),
    Attack("endpoints by hand, headless", CVE_2021_25740, own(pods="", cluster_ip="None"), "policy.withoutSelector"),
    Attack(
        "endpoints by hand, of a product",
        CVE_2021_25740,
        service("prometheus", "app=prometheus", "9090", ""),
        "policy.withoutSelector",
    ),
    Attack(
        "the Kubernetes API",
        CVE_2021_25740,
        service("kubernetes", "", "https:443", "", "default", {"-type": "custom"}),
        "never listed",
        settings=ANYTHING,
    ),
    Attack("the Kubernetes API as alias", GATEWAY, alias("kubernetes.default.svc"), "never listed", settings=ANYTHING),
    Attack("the Kubernetes API by its short name", GATEWAY, alias("kubernetes"), "never listed", settings=ANYTHING),
    Attack(
        "the Kubernetes API by a Pod's name",
        GATEWAY,
        alias("10-0-0-1.kubernetes.default.svc.cluster.local"),
        "never listed",
        settings=ANYTHING,
    ),
    # --- Around a grant -------------------------------------------------------------------------------------------
    Attack(
        "a domain before it", CVE_2025_8341, endpoint("http://a.example.com.evil.org:80"), ELSEWHERE, settings=GRANTED
    ),
    Attack("no dot before it", CVE_2025_8341, endpoint("http://evilexample.com:80"), ELSEWHERE, settings=GRANTED),
    Attack("the domain itself", CVE_2025_8341, endpoint("http://example.com:80"), ELSEWHERE, settings=GRANTED),
    Attack(
        "credentials before it", CVE_2025_8341, endpoint("http://a.example.com@evil.org:80"), "URL", settings=GRANTED
    ),
    Attack("a fragment before it", CVE_2025_8341, endpoint("http://evil.org#.example.com:80"), "URL", settings=GRANTED),
    Attack(
        "a backslash before it", CVE_2025_8341, endpoint("http://evil.org\\.example.com:80"), "URL", settings=GRANTED
    ),
    Attack("a tab in it", CVE_2025_8341, endpoint("http://a.exam\tple.com:80"), "URL", settings=GRANTED),
    Attack("a dot after it", CVE_2025_8341, alias("a.example.com."), "no host name", settings=GRANTED),
    Attack("a full-width dot", CVE_2025_8341, alias("evil.org\uff0eexample.com"), "no host name", settings=GRANTED),
    Attack("a letter that looks alike", CVE_2025_8341, alias("a.ex\u0430mple.com"), "no host name", settings=GRANTED),
    Attack("capitals", CVE_2025_8341, alias("A.EXAMPLE.COM"), "no host name", settings=GRANTED),
    Attack("a zero in the address", CVE_2025_8341, endpoint("http://10.1.2.03:80"), "no host name", settings=GRANTED),
    Attack(
        "an address of its own beside a granted name",
        CVE_2020_8562,
        own({"-endpoint": "http://a.example.com:80"}, cluster_ip="10.0.0.1"),
        url="http://a.example.com:80",
        settings=GRANTED,
    ),
    # --- What else a Service can hold -----------------------------------------------------------------------------
    Attack(
        "external addresses",
        CVE_2020_8554,
        decoded(
            {
                "selector": {"app": "x"},
                "ports": [{"port": 80}],
                "externalIPs": ["169.254.169.254"],
                "loadBalancerIP": "169.254.169.254",
                "type": "LoadBalancer",
            },
            annotations={f"{PREFIX}-type": "custom"},
        ),
        url="http://api.shop.svc.cluster.local:80",
    ),
    Attack(
        "a ClusterIP that is none",
        CVE_2020_8554,
        own(cluster_ip="evil.org"),
        url="http://api.shop.svc.cluster.local:80",
    ),
    # --- Text -----------------------------------------------------------------------------------------------------
    Attack("a template in a path", HOLMESGPT, own({"-path": "/{{ env.PWNED }}"}), "a path of letters"),
    Attack("a template in the health path", HOLMESGPT, own({"-health-path": "/{{env.PWNED}}"}), "a path of letters"),
    Attack("a template in a name", HOLMESGPT, own({"-name": "{{ env.PWNED }}"}), "lower-case letters"),
    Attack("a template in a type", HOLMESGPT, own({"-type": "{{ env.PWNED }}"}), "lower-case letters"),
    Attack("a template in a host", HOLMESGPT, endpoint("http://{{ env.PWNED }}.evil.org:80"), "a full URL"),
    Attack("a template in the path of a URL", HOLMESGPT, endpoint("http://api.shop:80/{{ env.PWNED }}"), "a full URL"),
    Attack(
        "a template in a host that is granted",
        HOLMESGPT,
        alias("{{ env.PWNED }}.example.com"),
        "host",
        settings=GRANTED,
    ),
    Attack("a template in a key", HOLMESGPT, own({"-{{ env.PWNED }}": ""}), "is not known"),
    Attack("a template in a port", HOLMESGPT, own({"-port": "{{ env.PWNED }}"}), "1 to 65535"),
    Attack("a shell's variable", BEATS, own({"-path": "/${PWNED}"}), "a path of letters"),
    Attack("a container's variable", BEATS, own({"-name": "$(PWNED)"}), "lower-case letters"),
    Attack("an agent's variable", DATADOG, own({"-path": "/%%env_PWNED%%"}), "a path of letters"),
    Attack("a snippet", CVE_2021_25742, own({"-configuration-snippet": "PWNED;"}), "is not known"),
    Attack("a file by path", CVE_2021_25745, own({"-path": "/../../var/run/secrets"}), "a path of letters"),
    Attack("a file by parts of a path", CVE_2021_25745, own({"-health-path": "/x/./../PWNED"}), "a path of letters"),
    Attack("a file by an escaped path", CVE_2021_25745, own({"-path": "/%2e%2e/PWNED"}), "a path of letters"),
    Attack("a directive in a path", CVE_2021_25746, own({"-path": "/x { PWNED; }"}), "a path of letters"),
    Attack("a newline in a path", CVE_2021_25748, own({"-path": "/x\nPWNED"}), "a path of letters"),
    Attack("a newline after a path", CVE_2021_25748, own({"-path": "/x\n"}), "a path of letters"),
    Attack("a newline after a name", CVE_2021_25748, own({"-name": "x\n"}), "lower-case letters"),
    Attack("a newline after a port", CVE_2021_25748, own({"-port": "80\n"}), "1 to 65535"),
    Attack("a newline after a URL", CVE_2021_25748, endpoint("http://api.shop:80\n"), "a full URL"),
    Attack("a newline after a host", CVE_2021_25748, alias("a.example.com\n"), "no host name", settings=GRANTED),
    Attack("a command", CVE_2023_5043, own({"-name": "`PWNED`"}), "lower-case letters"),
    Attack("configuration in a URL", CVE_2025_24514, endpoint("http://api.shop:80/#;PWNED"), "a full URL"),
    Attack("the end of a string", CVE_2025_1974, own({"-name": 'x"; PWNED'}), "lower-case letters"),
    Attack("a header", CVE_2025_15566, own({"-health-path": "/ HTTP/1.1\r\nX-PWNED: 1"}), "a path of letters"),
    Attack("a header in a host", CVE_2025_15566, endpoint("http://api.shop\r\nX-PWNED: 1:80"), "a full URL"),
    Attack("lines of configuration", HAPROXY, own({"-type": "custom\n  PWNED"}), "lower-case letters"),
    Attack("a YAML tag", OURS, own({"-name": "!!python/name:PWNED"}), "lower-case letters"),
    Attack("a YAML alias", OURS, own({"-name": "*PWNED"}), "lower-case letters"),
    Attack("an escape for a terminal", OURS, own({"-name": "\x1b[2JPWNED"}), "lower-case letters"),
    Attack("text from right to left", OURS, own({"-name": "\u202eDENWP"}), "lower-case letters"),
    Attack("a letter without width", OURS, own({"-type": "graf\u200bana"}), "lower-case letters"),
    Attack("a letter that looks alike in a type", OURS, own({"-type": "gr\u0430fana"}), "lower-case letters"),
    Attack("digits of another script", OURS, own({"-port": "\u0668\u0660"}), "1 to 65535"),
    Attack("markup", OURS, own({"": "<script>PWNED</script>"}), "enabled, true, disabled or false"),
    Attack(
        "a template in the name of a port",
        HOLMESGPT,
        with_port(service("prometheus", "app=prometheus", pods="app=prometheus"), ServicePort(9090, "{{ env.PWNED }}")),
        url="http://prometheus.shop.svc.cluster.local:9090",
    ),
    Attack(
        "a template in a label",
        HOLMESGPT,
        service("x", "app={{PWNED}}-grafana", "3000", "app={{PWNED}}-grafana"),
        url="http://x.shop.svc.cluster.local:3000",
    ),
    Attack(
        "a name in the prompt", HOLMESGPT, service("PWNED: do this", annotations={"-type": "custom"}), "not a DNS label"
    ),
    Attack("a namespace with a template", HOLMESGPT, own(namespace="{{ env.PWNED }}"), "not a DNS label"),
    Attack("a description", TOOL_POISONING, own({"-description": "PWNED"}), "is not known"),
    Attack("instructions", TOOL_POISONING, own({"-llm-instructions": "PWNED"}), "is not known"),
)


def documents(decisions: Iterable[Decision], settings: Settings) -> dict[str, str]:
    """Return the documents, as they would be if every candidate answered."""
    services = [
        DiscoveredService(one.candidate, Health(Verdict.HEALTHY, "ok"), listed=True)
        for one in decisions
        if one.outcome is Outcome.CANDIDATE and one.candidate
    ]
    rendered = render(services, settings, None)
    assert not rendered.problems, "the second lock had to be used"
    return {document.key: document.text for document in rendered.documents}


@pytest.mark.parametrize("attack", ATTACKS, ids=lambda attack: attack.name)
def test_attack(attack: Attack) -> None:
    decision = detect(attack.service, attack.settings)
    assert is_plain(decision.reason)
    if attack.refused:
        assert decision.outcome is Outcome.REJECTED
        assert attack.refused in decision.reason
        assert decision.candidate is None
    else:
        assert decision.endpoint == attack.url
        assert decision.candidate
        assert decision.candidate.endpoint.address is None or attack.settings is not GRANTED
        assert SECRET not in str(documents([decision], attack.settings))
        assert SECRET not in msgspec.json.encode(decision.candidate).decode()


def test_every_attack_is_another_one() -> None:
    assert len({attack.name for attack in ATTACKS}) == len(ATTACKS)
    assert len({msgspec.json.encode(attack.service) for attack in ATTACKS}) == len(ATTACKS)


# --- Whose tools the agent gets -------------------------------------------------------------------------------------


def test_nothing_makes_an_mcp_server_but_its_owners_word() -> None:
    """TOOL_POISONING: its tools describe themselves to the agent."""
    one = service("mcp", "app=mcp .name=mcp .component=mcp toolhive=true", "mcp:8080/kgateway.dev/mcp", "app=mcp")
    assert detect(one).outcome is Outcome.IGNORED


def test_the_operator_can_say_whose_mcp_servers_and_apis_are_taken() -> None:
    trusted = Settings(policy=Policy(trusted_namespaces=("platform",), trusted_types=("mcp", "custom")))
    allowed = Settings(policy=Policy(allowed_types=(AllowedTypes(("shop",), ("grafana",)),)))
    for settings in (trusted, allowed):
        for type_name in ("mcp", "custom", "an-api-of-mine"):
            decision = detect(service("api", annotations={"-type": type_name}), settings)
            assert decision.outcome is Outcome.REJECTED
            assert "policy." in decision.reason


def test_a_credential_goes_to_no_other_service_whatever_it_calls_itself() -> None:
    """OPERATOR: a credential is bound to a namespace and a name that nobody can claim by annotation."""
    settings = Settings(toolset=ToolsetSettings(credentials=(Credential("monitoring", "grafana", api_key="PWNED"),)))
    names = ({}, {"-name": "grafana"}, {"-name": "monitoring-grafana"}, {"-endpoint": "http://grafana.shop.svc:3000"})
    decisions = [
        decision
        for annotations in names
        for decision in discover(
            service("grafana", "app=grafana", "3000", "app=grafana", "shop", annotations), settings=settings
        ).values()
    ]
    assert len(decisions) == len(names)
    assert not any(SECRET in str(documents([decision], settings)) for decision in decisions)
    owner = detect(service("grafana", "app=grafana", "3000", "app=grafana", "monitoring"), settings)
    assert SECRET in str(documents([owner], settings))


@pytest.mark.parametrize(
    "type_name", ["kubernetes-core", "bash", "prometheus-metrics", "robusta", "mcp-servers", "toolsets"]
)
def test_a_type_of_ones_own_is_not_one_of_the_agents_toolsets(type_name: str) -> None:
    """What configures a built-in toolset of HolmesGPT replaces it."""
    decisions = [detect(service("a", annotations={"-type": type_name, "-name": "b"}, namespace="c"))]
    names = yaml.safe_load(documents(decisions, Settings())[holmesgpt.KEY])["toolsets"]
    assert f"{type_name}-c-b" in names
    assert {name for name in names if name in {"bash", "robusta", "prometheus/metrics"}} == set()


def test_two_tenants_who_choose_one_name_are_told_apart() -> None:
    """As two Services that ask external-dns for one host name are not: kubernetes-sigs/external-dns#3330."""
    services = [
        service("grafana", "app=grafana", "3000", "app=grafana", namespace, {"-name": "main"})
        for namespace in ("good", "evil")
    ]
    text = documents(discover(*services).values(), Settings())[holmesgpt.KEY]
    assert '"name": "good.main"' in text
    assert '"name": "evil.main"' in text


def test_a_tenant_cannot_make_another_ones_service_a_duplicate() -> None:
    good = service("prometheus", "app=prometheus", "9090", "app=prometheus", "good")
    evil = [
        make("prometheus", "app=prometheus", "9090", "app=prometheus", "evil", annotations={"": "enabled"})
        for make in (service, headless)
    ]
    for one in evil:
        assert discover(one, good)[ServiceKey.of(good.metadata.key)].outcome is Outcome.CANDIDATE


def test_a_crowd_takes_nothing_from_others() -> None:
    crowd = [
        service(f"p{number}", "app=prometheus", "9090", f"app=prometheus n={number}", "evil") for number in range(1000)
    ]
    good = service("prometheus", "app=prometheus", "9090", "app=prometheus", "good")
    decisions = discover(*crowd, good)
    assert decisions[ServiceKey.of(good.metadata.key)].outcome is Outcome.CANDIDATE
    assert sum(decision.outcome is Outcome.CANDIDATE for decision in decisions.values()) == 51


def test_many_namespaces_take_no_more_than_their_share() -> None:
    crowd = [
        service(f"p{number}", "app=prometheus", "9090", f"app=prometheus n={number}", f"evil-{namespace}")
        for namespace in range(20)
        for number in range(50)
    ]
    good = [
        service(f"p{number}", "app=prometheus", "9090", f"app=prometheus n={number}", "good") for number in range(9)
    ]
    decisions = discover(*crowd, *good)
    assert sum(decision.outcome is Outcome.CANDIDATE for decision in decisions.values()) == 500
    assert all(decisions[ServiceKey.of(one.metadata.key)].outcome is Outcome.CANDIDATE for one in good)


# --- Size -----------------------------------------------------------------------------------------------------------

MANY = tuple(ServicePort(number + 1, f"p{number}", f"q{number}") for number in range(10_000))


def sized(annotations: dict[str, str] | None = None, ports: tuple[ServicePort, ...] = (), **labels: Any) -> Service:
    one = service("prometheus", "app=prometheus", "9090", "app=prometheus", annotations=annotations)
    own_labels = {**(one.metadata.labels or {}), **labels.get("own", {})}
    selector = {**(one.spec.selector or {}), **labels.get("pods", {})}
    spec = msgspec.structs.replace(one.spec, selector=selector, **({"ports": ports} if ports else {}))
    return Service(msgspec.structs.replace(one.metadata, labels=own_labels), spec)


SIZES: dict[str, tuple[Callable[[], Service], str]] = {
    "an annotation of 256 KiB": (lambda: sized({"-path": "/" + "a" * 262_000}), "a path of letters"),
    "a URL of 256 KiB": (lambda: sized({"-endpoint": "http://" + "a." * 131_000}), "a full URL"),
    "a switch of 256 KiB": (lambda: sized({"": "e" * 262_000}), "enabled, true, disabled or false"),
    "a port of a million digits": (lambda: sized({"-type": "custom", "-port": "1" * 1_000_000}), "1 to 65535"),
    "60,000 annotations of ours": (lambda: sized({f"-{n}": "{{x}}" for n in range(60_000)}), "and 59995 more"),
    "60,000 annotations of others": (lambda: annotated_by_others(60_000), ""),
    "10,000 ports": (lambda: sized(ports=MANY), "10000 ports, and at most 250"),
    "251 ports": (lambda: sized(ports=MANY[:251]), "251 ports, and at most 250"),
    "250 ports": (lambda: sized(ports=(*MANY[:249], ServicePort(9090))), ""),
    "60,000 labels": (lambda: sized(own={f"l{n}": "x" for n in range(60_000)}), "60001 labels, and at most 64"),
    "65 labels": (lambda: sized(own={f"l{n}": "x" for n in range(64)}), "65 labels, and at most 64"),
    "64 labels": (lambda: sized(own={f"l{n}": "x" for n in range(63)}), ""),
    "65 labels in the selector": (lambda: sized(pods={f"l{n}": "x" for n in range(64)}), "65 labels in its selector"),
    "a label of 10 MB": (lambda: sized(own={"app.kubernetes.io/component": "a-_" * 3_000_000}), ""),
    "a label of a product of 10 MB": (lambda: sized(pods={"app": "-grafana" * 1_000_000}), ""),
    "a port name of 10 MB": (lambda: sized(ports=(ServicePort(9090, "x" * 10_000_000),)), ""),
    "a protocol of 10 MB": (lambda: sized(ports=(ServicePort(9090, "x", app_protocol="H" * 10_000_000),)), ""),
    "a target of a million digits": (lambda: sized(ports=(ServicePort(9090, "x", "9" * 1_000_000),)), ""),
    "a name of 10 MB": (
        lambda: service("a-" * 5_000_000, "app=prometheus", "9090", "app=prometheus"),
        "not a DNS label",
    ),
    "an alias of 10 MB": (lambda: alias("a." * 5_000_000), "no host name"),
    "a ClusterIP of 10 MB": (lambda: own(cluster_ip="1:" * 5_000_000), ""),
}
ACCEPTED = ("256 KiB", "of others", "ports", "labels", "of ours")
"""What the API server accepts, if not all of it: the others can only stand in a file."""


def annotated_by_others(count: int) -> Service:
    one = sized()
    many = {f"example.com/{number}": "" for number in range(count)}
    return msgspec.structs.replace(one, metadata=msgspec.structs.replace(one.metadata, annotations=many))


@pytest.mark.parametrize("name", SIZES)
def test_size_is_refused_or_borne_in_bounded_time_and_space(name: str) -> None:
    make, refused = SIZES[name]
    one = make()
    inventory = Inventory(Detector(catalog(), Settings()))

    def judge() -> float:
        began = time.thread_time()
        inventory.judge(one)
        return time.thread_time() - began

    seconds = min(judge() for _ in range(5))
    judged = inventory.judge(one)
    assert is_plain(judged.decision.reason)
    assert refused in judged.decision.reason
    assert bool(refused) == (judged.decision.outcome is Outcome.REJECTED)
    assert seconds < (0.3 if any(word in name for word in ACCEPTED) else 3), "2 ms, and 110 ms, on an idle machine"
    if judged.decision.outcome is not Outcome.CANDIDATE or any(word in name for word in ACCEPTED):
        kept = msgspec.structs.replace(judged, metadata=msgspec.structs.replace(judged.metadata, name=""))
        assert len(msgspec.msgpack.encode(kept)) < 32 * 1024


@pytest.mark.parametrize(
    "pattern", ["*a" * 31, "a*" * 31, "*" * 60, "*a*b" * 15], ids=["*a", "a*", "stars", "two letters"]
)
def test_no_pattern_of_namespaces_takes_long(pattern: str) -> None:
    settings = Settings(policy=Policy(without_selector=(pattern, f"{pattern}z")))
    one = service("grafana", "app=grafana", "3000", "", namespace="a" * 63)
    began = time.thread_time()
    detect(one, settings)
    assert time.thread_time() - began < 1


def test_no_expression_of_ours_takes_long() -> None:
    texts = [
        "a" * 50_000,
        "a-" * 25_000,
        "/" * 50_000,
        "/a" * 25_000,
        "http://" + "a" * 253 + ":1" * 25_000,
        "0" * 50_000,
    ]
    for key in ("", "-type", "-name", "-port", "-scheme", "-path", "-health-path", "-endpoint"):
        for text in texts:
            for end in ("", "\n", "!", "{{"):
                began = time.thread_time()
                decision = detect(own({key: text + end}))
                assert time.thread_time() - began < 1  # a millisecond; of one that blows up nobody sees the end
                assert decision.outcome is Outcome.REJECTED
                assert re.search(r'is "[^"]{60}\.\.\."', decision.reason)


def test_one_hostile_service_harms_only_itself() -> None:
    good = service("prometheus", "app=prometheus", "9090", "app=prometheus", "good")
    services = [attack.service for attack in ATTACKS]
    named = [
        msgspec.structs.replace(one, metadata=msgspec.structs.replace(one.metadata, namespace=f"n{number}"))
        for number, one in enumerate(services)
    ]
    decisions = discover(*named, good)
    assert decisions[ServiceKey("good", "prometheus")].outcome is Outcome.CANDIDATE
    text = str(documents(decisions.values(), Settings()))
    assert SECRET not in text
    assert "http://prometheus.good.svc.cluster.local:9090" in text
