"""What the owner of a Service can ask for, and what is refused."""

import pytest

from dynamic_toolset.discovery.annotations import Broken, Request, quoted, request
from dynamic_toolset.model import Outcome
from dynamic_toolset.settings import Namespaces, Settings

from .building import PREFIX, detect, headless, service

ON = {"": "enabled"}


def annotated(listens="http:8080", **annotations):
    return service("api", "app=shop", listens, "app=shop", annotations={**ON, **named(annotations)})


def named(annotations):
    return {f"-{key.replace('_', '-')}": value for key, value in annotations.items()}


@pytest.mark.parametrize("value", ["disabled", "false"])
@pytest.mark.parametrize("others", [{}, {"-type": "grafana"}, {"-port": "{{ nonsense }}", "-tpye": "x"}])
def test_opting_out_wins_over_everything(value, others):
    one = service("grafana", "app=grafana", "3000", "app=grafana", annotations={"": value, **others})
    decision = detect(one)
    assert decision.outcome is Outcome.IGNORED
    assert f"kubernaut.io/toolset is {value}" in decision.reason


@pytest.mark.parametrize("value", ["enabled", "true"])
def test_opting_in_keeps_what_was_detected(value):
    one = service("grafana", "app=grafana", "http:80>3000", "app=grafana", annotations={"": value})
    assert (detect(one).type, detect(one).endpoint) == ("grafana", "http://grafana.shop.svc.cluster.local:80")


def test_opting_in_without_a_type_needs_something_else_to_say_it():
    decision = detect(annotated())
    assert decision.outcome is Outcome.REJECTED
    assert decision.reason == "annotation kubernaut.io/toolset-type is needed: nothing else says what it is"
    almost = detect(service("p", "app=prometheus", "metrics:7000", "app=prometheus", annotations=ON))
    assert "no port of its query API" in almost.reason


@pytest.mark.parametrize(
    ("annotations", "type_name", "url"),
    [
        ({"type": "grafana"}, "grafana", "http://api.shop.svc.cluster.local:8080"),
        ({"type": "custom"}, "custom", "http://api.shop.svc.cluster.local:8080"),
        ({"type": "orders"}, "orders", "http://api.shop.svc.cluster.local:8080"),
        ({"type": "mcp"}, "mcp", "http://api.shop.svc.cluster.local:8080/mcp"),
        ({"type": "mimir"}, "mimir", "http://api.shop.svc.cluster.local:8080/prometheus"),
        ({"type": "mimir", "path": "/"}, "mimir", "http://api.shop.svc.cluster.local:8080"),
        ({"type": "grafana", "path": "/grafana/"}, "grafana", "http://api.shop.svc.cluster.local:8080/grafana"),
        ({"type": "grafana", "scheme": "https"}, "grafana", "https://api.shop.svc.cluster.local:8080"),
        ({"type": "custom", "port": "8080"}, "custom", "http://api.shop.svc.cluster.local:8080"),
        ({"type": "custom", "port": "http"}, "custom", "http://api.shop.svc.cluster.local:8080"),
        (
            {"type": "custom", "endpoint": "https://api.shop.svc:8080/v1"},
            "custom",
            "https://api.shop.svc.cluster.local:8080/v1",
        ),
        ({"type": "custom", "endpoint": "http://api.shop:8080"}, "custom", "http://api.shop.svc.cluster.local:8080"),
    ],
)
def test_the_owner_says_what_it_is(annotations, type_name, url):
    decision = detect(annotated(**annotations))
    assert (decision.outcome, decision.type, decision.endpoint) == (Outcome.CANDIDATE, type_name, url), decision.reason


def test_a_type_alone_is_enough():
    assert detect(service("api", annotations={"-type": "custom"})).outcome is Outcome.CANDIDATE


def test_a_type_that_was_detected_too_keeps_the_detected_port():
    one = service("s", "app=vmselect", "http:80 admin:9000", "app=vmselect", annotations={"-type": "victoriametrics"})
    assert detect(one).endpoint == "http://s.shop.svc.cluster.local:80/select/0/prometheus"


def test_a_path_alone_corrects_what_was_detected():
    one = service("grafana", "app=grafana", "3000", "app=grafana", annotations={"-path": "/grafana"})
    assert detect(one).endpoint == "http://grafana.shop.svc.cluster.local:3000/grafana"


def test_name_and_health_path_are_taken_over():
    candidate = detect(annotated(type="grafana", name="team-dashboards", health_path="/up")).candidate
    assert candidate is not None
    assert candidate.name == "team-dashboards"
    assert (candidate.check.path, candidate.check.root) == ("/up", True)
    assert candidate.check.identity, "a Grafana must still prove to be one"


def test_the_rules_of_the_type_say_where_it_listens():
    one = service("select", "", "grpc:9000 http:8481 admin:8482", annotations={"-type": "victoriametrics"})
    assert detect(one).endpoint == "http://select.shop.svc.cluster.local:8481/select/0/prometheus"
    secure = service("mq", "", "amqps:5671 management-tls:15671", annotations={"-type": "rabbitmq"})
    assert detect(secure).endpoint == "https://mq.shop.svc.cluster.local:15671"


@pytest.mark.parametrize(
    ("listens", "port"),
    [("7000", 7000), ("metrics:7001 http:7000", 7000), ("a:1 web:2", 2), ("a:1 api:2", 2), ("dns:53@UDP x:7", 7)],
)
def test_an_unknown_api_listens_on_the_only_port_or_the_one_that_is_called_so(listens, port):
    assert detect(annotated(listens, type="custom")).endpoint == f"http://api.shop.svc.cluster.local:{port}"


def test_several_ports_without_a_hint_need_the_annotation():
    decision = detect(annotated("a:1000 b:2000", type="custom"))
    assert decision.outcome is Outcome.REJECTED
    assert "annotation kubernaut.io/toolset-port is needed" in decision.reason
    assert "1000 (a), 2000 (b)" in decision.reason


def test_a_headless_service_is_asked_at_the_port_of_its_pods():
    one = headless("api", "", "http:80>8080", annotations={"-type": "custom", "-port": "8080"})
    assert detect(one).endpoint == "http://api.shop.svc.cluster.local:8080"


BROKEN = [
    ({"": "yes"}, 'kubernaut.io/toolset is "yes"', "enabled, true, disabled or false"),
    ({"-type": "Grafana"}, 'kubernaut.io/toolset-type is "Grafana"', "lower-case letters"),
    ({"-type": "x" * 41}, "kubernaut.io/toolset-type", "at most 40 characters"),
    ({"-type": "grafana\n"}, 'kubernaut.io/toolset-type is "grafana?"', "lower-case letters"),
    ({"-name": "{{ env.SECRET }}"}, 'kubernaut.io/toolset-name is "?? env.SECRET ??"', "lower-case letters"),
    ({"-scheme": "ftp"}, 'kubernaut.io/toolset-scheme is "ftp"', "http or https"),
    ({"-port": "0"}, 'kubernaut.io/toolset-port is "0"', "1 to 65535"),
    ({"-port": "99999"}, 'kubernaut.io/toolset-port is "99999"', "1 to 65535"),
    ({"-port": "٣"}, 'kubernaut.io/toolset-port is "?"', "1 to 65535"),
    ({"-type": "custom", "-port": "9999"}, 'kubernaut.io/toolset-port is "9999"', "8080 (http)"),
    ({"-type": "custom", "-port": "grpc"}, 'kubernaut.io/toolset-port is "grpc"', "8080 (http)"),
    ({"-path": "prometheus"}, "kubernaut.io/toolset-path", "a path of letters"),
    ({"-path": "/a/../b"}, "kubernaut.io/toolset-path", "without '..'"),
    ({"-path": "/a/./b"}, "kubernaut.io/toolset-path", "without '..', '.'"),
    ({"-path": "//evil"}, "kubernaut.io/toolset-path", "without '..', '.' and '//'"),
    ({"-path": "/a?b#c"}, "kubernaut.io/toolset-path", "a path of letters"),
    ({"-path": "/a\n"}, "kubernaut.io/toolset-path", "a path of letters"),
    ({"-path": "/" + "a" * 300}, "kubernaut.io/toolset-path", "a path of letters"),
    ({"-health-path": "/{{ env.X }}"}, "kubernaut.io/toolset-health-path", "a path of letters"),
    ({"-endpoint": "api:8080"}, "kubernaut.io/toolset-endpoint", "a full URL of this Service"),
    ({"-endpoint": "http://api.shop.svc"}, "kubernaut.io/toolset-endpoint", "with its port"),
    ({"-endpoint": "http://u:p@api.shop.svc:8080"}, "kubernaut.io/toolset-endpoint", "a full URL"),
    ({"-endpoint": "http://api.shop.svc:8080/../x"}, "kubernaut.io/toolset-endpoint", "a full URL"),
    ({"-endpoint": "http://api.shop.svc:99999"}, "kubernaut.io/toolset-endpoint", "a full URL"),
    ({"-type": "custom", "-endpoint": "http://evil.example.com:80"}, "evil.example.com", "policy.foreignEndpoints"),
    ({"-type": "custom", "-endpoint": "http://169.254.169.254:8080"}, "169.254.169.254", "not to api.shop.svc"),
    ({"-type": "custom", "-endpoint": "http://api.other.svc:8080"}, "api.other.svc", "not to api.shop.svc"),
    ({"-type": "custom", "-endpoint": "http://api.shop.svc:22"}, 'toolset-endpoint is "22"', "8080 (http)"),
    ({"-endpoint": "http://api.shop.svc:8080", "-port": "8080"}, "toolset-endpoint", "toolset-port"),
    (
        {"-tpye": "grafana"},
        'annotation "kubernaut.io/toolset-tpye" is not known',
        "did you mean kubernaut.io/toolset-type?",
    ),
    ({"s": "enabled"}, 'annotation "kubernaut.io/toolsets" is not known', "did you mean kubernaut.io/toolset?"),
    ({"-path": "/x"}, "annotation kubernaut.io/toolset-type is needed", "nothing else says what it is"),
]


@pytest.mark.parametrize(("annotations", "names", "says"), BROKEN)
def test_broken_annotations_are_refused_with_what_they_should_be(annotations, names, says):
    decision = detect(service("api", "app=shop", "http:8080", "app=shop", annotations=annotations))
    assert decision.outcome is Outcome.REJECTED
    assert names in decision.reason
    assert says in decision.reason
    assert decision.reason.isascii()
    assert decision.reason.isprintable()


def test_all_problems_are_told_at_once():
    reason = request({f"{PREFIX}-type": "NO", f"{PREFIX}-port": "NO", f"{PREFIX}-x": "NO"})
    assert isinstance(reason, Broken)
    assert reason.reason.count("; ") == 2
    assert "more" not in reason.reason


@pytest.mark.parametrize("unknown", [0, 3, 5, 60_000])
def test_of_many_problems_five_are_told_and_the_others_counted(unknown):
    wrong = {f"{PREFIX}-{key}": "NO" for key in ("type", "name", "port", "path", "health-path", "scheme")}
    wrong |= {f"{PREFIX}-x{number:05}": "" for number in range(unknown)}
    reason = request(wrong)
    assert isinstance(reason, Broken)
    told = reason.reason.split("; ")
    assert len(told) == 6
    assert told[5] == f"and {len(wrong) - 5} more"


def test_a_custom_type_close_to_a_known_one_is_pointed_out():
    assert "not prometheus" in detect(annotated(type="promethues")).reason


@pytest.mark.parametrize(
    ("one", "reason"),
    [
        (service("api", "", "dns:53@UDP", annotations={"-type": "custom"}), "no TCP port"),
        (service("api", "", "grpc:53/grpc", annotations={"-type": "custom"}), "no TCP port"),
        (service("API", annotations={"-type": "custom"}), "not a DNS label"),
        (service("api", namespace="", annotations={"-type": "custom"}), "not a DNS label"),
        (service("api", type="ExternalName", annotations={"-type": "custom"}), "ExternalName"),
    ],
)
def test_some_services_cannot_be_listed_whatever_they_ask(one, reason):
    decision = detect(one)
    assert decision.outcome is Outcome.REJECTED
    assert reason in decision.reason


def test_foreign_text_in_reasons_is_short_and_plain():
    assert quoted("a" * 100) == '"' + "a" * 60 + '..."'
    assert quoted('a"\n\u202eb{{') == '"a???b??"'
    assert quoted("<b>`$(x)`&[y](z)@") == '"?b???(x)???y?(z)?"'


def test_no_annotations_of_ours_ask_for_nothing():
    assert request(None) is None
    assert request({"prometheus.io/scrape": "true"}) is None
    assert request({PREFIX: "true"}) == Request(wanted=True)


# --- Settings -------------------------------------------------------------------------------------------------------

GRAFANA = service("grafana", "app=grafana", "3000", "app=grafana", namespace="monitoring")


@pytest.mark.parametrize(
    ("namespaces", "reason"),
    [
        (Namespaces(include=("shop",)), "namespaces.include"),
        (Namespaces(exclude=("monitoring",)), "namespaces.exclude"),
        (Namespaces(include=("monitoring",), exclude=("monitoring",)), "namespaces.exclude"),
    ],
)
def test_namespaces_can_be_left_out(namespaces, reason):
    decision = detect(GRAFANA, Settings(namespaces=namespaces))
    assert decision.outcome is Outcome.IGNORED
    assert reason in decision.reason


@pytest.mark.parametrize("namespaces", [Namespaces(include=("monitoring",)), Namespaces(exclude=("shop",))])
def test_other_namespaces_are_looked_at(namespaces):
    assert detect(GRAFANA, Settings(namespaces=namespaces)).outcome is Outcome.CANDIDATE


def test_annotations_can_be_required():
    settings = Settings(require_annotations=True)
    decision = detect(GRAFANA, settings)
    assert decision.outcome is Outcome.IGNORED
    assert "requireAnnotations" in decision.reason
    with_path = service("grafana", "app=grafana", "3000", "app=grafana", annotations={"-path": "/x"})
    assert detect(with_path, settings).outcome is Outcome.IGNORED
    wanted = service("grafana", "app=grafana", "3000", "app=grafana", annotations=ON)
    assert detect(wanted, settings).outcome is Outcome.CANDIDATE
