"""Hypothesis strategies for Services of every kind, those that no API server would let in among them.

What they are made of is aimed at the grammar of the annotations, at the labels and ports of the catalog, and at what
other programs take for more than text.
"""

from hypothesis import strategies as st

from dynamic_toolset.discovery.annotations import ANNOTATION_PREFIX
from dynamic_toolset.discovery.catalog import as_tuple, port_pattern
from dynamic_toolset.kube.objects import ObjectMeta, Service, ServicePort, ServiceSpec

from .building import catalog

INJECTIONS = (
    *("{{ env.SECRET }}", "{{env.SECRET}}", "${SECRET}", "$(SECRET)", "%%env_SECRET%%", "{% import os %}", "#{7*7}"),
    *(
        "a\nb",
        "a\r\nX-Admin: 1",
        "\x1b[2J\x1b[31m",
        "\x00",
        "\u2028",
        "\u202egnp.exe",
        "a\u200bb",
        "\ud800",
        "\uff0e\uff0e",
    ),
    *("!!python/object/apply:os.system [id]", "&a [*a]", "- ", "? x", "a: b", "<script>alert(1)</script>", "`id`"),
    *("'; DROP TABLE", '"', "\\", "../../etc/passwd", "/..;/", "/%2e%2e/", "//evil.example.com", "@evil.example.com"),
    *("", " ", "-", ".", "*", "None", "null", "a" * 300, "9" * 300, "-1", "0x50", "\u0663", "1e3"),
)
"""Texts that some program somewhere takes for an instruction, or stumbles over."""

_rules = [rule for kind in catalog().types.values() for rule in kind.detect]
_values = sorted(
    {
        value.replace("*", "x")
        for rule in _rules
        for values in (*rule.labels.values(), *rule.selector.values())
        for value in as_tuple(values)
    }
)
_names = sorted({name for rule in _rules for name in rule.names})
_labels = sorted({label for rule in _rules for label in (*rule.labels, *rule.selector)} - {"app", "component"})
_patterns = [pattern for kind in catalog().types.values() for pattern in kind.ports]
_patterns += [pattern for rule in _rules for pattern in rule.ports]
_ports = [port_pattern(pattern) for pattern in _patterns]
_numbers = sorted({number for _, number in _ports if number is not None})
_port_names = sorted({name for name, _ in _ports if name is not None})

nasty = st.sampled_from(INJECTIONS)
words = st.one_of(st.sampled_from(_values), st.sampled_from(["a", "b", "server", "query", "gateway"]), nasty, st.text())
label_names = st.one_of(
    st.sampled_from(["app", "app.kubernetes.io/name", "app.kubernetes.io/component", "component", "k8s-app", "chart"]),
    st.sampled_from(["app.kubernetes.io/instance", "statefulset.kubernetes.io/pod-name", *_labels]),
    st.text(max_size=9),
)
labels = st.one_of(st.none(), st.dictionaries(label_names, words, max_size=4))

hosts = st.one_of(
    st.sampled_from(["a.a", "a.a.svc", "b.a.svc", "a.b.svc.cluster.local", "x.example.com", "example.com", "10.0.0.1"]),
    st.sampled_from(
        ["kubernetes.default.svc", "localhost", "127.1", "0x7f.1", "169.254.169.254", "metadata.google.internal"]
    ),
    words,
)
paths = st.one_of(
    st.sampled_from(["", "/", "/x", "/x/", "/.", "/./x", "/x/..", "//x", "/x?y", "/x#y", "/" + "a/" * 150]),
    words.map("/{}".format),
)
endpoints = st.builds(
    "{}://{}{}{}{}".format,
    st.sampled_from(["http", "https", "HTTP", "ftp", "file", "javascript", ""]),
    st.sampled_from(["", "", "", "u:p@"]),
    hosts,
    st.sampled_from([":80", ":3000", "", ":0", ":99999", ":http", ":80:80"]),
    paths,
)
values = {
    "": st.sampled_from(["enabled", "true", "disabled", "false", "maybe", "True"]),
    "-type": st.sampled_from([*catalog().types, "promethues", "mine", "kubernetes-core", "a" * 41]),
    "-name": st.sampled_from(["mine", "a" * 40, "a" * 41, "-a"]),
    "-endpoint": endpoints,
    "-port": st.sampled_from(["80", "3000", "http", "web", "65536", "0", "080"]),
    "-scheme": st.sampled_from(["http", "https", "HTTP", "h2c"]),
    "-path": paths,
    "-health-path": paths,
    "-x": words,
    "s": words,
}


@st.composite
def annotations(draw):
    chosen = draw(st.sets(st.sampled_from(sorted(values)), max_size=4))
    ours = {ANNOTATION_PREFIX + key: draw(st.one_of(values[key], values[key], nasty)) for key in sorted(chosen)}
    return ours | draw(st.dictionaries(st.text(max_size=5), st.text(max_size=5), max_size=2))


numbers = st.one_of(st.sampled_from(_numbers), st.sampled_from([80, 443, 53]), st.integers(-(2**63), 2**63))
port_names = st.one_of(st.sampled_from(_port_names), st.sampled_from(["https", "metrics", "grpc"]), words)
ports = st.builds(
    ServicePort,
    port=numbers,
    name=st.one_of(st.none(), port_names),
    target_port=st.one_of(st.none(), numbers, port_names, numbers.map(str)),
    protocol=st.sampled_from([None, "TCP", "TCP", "UDP", "SCTP", ""]),
    app_protocol=st.one_of(
        st.none(), st.none(), st.sampled_from(["http", "https", "grpc", "kubernetes.io/wss"]), words
    ),
)
many_ports = st.integers(240, 260).map(lambda count: tuple(ServicePort(number + 1) for number in range(count)))


def deployed(kind, rule):
    """Return labels and a port by which the rule would know a Service."""
    found = {}
    for label, wanted in (*rule.labels.items(), *rule.selector.items()):
        value = next(iter(filter(None, as_tuple(wanted))), None)
        if value:
            found[label] = value.replace("*", "x")
    name, number = port_pattern(kind.ports_of(rule)[0])
    return found, ServicePort(number or 80, name)


_deployments = [deployed(kind, rule) for kind in catalog().types.values() for rule in kind.detect if not rule.names]
_bare = ({"team": "a"}, ServicePort(8080, "http"))


@st.composite
def plausible(draw):
    """Return metadata and spec as people write them: of a product, or with annotations for one that nobody knows."""
    found, port = draw(st.sampled_from([*_deployments, _bare, _bare]))
    names = st.sampled_from([key for key in values if key not in {"", "-x", "s"}])
    chosen = draw(st.sets(names, max_size=2))
    ours = {ANNOTATION_PREFIX + key: draw(sane[key]) for key in sorted(chosen)}
    if found is _bare[0]:
        ours.setdefault(f"{ANNOTATION_PREFIX}-type", draw(sane["-type"]))
    metadata = {
        "name": draw(st.sampled_from("ab")),
        "namespace": draw(st.sampled_from("ab")),
        "labels": found,
        "annotations": ours or None,
        "creation_timestamp": draw(st.sampled_from(["", "2026-01-01T00:00:00Z", "2025-01-01T00:00:00Z"])),
    }
    spec = {
        "type": draw(st.sampled_from([None, "ClusterIP", "NodePort", "ExternalName"])),
        "cluster_ip": draw(st.sampled_from([None, "None", "10.0.0.1", "fd00::1"])),
        "external_name": "x.example.com",
        "selector": draw(st.sampled_from([found, found, {"pod": "some"}, None])),
        "ports": (port, *draw(st.sampled_from([(), (ServicePort(7, "metrics"),)]))),
    }
    return metadata, spec


sane = {
    "-type": st.sampled_from([*catalog().types, "mine"]),
    "-name": st.sampled_from(["mine", "a" * 40]),
    "-endpoint": st.sampled_from(
        ["http://a.a:80", "https://a.a.svc:8080/x", "http://x.example.com:1", "http://10.0.0.1:9"]
    ),
    "-port": st.sampled_from(["80", "8080", "http", "3000"]),
    "-scheme": st.sampled_from(["http", "https"]),
    "-path": st.sampled_from(["/", "/x", "/x/y/"]),
    "-health-path": st.sampled_from(["/", "/x", "/x/y/"]),
}
absurd_metadata = {
    "name": st.one_of(st.sampled_from(["kubernetes", *_names]), words),
    "namespace": st.one_of(st.just("default"), words),
    "labels": labels,
    "annotations": annotations(),
    "creation_timestamp": words,
}
absurd_spec = {
    "type": words,
    "cluster_ip": st.one_of(st.sampled_from(["", "fe80::1%eth0", "0x7f.1", "::ffff:127.0.0.1"]), words),
    "external_name": st.one_of(st.none(), hosts),
    "selector": labels,
    "ports": st.one_of(st.none(), st.lists(ports, max_size=4).map(tuple), many_ports),
}


@st.composite
def services(draw):
    """Return any Service whatever: a plausible one of which up to three fields are absurd, so that many get far."""
    metadata, spec = draw(plausible())
    fields = st.sampled_from([*absurd_metadata, *absurd_spec])
    for field in sorted(draw(st.sets(fields, max_size=3))):
        if field in metadata:
            metadata[field] = draw(absurd_metadata[field])
        else:
            spec[field] = draw(absurd_spec[field])
    return Service(ObjectMeta(**metadata), ServiceSpec(**spec))


@st.composite
def presentable(draw):
    """Return a Service as people make them: most are candidates, so that they come into each other's way."""
    kind = draw(st.sampled_from(["prometheus", "grafana", "loki"]))
    port = {"prometheus": 9090, "grafana": 3000, "loki": 3100}[kind]
    more = draw(st.sampled_from([{}, {"pod": "x"}, {"statefulset.kubernetes.io/pod-name": "x-0"}]))
    return Service(
        ObjectMeta(
            name=draw(st.sampled_from("abcdef")),
            namespace=draw(st.sampled_from("ab")),
            labels=draw(st.sampled_from([None, {"app": kind}])),
            annotations=draw(st.sampled_from([None, None, {ANNOTATION_PREFIX: "enabled"}])),
            creation_timestamp=draw(st.sampled_from(["", "2026-01-01T00:00:00Z", "2025-01-01T00:00:00Z"])),
        ),
        ServiceSpec(
            type=draw(st.sampled_from([None, "NodePort"])),
            cluster_ip=draw(st.sampled_from([None, "None", "10.0.0.1"])),
            selector={"app": kind} | more,
            ports=(ServicePort(port),),
        ),
    )
