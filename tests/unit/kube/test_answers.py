import json
from email.utils import formatdate

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dynamic_toolset.kube.answers import (
    Lines,
    decode_event,
    decode_list,
    decode_object,
    decode_refusal,
    identify,
    parse_retry_after,
)
from dynamic_toolset.kube.errors import (
    AnswerTooLong,
    ApiError,
    BadRequest,
    Conflict,
    Forbidden,
    Gone,
    Invalid,
    InvalidAnswer,
    NotFound,
    ServerError,
    TooLarge,
    TooManyRequests,
    Unauthorized,
)
from dynamic_toolset.kube.objects import ObjectKey, Service
from tests.unit.kube.fault_server import event, key, service, status, undecodable

# --- Lines ----------------------------------------------------------------------------------------------------------


@given(st.lists(st.binary(min_size=1).filter(lambda line: b"\n" not in line and line.strip())), st.data())
def test_lines_do_not_depend_on_how_the_stream_was_cut(lines, data):
    stream = b"".join(line + b"\n" for line in lines)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)))))
    chunks = [stream[a:b] for a, b in zip([0, *cuts], [*cuts, len(stream)], strict=True)]
    splitter = Lines(100_000)
    assert [line for chunk in chunks for line in splitter.feed(chunk)] == lines


def test_a_line_without_its_end_is_not_given_out():
    splitter = Lines(100_000)
    assert splitter.feed(b"one\ntw") == [b"one"]
    assert splitter.feed(b"o") == []


@pytest.mark.parametrize("separator", ["\u0085", "\u2028", "\x0b", "\x0c", "\x1c"])
def test_other_separators_are_part_of_a_line(separator):
    line = f"before{separator}after".encode()
    assert Lines(100_000).feed(line + b"\n") == [line]


def test_a_line_that_does_not_end_is_given_up_and_lines_that_do_may_be_many():
    splitter = Lines(10)
    for _ in range(100):
        assert splitter.feed(b"ten bytes.\n" + b"more") == [b"ten bytes."]
        assert splitter.feed(b"\n") == [b"more"]
    splitter.feed(b"ten bytes.")
    with pytest.raises(AnswerTooLong):
        splitter.feed(b"+")


def test_empty_lines_are_nothing():
    assert Lines(100_000).feed(b"\n\r\n \none\n\n") == [b"one"]


# --- Retry-After ----------------------------------------------------------------------------------------------------

NOW = 1_700_000_000.0


@pytest.mark.parametrize(
    ("header", "seconds"),
    [
        (None, None),
        ("7", 7.0),
        ("0", 0.0),
        (formatdate(NOW + 30, usegmt=True), 30.0),
        (formatdate(NOW - 30, usegmt=True), 0.0),
        ("Tue, 14 Nov 2023 22:13:25", 5.0),
        ("soon", None),
        ("-1", None),
        ("", None),
        ("²", None),
        ("Tue, 99 Nov 2023 22:13:25 GMT", None),
        ("Tue, 14 Nov 99999999999999999999 22:13:25 GMT", None),
        ("Tue, 14 Nov 2023 22:13:25 +99999999999999", None),
    ],
)
def test_retry_after(header, seconds):
    assert parse_retry_after(header, now=NOW) == seconds


# --- Objects and lists ----------------------------------------------------------------------------------------------


def encode(content: object) -> bytes:
    return json.dumps(content).encode()


def service_list(*items: object, **metadata: str) -> bytes:
    return encode({"metadata": {"resourceVersion": "9"} | metadata, "items": list(items)})


def test_an_object_is_decoded():
    assert decode_object(encode(service("loki", 5)), Service).metadata.key == key("loki")


@pytest.mark.parametrize("answer", [b"", b"<html>", b"[]", b"{}", b'{"metadata": {"name": "\xff"}}', b"null"])
def test_what_is_no_object_is_an_invalid_answer(answer):
    with pytest.raises(InvalidAnswer):
        decode_object(answer, Service)


def test_a_list_gives_items_version_and_token():
    page, token = decode_list(service_list(service("a", 1), service("b", 2), **{"continue": "more"}), Service)
    assert [item.metadata.name for item in page.items] == ["a", "b"]
    assert (page.resource_version, page.skipped, token) == ("9", (), "more")


def test_null_is_legal_for_lists_and_maps():
    empty = service("a", 1)
    empty["metadata"] |= {"labels": None, "annotations": None}
    empty["spec"] = {"ports": None, "selector": None}
    page, _ = decode_list(service_list(empty), Service)
    assert page.items[0].spec.ports is None
    assert decode_list(b'{"metadata": {"resourceVersion": "9"}, "items": null}', Service)[0].items == []


def test_one_undecodable_object_harms_only_itself():
    page, _ = decode_list(service_list(service("a", 1), undecodable("bad", 2), {"spec": {}}, service("c", 3)), Service)
    assert [item.metadata.name for item in page.items] == ["a", "c"]
    assert [one.key for one in page.skipped] == [key("bad"), None]
    assert "port" in page.skipped[0].error


def test_an_object_that_is_no_text_harms_only_itself():
    good, bad = encode(service("a", 1)), encode(service("b", 2, note="?")).replace(b"?", b"\xff")
    page, _ = decode_list(b'{"metadata": {"resourceVersion": "9"}, "items": [%b, %b]}' % (good, bad), Service)
    assert [item.metadata.name for item in page.items] == ["a"]
    assert [one.key for one in page.skipped] == [key("b")]


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"upstream timed out",
        b"{}",
        encode(status(200, "Success")),
        b'{"metadata": {"resourceVersion": "9"}}',
        b'{"metadata": {}, "items": []}',
        b'{"metadata": {"resourceVersion": ""}, "items": []}',
        b'{"metadata": {"resourceVersion": "9"}, "items": [{"metadata": {"name": "a"',
    ],
)
def test_what_is_no_list_is_never_taken_for_an_empty_one(answer):
    with pytest.raises(InvalidAnswer):
        decode_list(answer, Service)


@pytest.mark.parametrize(
    ("document", "identity"),
    [
        (service("a", 5), (key("a"), "5")),
        ({"metadata": {"name": "node", "resourceVersion": "6"}}, (ObjectKey("", "node"), "6")),
        ({"metadata": {"resourceVersion": "7"}}, (None, "7")),
        ({"metadata": {"name": 1}}, (None, "")),
        ([], (None, "")),
    ],
)
def test_identify(document, identity):
    assert identify(encode(document)) == identity


# --- Events and refusals --------------------------------------------------------------------------------------------


def test_an_event_keeps_its_object_undecoded():
    decoded = decode_event(event("ADDED", service("a", 5)))
    assert (decoded.type, identify(decoded.object)) == ("ADDED", (key("a"), "5"))


@pytest.mark.parametrize(
    ("content", "error", "code"),
    [
        (status(410, "Expired", "too old resource version: 5 (9)"), Gone, 410),
        (status(500, "InternalError"), ServerError, 500),
        (status(429, "TooManyRequests", details={"retryAfterSeconds": 3}), TooManyRequests, 429),
        ({}, ServerError, 500),
    ],
)
def test_an_error_event_is_raised(content, error, code):
    with pytest.raises(error) as raised:
        decode_event(event("ERROR", content))
    assert raised.value.code == code


def test_retry_after_of_a_status():
    with pytest.raises(TooManyRequests) as raised:
        decode_event(event("ERROR", status(429, "TooManyRequests", details={"retryAfterSeconds": 3})))
    assert raised.value.retry_after == 3.0


@pytest.mark.parametrize("line", [b"{", b"[]", b'{"type": "ADDED"}', b'{"type": "ERROR", "object": 1}'])
def test_what_is_no_event_is_an_invalid_answer(line):
    with pytest.raises(InvalidAnswer):
        decode_event(line)


@pytest.mark.parametrize(
    ("code", "error"),
    [
        (400, BadRequest),
        (401, Unauthorized),
        (403, Forbidden),
        (404, NotFound),
        (409, Conflict),
        (410, Gone),
        (413, TooLarge),
        (422, Invalid),
        (429, TooManyRequests),
        (418, ApiError),
        (500, ServerError),
        (504, ServerError),
    ],
)
def test_each_refusal_has_its_type(code, error):
    raised = decode_refusal(code, "Phrase", encode(status(code, "Reason", "a sentence")), None)
    assert type(raised) is error
    assert (raised.code, raised.reason, raised.message) == (code, "Reason", "a sentence")


def test_the_page_of_a_proxy_is_the_message():
    raised = decode_refusal(502, "Bad Gateway", b"<html>\n  bad\xff gateway" + b"!" * 5000, None)
    assert raised.reason == "Bad Gateway"
    assert raised.message.startswith("<html> bad\ufffd gateway!!!")
    assert len(raised.message) <= 1000


def test_the_header_counts_more_than_the_status():
    body = encode(status(429, "TooManyRequests", details={"retryAfterSeconds": 3}))
    assert decode_refusal(429, "", body, 8.0).retry_after == 8.0
    assert decode_refusal(429, "", body, None).retry_after == 3.0
