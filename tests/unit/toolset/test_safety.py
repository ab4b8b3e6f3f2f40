import msgspec
import pytest

from dynamic_toolset.model import HttpBinding, InstancesBinding, ServiceKey
from dynamic_toolset.toolset.safety import is_safe, listed, refusal, refused
from tests.unit.toolset.samples import RICH, candidate
from tests.unit.toolset.samples import listed as services

GOOD = candidate("jaeger", "tracing", "jaeger", path="/jaeger")


def changed(**parts):
    return msgspec.structs.replace(GOOD, **parts)


def at(**parts):
    return changed(endpoint=msgspec.structs.replace(GOOD.endpoint, **parts))


def instances(**parts):
    return changed(agent=msgspec.structs.replace(InstancesBinding(("x/y",), "api_url"), **parts))


@pytest.mark.parametrize("one", [*RICH, at(host="10.0.0.1"), at(host="fd00::1"), at(path=""), at(path="/a/.b/~c")])
def test_good_ones_pass(one):
    assert refusal(one) is None


@pytest.mark.parametrize(
    "one",
    [
        changed(key=ServiceKey("a.b", "x")),
        changed(key=ServiceKey("a", "x\ny")),
        changed(name="{{ env.SECRET }}"),
        changed(name="x\n# Heading"),
        changed(name=""),
        changed(type="My/Type"),
        at(host="evil{{env.X}}.svc"),
        at(host="user@evil"),
        at(path="/{{ env.SECRET }}"),
        at(path="/a/../b"),
        at(path="/.."),
        at(path="/a?b"),
        at(path="/a/"),
        at(path="a"),
        at(path="/a\n"),
        at(scheme="file"),
        at(port=0),
        changed(title="Two\nlines"),
        changed(description="{{ env.SECRET }}"),
        changed(description="half \ud800"),
        changed(agent=HttpBinding("Ask {{ env.SECRET }}")),
        changed(agent=HttpBinding("{{base}}")),
        changed(agent=HttpBinding("x\x1b[0m")),
        changed(agent=HttpBinding("x", paths=("/{{ env.X }}",))),
        changed(agent=HttpBinding("x", health_path="/\n")),
        instances(toolsets=("my.thing",)),
        instances(url="api.url"),
        instances(list="a.b"),
        instances(options={"a.b": 1}),
        instances(options={"a": "{{ env.X }}"}),
        instances(options={"a": 2**70}),
        instances(credentials={"apiKey": "api.key"}),
    ],
)
def test_harmful_ones_are_refused_without_being_quoted(one):
    why = refusal(one)
    assert why
    assert why.isprintable()
    assert "{{ env" not in why
    assert not is_safe(one)


def test_one_harmful_service_is_left_out_and_named():
    bad = changed(key=ServiceKey("shop", "bad"), name="a\nb")
    both = services(bad, GOOD)
    assert listed(both) == [GOOD]
    (problem,) = refused(both)
    assert problem.reason == "ServiceUnsafe"
    assert problem.message.startswith("Service shop/bad is left out of the documents: its name for the agent")


def test_what_is_not_listed_is_neither_rendered_nor_reported():
    bad = msgspec.structs.replace(services(changed(name="a\nb"))[0], listed=False)
    assert listed([bad]) == []
    assert refused([bad]) == ()
