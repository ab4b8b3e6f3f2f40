"""Whether an answer proves which product gave it."""

import tracemalloc

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dynamic_toolset.health.identity import Answer, mismatch
from dynamic_toolset.model import Identity

BUILDINFO = (
    b'{"status":"success","data":{"version":"3.1.0","revision":"abc","n":[10,{"a/b":true,"m~n":null}],"line":"a\\nb"}}'
)


def answer(body: bytes = BUILDINFO, status: int = 200, **headers: str) -> Answer:
    return Answer(status, {name.replace("_", "-").lower(): value for name, value in headers.items()}, body)


@pytest.mark.parametrize(
    "identity",
    [
        Identity(),
        Identity(status=(200, 401)),
        Identity(json={"/data/version": r"3\..*"}),
        Identity(json={"/data/version": ".*", "/status": "success"}),
        Identity(json={"/data/n/0": "10"}),
        Identity(json={"/data/n/1/a~1b": "true"}),
        Identity(json={"/data/n/1/m~0n": "null"}),
        Identity(json={"/data/n": ".*", "/data": ".*", "": ".*"}),
        Identity(json={"/data/line": ".*"}),
        Identity(absent=("/data/nothing", "/data/version/deeper", "/data/n/2", "/data/n/-", "/data/n/00")),
        Identity(body="3.1.0"),
        Identity(body=r'"revision":"\w+"'),
        Identity(headers={"x-elastic-product": "Elastic.*"}),
        Identity(json={"/status": "success"}, absent=("/error",), body="version", headers={"X-Elastic-Product": ".*"}),
    ],
)
def test_an_identity_holds_when_all_of_its_conditions_do(identity: Identity) -> None:
    assert mismatch(identity, answer(X_Elastic_Product="Elasticsearch")) is None


@pytest.mark.parametrize(
    ("identity", "problem"),
    [
        (Identity(status=(204,)), "HTTP 200"),
        (Identity(json={"/data/version": "3"}), "/data/version is not as expected"),
        (Identity(json={"/status": "success", "/data/application": ".*"}), "no /data/application"),
        (Identity(json={"/data/n/2": ".*"}), "no /data/n/2"),
        (Identity(json={"/data/n/00": ".*"}), "no /data/n/00"),
        (Identity(absent=("/error", "/data/revision")), "/data/revision is there"),
        (Identity(absent=("/data/n/1/m~0n",)), "/data/n/1/m~0n is there"),
        (Identity(body="Grafana"), "the text is not as expected"),
        (Identity(headers={"X-Elastic-Product": "Elastic"}), "header X-Elastic-Product is not as expected"),
        (Identity(headers={"X-Other": ".*"}), "no header X-Other"),
    ],
)
def test_the_first_condition_that_does_not_hold_is_named(identity: Identity, problem: str) -> None:
    assert mismatch(identity, answer(X_Elastic_Product="Elasticsearch")) == problem


@pytest.mark.parametrize(
    "body",
    [
        *(b"", b"<html>", b'{"status":', b"\xff\xfe", b'"\xff"', b'{"a": "\xff"}', rb'"\ud800"', b"\xef\xbb\xbf{}"),
        *(b"NaN", b"-Infinity", b'{"a": NaN}', b"01", b"1.", b"+1", b"'a'", b"{1: 2}", b"[1,]", b"{} {}", b"// \n{}"),
        *(b"[" * 260_000, b'{"a":' * 50_000, b"[" * 100_000 + b"]" * 100_000),
    ],
    ids=lambda body: repr(body[:8]),
)
def test_a_body_that_is_not_json_is_no_proof(body: bytes) -> None:
    assert mismatch(Identity(json={"": ".*"}), answer(body)) == "not JSON"
    assert mismatch(Identity(absent=("/error",)), answer(body)) == "not JSON"


@pytest.mark.parametrize("number", [b"9" * 250_000, b"-" + b"9" * 5000, b"1e999", b"-1e999"], ids=lambda text: text[:4])
def test_a_number_that_is_too_large_is_no_proof_and_does_no_harm(number: bytes) -> None:
    assert mismatch(Identity(json={"/a": ".*"}), answer(b'{"a":' + number + b"}")) == "not JSON"
    assert mismatch(Identity(json={"/b": "1"}, absent=("/c",)), answer(b'{"a":' + number + b',"b":1}')) is None


@pytest.mark.parametrize(
    ("body", "value"),
    [
        (rb'{"a": 1, "a": 2}', "2"),  # of two members with one name the last counts, as for most readers (RFC 8259)
        (rb'{"\u0061": 2}', "2"),
        (b' \r\n{ "a" :\t 2 , "b" : [ ] } \n', "2"),
        (rb'{"a": "2"}', "2"),
        (rb'{"a": "\u0032"}', "2"),
        (rb'{"b": {"a": 1}, "a": 2}', "2"),
        (rb'{"a": 2.0}', r"2\.0"),
        (rb'{"a": {"b": 1 }}', r'\{"b": 1 \}'),
        (rb'{"a": [1, 2 ]}', r"\[1, 2 \]"),
        (rb'{"a": "\n\u0000"}', "\n\0"),
    ],
    ids=repr,
)
def test_a_value_is_read_as_text(body: bytes, value: str) -> None:
    assert mismatch(Identity(json={"/a": value}), answer(body)) is None


@pytest.mark.parametrize("body", [b"null", b"1", b'"a"', b"[]", b"[1]", b'{"A": 1}', b'{"b": {"a": 1}}', b'{"a ": 1}'])
def test_what_is_not_there_is_not_there(body: bytes) -> None:
    assert mismatch(Identity(json={"/a": ".*"}), answer(body)) == "no /a"
    assert mismatch(Identity(absent=("/a", "/a/b", "/7")), answer(body)) is None


WIDE = {
    "arrays": b"[" + b"[]," * 87_000 + b"1]",
    "objects": b'{"a":[' + b"{}," * 87_000 + b"1]}",
    "members": b"{" + b",".join(b'"%x":1' % number for number in range(26_000)) + b"}",
}


@pytest.mark.parametrize("shape", WIDE)
def test_what_lies_beside_the_way_of_a_pointer_is_not_built(shape: str) -> None:
    identity = Identity(json={"/status": "success"}, absent=("/data/error",))
    mismatch(identity, answer(b"{}"))
    tracemalloc.start()
    try:
        assert mismatch(identity, answer(WIDE[shape])) == "no /status"
        assert tracemalloc.get_traced_memory()[1] < 2 * len(WIDE[shape])
    finally:
        tracemalloc.stop()


@given(st.integers(1, 3000))
def test_no_depth_is_too_deep(depth: int) -> None:
    assert mismatch(Identity(json={"": ".*"}), answer(b"[" * depth + b"]" * depth)) in (None, "not JSON")


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**60), 2**60) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=20,
)


def pointers(value: object, prefix: str = "") -> list[str]:
    if isinstance(value, dict):
        items = [(key.replace("~", "~0").replace("/", "~1"), inner) for key, inner in value.items()]
    else:
        items = [(str(index), inner) for index, inner in enumerate(value)] if isinstance(value, list) else []
    return [prefix] + [found for token, inner in items for found in pointers(inner, f"{prefix}/{token}")]


@given(JSON)
def test_each_pointer_into_a_document_leads_somewhere(document: object) -> None:
    there = pointers(document)
    body = msgspec.json.encode(document)
    assert mismatch(Identity(json=dict.fromkeys(there, ".*")), answer(body)) is None
    for pointer in there:
        assert mismatch(Identity(absent=(pointer,)), answer(body)) == f"{pointer} is there"
