"""Labelled Services of real installations. A group is one cluster.

The files in ``corpus/`` say what each Service is; the header of ``services.yaml`` explains the fields.
"""

from collections import defaultdict
from functools import cache
from pathlib import Path

import msgspec
import pytest
import yaml

from dynamic_toolset.discovery.detector import Detector
from dynamic_toolset.kube.objects import Service
from dynamic_toolset.model import Outcome, ServiceKey
from dynamic_toolset.settings import Policy, Settings, YamlLoader

from .building import PREFIX, catalog

UNSUPPORTED = {"cortex", "kafka", "pyroscope", "victoriatraces", "zipkin"}

# The same chart, labels and ports as an installation without a base path: only the application's configuration differs.
INVISIBLE_PATH = {"otel-demo/jaeger": "/jaeger/ui", "otel-demo/grafana": "/grafana"}

# What would be found, but is refused because it shows no selector: it was made by these, which give it one that the
# source of the corpus does not say.
NO_SELECTOR_SHOWN = {
    "jaeger-operator-cr/simplest-query": "Jaeger operator",
    "jaeger-operator-cr/openshift-jaeger-query": "Jaeger operator",
    "eck/quickstart-es-default": "ECK",
    "vm-operator-cr/vmsingle-main": "VictoriaMetrics operator",
    "vm-operator-cr/vmselect-main": "VictoriaMetrics operator",
    "vm-operator-cr/vmalertmanager-main": "VictoriaMetrics operator",
    "vm-operator-cr/vlsingle-main": "VictoriaMetrics operator",
    "rabbitmq-operator/hello-world": "RabbitMQ operator",
    "rabbitmq-operator/tls-only": "RabbitMQ operator",
    "minio-tenant/prometheus-hl-svc": "MinIO operator",
    "gloo/glooe-prometheus-server": "the chart of Gloo",
    "plain/prometheus-named-port": "an excerpt of a manifest",
    "excerpt-prom-b/prometheus-service": "an excerpt of a manifest",
}
NO_SELECTOR = {
    "tutorial-external-prometheus/prometheus-service": "leads to a Prometheus outside, by hand-made Endpoints"
}

# What no rule finds, and why.
MISSED = {
    "graylog/opensearch-cluster-master": "an environment variable switches TLS off",
    "graylog/opensearch-cluster-master-headless": "an environment variable switches TLS off",
    "openshift-3/alertmanager": "the labels of its Pods say Prometheus, which is one container of several",
    "death-star-hotel/jaeger-out": "a label that is used nowhere else (app-name)",
    "death-star-social/jaeger-out": "a label that is used nowhere else (app-name)",
    "alertmanager-1/alerts-alertmanager-headless": "a duplicate whose target port has a name, and another number",
    "bitnami-rabbitmq-12-port-80/broker-headless": "a duplicate whose target port has a name, and another number",
    "bitnami-opensearch-tls/logs-opensearch": "a value of the chart switches TLS on, and no Service shows it",
    "elastic-7-node-groups/logs-client": "Elastic's chart speaks HTTPS since version 8, which no label tells from 7",
    "elastic-7-node-groups/logs-master": "Elastic's chart speaks HTTPS since version 8, which no label tells from 7",
    "elastic-7-node-groups/logs-master-headless": "Elastic's chart speaks HTTPS since version 8, not in version 7",
    "jaeger-0-elasticsearch/elasticsearch-master": "Elastic's chart speaks HTTPS since version 8, not in version 7",
    "jaeger-0-elasticsearch/elasticsearch-master-headless": "Elastic's chart speaks HTTPS since version 8, not in 7",
    "grafana-renamed/ui": "nameOverride puts another name in place of the product's, on Service and Pods",
    "istio-1-4/tracing": "a second entrance to the same Pods, on another port",
    "zalando-es-operator/es8-master": "the labels of its Pods name no product",
    "d-uzlov-k8s-homelab/vlogs-server": "nameOverride puts another name in place of the product's, on Service and Pods",
    "lsst-it-elk-k8s/elasticsearch": "Elastic's chart speaks HTTPS since version 8, which no label tells from 7",
    "lsst-it-elk-k8s/elasticsearch-headless": "Elastic's chart speaks HTTPS since version 8, not in version 7",
    "excerpt-jaeger-f/jaeger-collector": "it is called after a part that answers no query, and has the query port too",
    "excerpt-vm-b/my-bench-prometheus-benchmark-vmsingle": "a label that is used nowhere else (job)",
    "excerpt-am-d/armo-alertmanager": "the name of the product stands in the middle of the label",
    "excerpt-am-e/armo-alertmanager": "the labels of its Pods name another product",
    "excerpt-gr-d/grafana-service-xfusion": "the name of the product stands at the beginning of the label",
}


@cache
def corpus():
    groups = defaultdict(list)
    for file in ("services.yaml", "more.yaml", "charts.yaml", "manifests.yaml"):
        for entry in yaml.load((Path(__file__).parent / "corpus" / file).read_bytes(), YamlLoader):
            groups[entry["group"]].append((entry["id"], msgspec.convert(entry["service"], Service), entry["expect"]))
    return dict(groups)


@cache
def detector():
    """Return one that takes Services without selector, as not every source shows it, and the whole corpus at once."""
    return Detector(catalog(), Settings(policy=Policy(without_selector=("*",), max_in_all=2000)))


def supported(name):
    return "none" if name in UNSUPPORTED else name


def complaint(identifier, decision, expect):
    """Return what is wrong with a decision, or None."""
    got, want = decision.type or "none", supported(expect["type"])
    accepted = {want, *(supported(name) for name in expect.get("accept", ()))}
    url = expect["url"]
    if got not in accepted:
        problem = "type"
    elif got == "none":
        return None
    elif identifier not in INVISIBLE_PATH and got == want and decision.endpoint != url:
        problem = "URL"
    elif (decision.outcome is Outcome.DUPLICATE) != ("twin_of" in expect):
        problem = "duplicate or not"
    else:
        return None
    return (
        f"{identifier}: {problem}\n  expected {want} {url} twin of {expect.get('twin_of')}"
        f"\n  got      {got} {decision.endpoint} {decision.outcome}: {decision.reason}"
    )


@pytest.mark.parametrize("group", corpus())
def test_every_service_of_an_installation_is_what_it_is(group):
    entries = corpus()[group]
    decisions = detector().discover(service for _, service, _ in entries)
    found = (
        complaint(identifier, decisions[ServiceKey.of(one.metadata.key)], expect) for identifier, one, expect in entries
    )
    problems = [problem for problem in found if problem]
    unexpected = [problem for problem in problems if problem.partition(":")[0] not in MISSED]
    assert not unexpected, "\n" + "\n".join(unexpected)
    assert len(problems) == sum(identifier in MISSED for identifier, _, _ in entries), "found what is listed as missed"


def test_precision_and_recall():
    found = right = wanted = 0
    for entries in corpus().values():
        decisions = detector().discover(service for _, service, _ in entries)
        for _, one, expect in entries:
            decision = decisions[ServiceKey.of(one.metadata.key)]
            accepted = {supported(name) for name in (expect["type"], *expect.get("accept", ()))}
            wanted += "none" not in accepted
            found += decision.type is not None
            right += decision.type in accepted
    print(f"{wanted} backends are there; {found} Services were found, {right} rightly")
    assert right == found
    assert right >= wanted >= 80


def test_what_has_no_selector_is_refused_by_default_and_nothing_else():
    refused = set()
    for entries in corpus().values():
        services = [one for _, one, _ in entries]
        everything, default = (one.discover(services) for one in (detector(), Detector(catalog(), Settings())))
        for identifier, one, _ in entries:
            key = ServiceKey.of(one.metadata.key)
            if everything[key].type != default[key].type:
                refused.add(identifier)
                assert default[key].outcome is Outcome.REJECTED
                assert "policy.withoutSelector" in default[key].reason
                assert not one.spec.selector
    assert refused == NO_SELECTOR_SHOWN.keys() | NO_SELECTOR.keys()


@pytest.mark.parametrize("identifier", INVISIBLE_PATH)
def test_a_path_that_no_service_shows_can_be_annotated(identifier):
    ((one, expect),) = [
        (one, expect) for entries in corpus().values() for name, one, expect in entries if name == identifier
    ]
    annotated = replaced(one, annotations={f"{PREFIX}-path": INVISIBLE_PATH[identifier]})
    assert detector().detect(annotated).endpoint == expect["url"]


# --- The rules do not hang on the names that somebody chose ---------------------------------------------------------


def replaced(one, spec=None, **metadata):
    return Service(msgspec.structs.replace(one.metadata, **metadata), msgspec.structs.replace(one.spec, **(spec or {})))


def decided(services):
    """Return outcome, type and URL by position, the names in the URL blanked out."""
    services = list(services)
    decisions = detector().discover(services)
    assert len(decisions) == len(services)
    shown = []
    for one in services:
        decision = decisions[ServiceKey.of(one.metadata.key)]
        host = f"{one.metadata.name}.{one.metadata.namespace}.svc"
        shown.append((decision.outcome, decision.type, (decision.endpoint or "").replace(host, "*")))
    return shown


def release_of(one):
    for labels in (one.metadata.labels or {}, one.spec.selector or {}):
        for label in ("app.kubernetes.io/instance", "release"):
            if label in labels:
                return labels[label]
    return None


CHOSEN_BY_THE_CHART = {"app.kubernetes.io/name", "app.kubernetes.io/component", "app", "component", "k8s-app", "chart"}


def renamed(one):
    """Install the same chart as another release, in another namespace."""
    release = release_of(one)
    namespace = f"team-a-{one.metadata.namespace}"
    if release is None:
        return replaced(one, namespace=namespace)

    def under_new_name(labels):
        return labels and {
            label: f"blue-{value}"
            if label not in CHOSEN_BY_THE_CHART and (value == release or value.startswith(f"{release}-"))
            else value
            for label, value in labels.items()
        }

    return replaced(
        one,
        name=f"blue-{one.metadata.name}",
        namespace=namespace,
        labels=under_new_name(one.metadata.labels),
        spec={"selector": under_new_name(one.spec.selector)},
    )


def with_ports_reversed(one):
    return replaced(one, spec={"ports": (one.spec.ports or ())[::-1]})


def without_version(one):
    gone = {"helm.sh/chart", "app.kubernetes.io/version", "heritage"}
    labels = {
        label: value
        for label, value in (one.metadata.labels or {}).items()
        if label not in gone and (label, value) != ("app.kubernetes.io/managed-by", "Helm")  # an operator's name stays
    }
    return replaced(one, labels=labels)


@pytest.mark.parametrize("change", [renamed, with_ports_reversed, without_version])
@pytest.mark.parametrize("group", corpus())
def test_names_order_and_versions_change_nothing(group, change):
    services = [one for _, one, _ in corpus()[group]]
    assert decided(change(one) for one in services) == decided(services)


@pytest.mark.parametrize("group", corpus())
def test_the_labels_of_the_pods_are_enough(group):
    """A Service without labels of its own is known by its selector, unless its own labels were all there was."""
    services = [one for _, one, _ in corpus()[group] if one.spec.selector]
    bare = [replaced(one, labels=None) for one in services]
    for before, after in zip(decided(services), decided(bare), strict=True):
        assert after[1] in {before[1], None}


def test_installations_do_not_disturb_each_other():
    together, apart = [], []
    for number, entries in enumerate(corpus().values()):
        moved = [replaced(one, namespace=f"{one.metadata.namespace}-{number}") for _, one, _ in entries]
        apart += decided(moved)
        together += moved
    assert decided(together) == apart
