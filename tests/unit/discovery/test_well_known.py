"""How products are deployed elsewhere: charts, operators and manifests that the corpus does not hold."""

import msgspec
import pytest

from dynamic_toolset.model import Outcome

from .building import detect, discover, headless, service

SERVING_CERT = "service.beta.openshift.io/serving-cert-secret-name"


def on_openshift(one):
    metadata = msgspec.structs.replace(one.metadata, annotations={SERVING_CERT: f"{one.metadata.name}-tls"})
    return msgspec.structs.replace(one, metadata=metadata)


BACKENDS = {
    "prometheus of OpenShift": (
        on_openshift(
            service(
                "prometheus-k8s",
                ".name=prometheus .component=prometheus .instance=k8s .part-of=openshift-monitoring",
                "web:9091>web metrics:9092>metrics",
                ".name=prometheus .component=prometheus .instance=k8s .part-of=openshift-monitoring",
            )
        ),
        "prometheus https://prometheus-k8s:9091",
    ),
    "thanos of OpenShift": (
        on_openshift(
            service(
                "thanos-querier",
                ".name=thanos-query .component=query-layer .instance=thanos-querier",
                "web:9091>web tenancy:9092>tenancy tenancy-rules:9093>tenancy-rules metrics:9094>metrics",
                ".name=thanos-query .component=query-layer .instance=thanos-querier",
            )
        ),
        "thanos https://thanos-querier:9091",
    ),
    "alertmanager of OpenShift": (
        on_openshift(
            service(
                "alertmanager-main",
                ".name=alertmanager .component=alert-router .instance=main",
                "web:9094>web tenancy:9092>tenancy metrics:9097>metrics",
                ".name=alertmanager .component=alert-router .instance=main",
            )
        ),
        "alertmanager https://alertmanager-main:9094",
    ),
    "alertmanager of Advanced Cluster Management": (
        on_openshift(
            service(
                "alertmanager",
                "alertmanager=observability",
                "web:9093>web oauth-proxy:9095>oauth-proxy",
                "alertmanager=observability app=multicluster-observability-alertmanager",
            )
        ),
        "alertmanager https://alertmanager:9095",
    ),
    "query-frontend of a LokiStack": (
        on_openshift(
            service(
                "logging-loki-query-frontend-http",
                ".name=lokistack .component=query-frontend .instance=logging-loki",
                "metrics:3100",
                ".name=lokistack .component=query-frontend .instance=logging-loki",
            )
        ),
        "loki https://logging-loki-query-frontend-http:3100",
    ),
    "elasticsearch of OpenShift": (
        service(
            "elasticsearch",
            "cluster-name=elasticsearch",
            "elasticsearch:9200>restapi",
            "cluster-name=elasticsearch es-node-client=true",
        ),
        "elasticsearch https://elasticsearch:9200",
    ),
    "fluentd-elasticsearch addon": (
        service("elasticsearch-logging", "k8s-app=elasticsearch-logging", "9200>db", "k8s-app=elasticsearch-logging"),
        "elasticsearch http://elasticsearch-logging:9200",
    ),
    "opensearch chart": (
        service(
            "opensearch-cluster-master",
            ".name=opensearch .instance=logs .component=opensearch-cluster-master",
            "http:9200 transport:9300 metrics:9600",
            ".name=opensearch .instance=logs",
        ),
        "opensearch https://opensearch-cluster-master:9200",
    ),
    "opensearch operator": (
        service(
            "logs",
            "opensearch.org/opensearch-cluster=logs",
            "http:9200/https transport:9300/https metrics:9600/https rca:9650",
            "opensearch.org/opensearch-cluster=logs",
        ),
        "opensearch https://logs:9200",
    ),
    "opensearch operator with TLS switched off": (
        service("logs", "opster.io/opensearch-cluster=logs", "http:9200/http", "opster.io/opensearch-cluster=logs"),
        "opensearch http://logs:9200",
    ),
    "prometheus of Linkerd viz": (
        service(
            "prometheus",
            "component=prometheus linkerd.io/extension=viz",
            "admin:9090",
            "component=prometheus linkerd.io/extension=viz",
        ),
        "prometheus http://prometheus:9090",
    ),
    "prometheus of Calico Enterprise": (
        service("calico-node-prometheus", "", "web:9090>web", "prometheus=calico-node-prometheus"),
        "prometheus http://calico-node-prometheus:9090",
    ),
    "prometheus of Cilium's example": (
        service("prometheus", "k8s-app=prometheus", "webui:9090", "k8s-app=prometheus"),
        "prometheus http://prometheus:9090",
    ),
    "prometheus of OpenFaaS": (
        service("prometheus", "app=openfaas component=prometheus", "9090", "app=prometheus"),
        "prometheus http://prometheus:9090",
    ),
    "prometheus of a manifest that everybody copies": (
        service("prometheus-service", "", "8080>9090", "app=prometheus-server", type="NodePort"),
        "prometheus http://prometheus-service:8080",
    ),
    "prometheus by kompose": (
        service("prometheus", "io.kompose.service=prometheus", "9090:9090>9090", "io.kompose.service=prometheus"),
        "prometheus http://prometheus:9090",
    ),
    "kube-prometheus before recommended labels": (
        service("prometheus-k8s", "prometheus=k8s", "web:9090>web", "app=prometheus prometheus=k8s"),
        "prometheus http://prometheus-k8s:9090",
    ),
    "grafana-operator": (
        service("main-service", ".managed-by=grafana-operator", "grafana:3000>grafana-http", "app=main"),
        "grafana http://main-service:3000",
    ),
    "grafana behind oauth-proxy": (
        service("grafana", "app=grafana", "https:3001>https", "app=grafana"),
        "grafana https://grafana:3001",
    ),
    "thanos of Bitnami": (
        service(
            "thanos-query",
            ".name=thanos .component=query .instance=t",
            "http:9090>http",
            ".name=thanos .component=query",
        ),
        "thanos http://thanos-query:9090",
    ),
    "mimir 5 gateway": (
        service(
            "mimir-gateway",
            ".name=mimir .component=gateway .instance=m",
            "http-metrics:80>http-metrics legacy-http-metrics:8080>http-metrics",
            ".name=mimir .component=gateway .instance=m",
        ),
        "mimir http://mimir-gateway:80/prometheus",
    ),
    "vmselect of the chart": (
        headless(
            "vm-victoria-metrics-cluster-vmselect",
            ".name=victoria-metrics-cluster .instance=vm app=vmselect",
            "http:8481>http",
            ".name=victoria-metrics-cluster .instance=vm app=vmselect",
        ),
        "victoriametrics http://vm-victoria-metrics-cluster-vmselect:8481/select/0/prometheus",
    ),
    "a chart whose own name ends like an exporter's": (
        service("victoria-metrics", ".name=victoria-metrics", "http:8428", ".name=victoria-metrics"),
        "victoriametrics http://victoria-metrics:8428",
    ),
    "jaeger chart 0": (
        service(
            "jaeger-query",
            ".name=jaeger .component=query",
            "query:80>query grpc:16685>grpc",
            ".name=jaeger .component=query",
        ),
        "jaeger http://jaeger-query:80",
    ),
    "loki-stack": (
        service("loki", "app=loki release=loki", "http-metrics:3100>http-metrics", "app=loki release=loki"),
        "loki http://loki:3100",
    ),
    "tempo 1": (
        service(
            "tempo",
            ".name=tempo .instance=t",
            "tempo-prom-metrics:3200>3200 grpc-tempo-otlp:4317",
            ".name=tempo .instance=t",
        ),
        "tempo http://tempo:3200",
    ),
    "rabbitmq of Bitnami": (
        service(
            "mq-rabbitmq",
            ".name=rabbitmq .instance=mq",
            "amqp:5672>amqp epmd:4369 dist:25672 http-stats:15672>stats metrics:9419",
            ".name=rabbitmq .instance=mq",
        ),
        "rabbitmq http://mq-rabbitmq:15672",
    ),
    "victoria-logs-single": (
        headless(
            "vl-victoria-logs-single-server",
            ".name=victoria-logs-single .component=server .instance=vl",
            "http:9428>http",
            "app=server .name=victoria-logs-single .instance=vl",
        ),
        "victorialogs http://vl-victoria-logs-single-server:9428",
    ),
}


@pytest.mark.parametrize("name", BACKENDS)
def test_is_a_backend(name):
    one, expected = BACKENDS[name]
    decision = detect(one)
    shown = f"{decision.type} {decision.endpoint}".replace(".shop.svc.cluster.local", "")
    assert shown == expected, decision.reason


NOT_A_BACKEND = {
    "user workload prometheus without its API": service(
        "prometheus-user-workload", ".name=prometheus .component=prometheus", "metrics:9091>metrics", ".name=prometheus"
    ),
    "thanos sidecar": service(
        "prometheus-k8s-thanos-sidecar",
        ".name=prometheus .component=thanos-sidecar",
        "thanos-proxy:10902",
        ".name=prometheus",
    ),
    "thanos ruler": service("thanos-ruler", ".name=thanos-ruler", "web:9091>web grpc:10901", ".name=thanos-ruler"),
    "thanos gRPC": service("t-query-grpc", ".name=thanos .component=query", "grpc:10901>grpc", ".name=thanos"),
    "thanos bucketweb": service("t-bucketweb", ".name=thanos .component=bucketweb", "http:8080", ".name=thanos"),
    "GMP frontend": service("frontend", "", "web:9090", "app=frontend"),
    "port and port name alone": service("web", "app=shop", "prometheus:9090 web:3000", "app=shop"),
    "name alone": service("prometheus", "", "http:8080", ""),
    "name and port, but other Pods": service("prometheus", "", "9090", "app=shop"),
    "label for scraping, other Pods": service("shop", "app=prometheus", "metrics:9090", "app=shop"),
    "exporter of elasticsearch": service(
        "es-metrics", ".name=elasticsearch", "http:9114 es:9200", ".name=elasticsearch"
    ),
    "loki canary": service("loki-canary", "app=loki", "http-metrics:3500", "app=loki"),
    "loki memberlist": headless("loki-memberlist", "app=loki", "http:7946>http-memberlist", "app=loki"),
    "mimir gossip": headless(
        "m-gossip-ring", ".name=grafana-mimir .component=mimir", "http:7946", ".name=grafana-mimir"
    ),
    "mimir ruler's querier": service(
        "m-ruler-querier", ".name=mimir .component=ruler-querier", "http-metrics:8080", ""
    ),
    "jaeger collector": service("j-collector", "app=jaeger", "http:14268 zipkin:9411", "app=jaeger"),
    "tempo vulture": service("tempo-vulture", ".name=tempo .component=vulture", "http:3200", ".name=tempo"),
    "grafana agent": service("grafana-agent", ".name=grafana-agent", "http-metrics:80", ".name=grafana-agent"),
    "grafana renderer": service("grafana-renderer", "app=grafana", "http:8081", "app=grafana"),
    "grafana gossip": headless("grafana-alerting", "app=grafana", "gossip:9094", "app=grafana"),
    "mcp server": service("grafana-mcp", "app=grafana-mcp", "mcp-http:8000/kgateway.dev/mcp", "app=grafana-mcp"),
    "tempo-operator's name in another word": service("temporal-web", ".name=temporal", "http:3200", ".name=temporal"),
    "agent of VictoriaMetrics": service("vmagent-main", ".name=vmagent", "http:8429", ".name=vmagent"),
    "UDP only": service("prometheus", "app=prometheus", "9090@UDP", "app=prometheus"),
    "not HTTP by appProtocol": service("prometheus", "app=prometheus", "web:9090/grpc", "app=prometheus"),
    "no ports": service("prometheus", "app=prometheus", "", "app=prometheus"),
    "kafka": service("kafka", ".name=kafka", "tcp-client:9092", ".name=kafka"),
    "cortex": service("c-nginx", ".name=cortex .component=nginx", "http-metrics:80", ".name=cortex"),
}


@pytest.mark.parametrize("name", NOT_A_BACKEND)
def test_is_no_backend(name):
    decision = detect(NOT_A_BACKEND[name])
    assert decision.outcome is Outcome.IGNORED, decision.reason
    assert decision.candidate is None


@pytest.mark.parametrize(
    ("one", "reason"),
    [
        (
            NOT_A_BACKEND["loki canary"],
            "it has labels of Loki, but a Service whose name ends with -canary is not its query API",
        ),
        (NOT_A_BACKEND["tempo vulture"], "it has labels of Tempo, but component vulture is not its query API"),
        (
            service("write", "app=jaeger", "http:14268"),
            "it has labels of Jaeger, but no port of its query API (16686, https-query:443, http-query:80, query:80)",
        ),
        (service("shop", "app=shop"), "it has no toolset annotation, and no labels or name of a known service type"),
    ],
)
def test_the_reason_says_what_was_missing(one, reason):
    assert detect(one).reason == reason


def test_two_products_at_once_are_left_to_their_owner():
    decision = detect(service("both", "", "grafana:3000 web:9090", "app=grafana k8s-app=prometheus"))
    assert decision.outcome is Outcome.IGNORED
    assert "Grafana and Prometheus" in decision.reason
    assert "kubernaut.io/toolset-type" in decision.reason


def test_a_gateway_for_tenants_waits_for_its_path():
    own = ".name=lokistack .component=lokistack-gateway .instance=logs"
    gateway = on_openshift(service("logs-gateway-http", own, "public:8080>public metrics:8083", own))
    rejected = detect(gateway)
    assert rejected.outcome is Outcome.REJECTED
    assert "kubernaut.io/toolset-path" in rejected.reason
    annotations = {**(gateway.metadata.annotations or {}), "kubernaut.io/toolset-path": "/api/logs/v1/application"}
    metadata = msgspec.structs.replace(gateway.metadata, annotations=annotations)
    decision = detect(msgspec.structs.replace(gateway, metadata=metadata))
    assert decision.endpoint == "https://logs-gateway-http.shop.svc.cluster.local:8080/api/logs/v1/application"


def test_external_name_is_refused_where_it_would_count():
    outside = service("db", "app=prometheus", "9090", "", type="ExternalName", external_name="metrics.example.com")
    assert detect(outside).outcome is Outcome.REJECTED
    assert "ExternalName" in detect(outside).reason
    other = service("db", "app=shop", "9090", "", type="ExternalName", external_name="metrics.example.com")
    assert detect(other).outcome is Outcome.IGNORED


def test_a_cluster_of_the_opensearch_operator_is_listed_once():
    own = "opster.io/opensearch-cluster=logs"
    decisions = discover(
        service("logs", own, "http:9200 transport:9300", own),
        headless("logs-nodes", own, "http:9200 transport:9300", f"{own} opster.io/opensearch-nodepool=nodes"),
        headless("logs-discovery", own, "transport:9300", own),
    )
    assert [decision.outcome.value for decision in decisions.values()] == ["candidate", "duplicate", "ignored"]
