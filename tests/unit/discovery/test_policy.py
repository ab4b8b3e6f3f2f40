"""Who may publish what, and where a Service may lead."""

import msgspec
import pytest

from dynamic_toolset.discovery.detector import Detector
from dynamic_toolset.discovery.policy import is_host, unknown_types
from dynamic_toolset.model import Outcome, Rejection
from dynamic_toolset.settings import (
    AllowedTypes,
    ForeignEndpoints,
    Namespaces,
    Policy,
    ServiceTypeSettings,
    Settings,
    load,
)
from dynamic_toolset.toolset.safety import refusal
from tests.documentation import DOCS, blocks

from .building import PREFIX, catalog, detect, discover, headless, is_plain, service

CUSTOM = {"-type": "custom"}
GRAFANA = {"own": "app=grafana", "listens": "3000", "pods": "app=grafana"}


def decided(one, **policy):
    return detect(one, Settings(policy=Policy(**policy)))


def foreign(*hosts, namespaces=("*",)):
    return {"foreign_endpoints": (ForeignEndpoints(namespaces, hosts),)}


def alias(host, listens="8080", annotations=CUSTOM, **more):
    return service("api", "", listens, "", annotations=annotations, type="ExternalName", external_name=host, **more)


def pointing(endpoint, **more):
    return service("api", annotations={**CUSTOM, "-endpoint": endpoint}, **more)


# --- Namespaces -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("labels", "why"),
    [
        ({"shop": {"team": "a"}}, None),
        ({"shop": {"team": "a", "more": "b"}}, None),
        ({"shop": {"team": "b"}}, "do not match the setting namespaces.selector"),
        ({"shop": {}}, "do not match the setting namespaces.selector"),
        ({"other": {"team": "a"}}, "are not known, by which the setting namespaces.selector"),
        ({}, "are not known, by which the setting namespaces.selector"),
    ],
)
def test_namespaces_are_selected_by_their_labels(labels, why):
    detector = Detector(catalog(), Settings(namespaces=Namespaces(selector="team=a")), labels)
    decision = detector.detect(service("grafana", **GRAFANA))
    assert decision.outcome is (Outcome.IGNORED if why else Outcome.CANDIDATE)
    assert (why or "Grafana") in decision.reason


def test_the_labels_of_namespaces_count_as_they_are_at_that_moment():
    labels = {}
    detector = Detector(catalog(), Settings(namespaces=Namespaces(selector="team in (a, b)")), labels)
    one = service("grafana", **GRAFANA)
    assert detector.detect(one).outcome is Outcome.IGNORED
    labels["shop"] = {"team": "b"}
    assert detector.detect(one).outcome is Outcome.CANDIDATE
    del labels["shop"]
    assert detector.detect(one).outcome is Outcome.IGNORED


def test_exclude_and_include_count_besides_the_selector():
    for namespaces in (
        Namespaces(selector="team=a", exclude=("shop",)),
        Namespaces(selector="team=a", include=("other",)),
    ):
        detector = Detector(catalog(), Settings(namespaces=namespaces), {"shop": {"team": "a"}})
        assert detector.detect(service("grafana", **GRAFANA)).outcome is Outcome.IGNORED


def test_who_opted_out_is_told_so_whatever_his_namespace():
    detector = Detector(catalog(), Settings(namespaces=Namespaces(selector="team=a")))
    assert "opted out" in detector.detect(service(annotations={"": "false"})).reason


# --- Which Services are looked at -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("selector", "own", "is_looked_at"),
    [
        ("team=a", "app=grafana team=a", True),
        ("team=a", "app=grafana team=b", False),
        ("team=a", "app=grafana", False),
        ("team in (a, b),!legacy", "app=grafana team=b", True),
        ("team in (a, b),!legacy", "app=grafana team=b legacy=yes", False),
        ("team!=a", "", True),
    ],
)
@pytest.mark.parametrize("annotations", [None, {"-type": "grafana"}, {"-type": "?"}])
def test_services_are_selected_by_their_labels(selector, own, is_looked_at, annotations):
    one = service("grafana", own, "3000", "app=grafana", annotations=annotations)
    decision, usual = detect(one, Settings(selector=selector)), detect(one)
    if is_looked_at:
        assert decision == usual
    else:
        assert (decision.outcome, decision.reason) == (
            Outcome.IGNORED,
            "its labels do not match the setting selector",
        )


def test_who_opted_out_is_told_so_whatever_his_labels():
    assert "opted out" in detect(service(annotations={"": "false"}), Settings(selector="team=a")).reason


# --- Which Services are taken for a type ----------------------------------------------------------------------------


def typed(**settings):
    return Settings(service_types={name.replace("_", "-"): one for name, one in settings.items()})


ORDERS = {"": "enabled", "-type": "orders"}
LOOKS = "it looks like Grafana, but "
OFF = ServiceTypeSettings(enabled=False)
OF_TEAM_A = ServiceTypeSettings(labels={"team": "a"})
SIGNED = ServiceTypeSettings(annotations={"x.io/signed": "yes {{ env.X }}"})


@pytest.mark.parametrize(
    ("settings", "own", "annotations", "why"),
    [
        (typed(grafana=ServiceTypeSettings()), "", None, None),
        (typed(loki=OFF), "", None, None),
        (typed(custom=OFF), "", None, None),
        (
            typed(grafana=OFF),
            "team=a",
            None,
            f"{LOOKS}the setting serviceTypes.grafana.enabled is false",
        ),
        (
            typed(grafana=OFF),
            "",
            {"-type": "grafana"},
            "the setting serviceTypes.grafana.enabled is false",
        ),
        (typed(grafana=OF_TEAM_A), "team=a", None, None),
        *(
            (
                typed(grafana=OF_TEAM_A),
                own,
                None,
                f'{LOOKS}by the setting serviceTypes.grafana.labels it must carry the label team with the value "a"',
            )
            for own in ("", "team=b")
        ),
        (
            typed(grafana=SIGNED),
            "",
            {"-name": "board"},
            (
                f"{LOOKS}by the setting serviceTypes.grafana.annotations it must carry the annotation x.io/signed "
                'with the value "yes ?? env.X ??"'
            ),
        ),
        (typed(grafana=ServiceTypeSettings(annotations={f"{PREFIX}-name": "board"})), "", {"-name": "board"}, None),
        (
            typed(custom=OFF),
            "",
            ORDERS,
            "the setting serviceTypes.custom.enabled is false",
        ),
        (
            typed(custom=OF_TEAM_A),
            "",
            ORDERS,
            'by the setting serviceTypes.custom.labels it must carry the label team with the value "a"',
        ),
        (typed(custom=OF_TEAM_A), "team=a", ORDERS, None),
    ],
)
def test_a_type_can_be_switched_off_or_ask_for_labels_and_annotations(settings, own, annotations, why):
    decision = detect(
        service("grafana", f"app=grafana {own}", "3000", "app=grafana", annotations=annotations), settings
    )
    assert decision.outcome is (Outcome.REJECTED if why else Outcome.CANDIDATE)
    assert decision.rejection is (Rejection.POLICY if why else None)
    if why:
        assert decision.reason == why
        assert is_plain(decision.reason)


def test_of_two_services_of_one_workload_that_one_is_taken_which_carries_what_its_type_asks_for():
    settings = typed(grafana=OF_TEAM_A)
    plain, labelled = (
        service(name, own, "3000", "app=grafana") for name, own in (("a", "app=grafana"), ("b", "team=a"))
    )
    decisions = discover(plain, labelled, settings=settings)
    assert [one.outcome for one in decisions.values()] == [Outcome.REJECTED, Outcome.CANDIDATE]


# --- Services without selector --------------------------------------------------------------------------------------


@pytest.mark.parametrize("make", [service, headless])
@pytest.mark.parametrize("annotations", [None, {"": "enabled"}, {"-type": "grafana"}])
def test_a_service_without_selector_takes_a_grant(make, annotations):
    one = make("grafana", "app=grafana", "3000", "", annotations=annotations)
    decision = detect(one)
    assert decision.outcome is Outcome.REJECTED
    assert "it has no selector" in decision.reason
    assert "policy.withoutSelector" in decision.reason
    assert decided(one, without_selector=("other", "sh*p*")).outcome is Outcome.CANDIDATE
    assert decided(one, without_selector=("other", "*-shop", "sho")).outcome is Outcome.REJECTED


def test_an_empty_selector_is_none():
    one = service("grafana", "app=grafana", "3000", "")
    one = msgspec.structs.replace(one, spec=msgspec.structs.replace(one.spec, selector={}))
    assert "policy.withoutSelector" in detect(one).reason


def test_one_that_looks_like_nothing_is_ignored_as_ever():
    plain = service("web", "app=web", "8080", "")
    assert detect(plain).outcome is Outcome.IGNORED
    assert detect(plain).reason == detect(service("web", "app=web", "8080")).reason
    assert detect(alias("db.example.com", annotations=None)).outcome is Outcome.IGNORED


# --- Other hosts ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("pattern", "host", "fits"),
    [
        ("grafana.example.com", "grafana.example.com", True),
        ("*.example.com", "grafana.example.com", True),
        ("*.example.com", "a.b.example.com", True),
        ("*.example.com", "xn--gnk-lna.example.com", True),
        ("*.example.com", "example.com", False),
        ("*.example.com", "evilexample.com", False),
        ("*.example.com", "grafana.example.com.evil.org", False),
        ("*.example.com", "grafana.example.comevil", False),
        ("example.com", "grafana.example.com", False),
        ("grafana.example.com", "grafana-example.com", False),
        ("10.0.0.1", "10.0.0.1", True),
        ("*.0.0.1", "10.0.0.1", False),
        ("*.com", "grafana.example.com", True),
        ("grafana", "grafana", True),
        ("*.monitoring.svc.cluster.local", "loki.monitoring.svc.cluster.local", True),
        ("*.monitoring.svc.cluster.local", "loki.monitoring.svc", False),
        ("*.monitoring.svc.cluster.local", "loki.monitoring", False),
        ("*.monitoring", "loki.monitoring", True),
    ],
)
@pytest.mark.parametrize("how", ["endpoint", "ExternalName"])
def test_a_grant_names_a_host_or_what_is_below_it(how, pattern, host, fits):
    one = alias(host) if how == "ExternalName" else pointing(f"http://{host}:8080")
    decision = decided(one, **foreign(pattern))
    assert decision.outcome is (Outcome.CANDIDATE if fits else Outcome.REJECTED), decision.reason
    if not fits:
        assert f'leads to "{host}"' in decision.reason
        assert "policy.foreignEndpoints" in decision.reason
    else:
        assert decision.endpoint == f"http://{host}:8080"
        assert decision.candidate.endpoint.address is None, "it must be resolved, judged and dialled by the probe"
        assert host in decision.reason
        assert refusal(decision.candidate) is None


@pytest.mark.parametrize("how", ["endpoint", "ExternalName"])
def test_without_a_grant_for_its_namespace_no_service_leads_elsewhere(how):
    one = alias("x.example.com") if how == "ExternalName" else pointing("http://x.example.com:8080")
    for policy in ({}, foreign("*.example.com", namespaces=("other",)), foreign("*.example.org")):
        decision = decided(one, **policy)
        assert decision.outcome is Outcome.REJECTED
        assert "policy.foreignEndpoints" in decision.reason
    two = (ForeignEndpoints(("shop",), ("*.example.org",)), ForeignEndpoints(("other",), ("*.example.com",)))
    assert decided(one, foreign_endpoints=two).outcome is Outcome.REJECTED, (
        "a host of one grant, a namespace of another"
    )
    assert decided(one, without_selector=("*",)).outcome is Outcome.REJECTED, "that is another permission"


NO_HOSTS = [
    "example.com.",
    "Grafana.example.com",
    "gr\u00e4fana.example.com",
    "gr\u0430fana.example.com",  # a Cyrillic letter
    "a..example.com",
    ".example.com",
    "-a.example.com",
    "a_b.example.com",
    "a b.example.com",
    "a\n.example.com",
    "{{ env.X }}.example.com",
    "a" * 64 + ".example.com",
    ".".join(["a" * 60] * 5),
    "127.1",
    "0x7f.1",
    "0x7f000001",
    "2130706433",
    "017700000001",
    "0177.0.0.1",
    "10.0.0.01",
    "1.2.3.4.5",
    "a.0x10",
    "::1",
    "[::1]",
    "",
]


@pytest.mark.parametrize("host", NO_HOSTS)
def test_what_is_no_host_name_is_refused_whatever_is_granted(host):
    assert not is_host(host)
    decision = decided(alias(host), **foreign(host, "*.example.com", "*.com", "*.0.0.1"))
    assert decision.outcome is Outcome.REJECTED
    assert "no host name" in decision.reason
    assert decided(pointing(f"http://{host}:80"), **foreign(host, "*.com")).outcome is Outcome.REJECTED


@pytest.mark.parametrize("host", ["a", "a.b", "1.example.com", "example.com", "1a", "10.0.0.1", "xn--e1afmkfd.com"])
def test_what_is_a_host_name(host):
    assert is_host(host)


API_NAMES = [
    "kubernetes.default.svc.cluster.local",
    "kubernetes.default.svc",
    "kubernetes.default",
    "kubernetes",
    "10-0-0-1.kubernetes.default.svc.cluster.local",
]


@pytest.mark.parametrize("host", [*API_NAMES, "KUBERNETES.default.svc", "kubernetes.default.svc.cluster.local."])
def test_the_kubernetes_api_is_never_listed_by_another_name(host):
    everything = {**foreign(host, "*.cluster.local", "*.svc", "*.default"), "without_selector": ("*",)}
    decision = decided(alias(host), **everything)
    assert decision.outcome is Outcome.REJECTED
    assert "it leads to the Kubernetes API, which is never listed" in decision.reason
    assert decided(pointing(f"https://{host}:443"), **everything).outcome is Outcome.REJECTED


def test_the_kubernetes_api_is_never_listed_by_its_own_name():
    own = {"own": "component=apiserver provider=kubernetes", "listens": "https:443>6443", "namespace": "default"}
    for annotations in (CUSTOM, {"-type": "prometheus"}, {**CUSTOM, "-endpoint": "https://kubernetes.default.svc:443"}):
        one = service("kubernetes", **own, pods="", annotations=annotations)
        decision = decided(one, without_selector=("*",))
        assert decision.outcome is Outcome.REJECTED
        assert "never listed" in decision.reason
    assert detect(service("kubernetes", **own, pods="")).outcome is Outcome.IGNORED
    assert decided(alias("kubernetes.default.svc.k8s.example"), **foreign("*.example")).outcome is Outcome.CANDIDATE
    settings = Settings(cluster_domain="k8s.example", policy=Policy(**foreign("*.example")))
    assert detect(alias("kubernetes.default.svc.k8s.example"), settings).outcome is Outcome.REJECTED


def test_the_own_name_in_any_length_is_no_other_host():
    for host in ("api.shop", "api.shop.svc", "api.shop.svc.cluster.local"):
        assert detect(pointing(f"http://{host}:80")).endpoint == "http://api.shop.svc.cluster.local:80"


@pytest.mark.parametrize(
    ("one", "url"),
    [
        (alias("x.example.com", "443"), "https://x.example.com:443"),
        (alias("x.example.com", "8443>9999"), "https://x.example.com:8443"),
        (alias("x.example.com", "http:80 metrics:81"), "http://x.example.com:80"),
        (alias("x.example.com", annotations={**CUSTOM, "-port": "9000"}), "http://x.example.com:9000"),
        (alias("x.example.com", "a:1 b:2", annotations={**CUSTOM, "-port": "b"}), "http://x.example.com:2"),
        (alias("x.example.com", "tls:9443 b:2", annotations={**CUSTOM, "-port": "9443"}), "https://x.example.com:9443"),
        (alias("x.example.com", "", annotations={**CUSTOM, "-port": "9000"}), "http://x.example.com:9000"),
        (
            alias("x.example.com", "", annotations={**CUSTOM, "-port": "443", "-path": "/v1"}),
            "https://x.example.com:443/v1",
        ),
        (
            alias("x.example.com", "", annotations={**CUSTOM, "-endpoint": "https://api.shop.svc:9/v1"}),
            "https://x.example.com:9/v1",
        ),
        (
            alias("x.example.com", "", annotations={**CUSTOM, "-endpoint": "http://x.example.com:9"}),
            "http://x.example.com:9",
        ),
        (
            alias("x.example.com", "", annotations={**CUSTOM, "-endpoint": "http://y.example.com:9"}),
            "http://y.example.com:9",
        ),
        (alias("g.example.com", "3000", {"-type": "grafana"}), "http://g.example.com:3000"),
        (pointing("https://x.example.com:6/v1", listens="8080"), "https://x.example.com:6/v1"),
        (pointing("http://x.example.com:8080", listens="80>8080", cluster_ip="None"), "http://x.example.com:8080"),
        (pointing("http://x.example.com:81", pods=""), "http://x.example.com:81"),
    ],
)
def test_the_url_of_another_host(one, url):
    decision = decided(one, **foreign("*.example.com"))
    assert decision.endpoint == url, decision.reason


def test_an_alias_that_labels_show_to_be_a_product_is_taken_too():
    one = service("grafana", "app=grafana", "3000", "", type="ExternalName", external_name="g.example.com")
    assert decided(one, **foreign("g.example.com")).endpoint == "http://g.example.com:3000"
    assert "it looks like Grafana, but it is of type ExternalName" in detect(one).reason


@pytest.mark.parametrize("listens", ["", "a:1 b:2", "53@UDP"])
def test_an_alias_without_a_port_that_can_be_meant_needs_the_annotation(listens):
    decision = decided(alias("x.example.com", listens), **foreign("*.example.com"))
    assert decision.outcome is Outcome.REJECTED
    assert "annotation kubernaut.io/toolset-port is needed" in decision.reason
    decision = decided(alias("x.example.com", listens, {**CUSTOM, "-port": "web"}), **foreign("*.example.com"))
    assert decision.outcome is Outcome.REJECTED
    assert 'kubernaut.io/toolset-port is "web"' in decision.reason


def test_what_leads_outside_is_no_twin_of_what_is_made_alike():
    detector = Detector(catalog(), Settings(policy=Policy(**foreign("*.example.com"))))
    services = [
        service(name, "app=shared", "8080", "", annotations=CUSTOM, type="ExternalName", external_name=host)
        for name, host in (("a", "a.example.com"), ("b", "b.example.com"))
    ]
    services.append(service("c", "app=shared", "8080", "app=shared", annotations=CUSTOM))
    assert {decision.outcome for decision in detector.discover(services).values()} == {Outcome.CANDIDATE}


# --- Types ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("allowed", "type_name", "is_allowed"),
    [
        ([], "grafana", True),
        ([(("other",), ("loki",))], "grafana", True),
        ([(("shop",), ("loki",))], "grafana", False),
        ([(("shop",), ("loki",))], "loki", True),
        ([(("sh*",), ("loki",)), (("*op",), ("grafana",))], "grafana", True),
        ([(("sh*",), ("loki",)), (("*op",), ("grafana",))], "jaeger", False),
        ([(("shop",), ())], "grafana", False),
        ([(("*",), ("custom",))], "custom", True),
        ([(("*",), ("custom",))], "orders", True),
        ([(("*",), ("custom",))], "grafana", False),
        ([(("*",), ("grafana",))], "orders", False),
    ],
)
def test_types_can_be_allowed_by_namespace(allowed, type_name, is_allowed):
    grants = tuple(AllowedTypes(namespaces, types) for namespaces, types in allowed)
    decision = decided(service("api", "", "3000", annotations={"-type": type_name}), allowed_types=grants)
    assert decision.outcome is (Outcome.CANDIDATE if is_allowed else Outcome.REJECTED)
    assert is_allowed or f"not {type_name}" in decision.reason
    assert is_allowed or "policy.allowedTypes" in decision.reason


def test_a_type_that_is_not_allowed_is_refused_though_labels_show_it():
    grant = (AllowedTypes(("shop",), ("custom", "loki")),)
    decision = decided(service("grafana", **GRAFANA), allowed_types=grant)
    assert decision.reason == (
        "it looks like Grafana, but "
        "the setting policy.allowedTypes lets its namespace publish custom, loki, not grafana"
    )


def test_of_many_allowed_types_some_are_named():
    types = tuple(f"type-{number}" for number in range(100))
    decision = decided(service("grafana", **GRAFANA), allowed_types=(AllowedTypes(("*",), types),))
    assert "type-0, " in decision.reason
    assert ", ..., not grafana" in decision.reason
    assert len(decision.reason) < 250


@pytest.mark.parametrize(
    ("trusted", "types", "is_taken"),
    [
        ((), None, True),
        (("shop",), None, True),
        (("sho*",), None, True),
        (("monitoring", "*-system"), None, False),
        (("monitoring",), ("loki",), True),
        (("monitoring",), ("loki", "grafana"), False),
        (("monitoring",), (), True),
    ],
)
def test_some_types_are_taken_from_trusted_namespaces_only(trusted, types, is_taken):
    policy = {"trusted_namespaces": trusted} | ({} if types is None else {"trusted_types": types})
    decision = decided(service("grafana", **GRAFANA), **policy)
    assert decision.outcome is (Outcome.CANDIDATE if is_taken else Outcome.REJECTED)
    assert is_taken or "policy.trustedNamespaces" in decision.reason


def test_custom_among_the_trusted_types_stands_for_all_of_peoples_own():
    policy = {"trusted_namespaces": ("monitoring",), "trusted_types": ("custom",)}
    for type_name, outcome in (("orders", Outcome.REJECTED), ("custom", Outcome.REJECTED), ("mcp", Outcome.CANDIDATE)):
        assert decided(service("api", annotations={"-type": type_name}), **policy).outcome is outcome


def test_types_in_the_settings_that_do_not_exist_are_named():
    assert unknown_types(Settings(), catalog()) == []
    policy = Policy(
        allowed_types=(AllowedTypes(("*",), ("loki", "custom")), AllowedTypes(("*",), ("grafna",))),
        trusted_types=("prometheus", "zzz"),
    )
    types = {"promethues": ServiceTypeSettings(), "loki": ServiceTypeSettings(), "custom": ServiceTypeSettings()}
    first, second, third = unknown_types(Settings(policy=policy, service_types=types), catalog())
    assert first.startswith("policy.allowedTypes[1].types: there is no service type 'grafna'; did you mean 'grafana'?")
    assert second.startswith("policy.trustedTypes: there is no service type 'zzz'; there are alertmanager, custom,")
    assert third.startswith(
        "serviceTypes.promethues: there is no service type 'promethues'; did you mean 'prometheus'? There are "
    )


# --- The page -------------------------------------------------------------------------------------------------------

EXAMPLES = [block for block in blocks(DOCS / "policy.md") if block.language == "yaml"]


@pytest.mark.parametrize("block", EXAMPLES, ids=lambda block: f"line {block.line}")
def test_the_examples_of_the_page_are_settings(block, tmp_path):
    file = tmp_path / "settings.yaml"
    file.write_text(block.text)
    settings = load(file)
    assert settings != Settings()
    assert unknown_types(settings, catalog()) == []


def test_the_page_names_every_setting_of_the_policy():
    text = (DOCS / "policy.md").read_text()
    for model, prefix in ((Policy, "policy"), (Namespaces, "namespaces")):
        for field in msgspec.structs.fields(model):
            assert f"`{prefix}.{field.encode_name}`" in text
    assert PREFIX in text
