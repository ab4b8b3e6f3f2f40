"""Everything that is wrong with settings, at once."""

import time
from typing import Any, get_args, get_origin

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dynamic_toolset.settings import Settings, SettingsError, TlsFiles, merged_settings, problems
from dynamic_toolset.settings.model import leaves
from dynamic_toolset.strict_yaml import MAX_MISTAKES


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ({}, []),
        (None, ["settings: expected `object`, got `null`"]),
        ([], ["settings: expected `object`, got `array`"]),
        ({"healthCheck": 1}, ["healthCheck: expected `object`, got `int`"]),
        (
            {"helthCheck": {}, "server": {"prot": 1, "zzz": 2}},
            [
                "helthCheck: unknown field `helthCheck`; did you mean `healthCheck`?",
                "server.prot: unknown field `prot`; did you mean `port`?",
                "server.zzz: unknown field `zzz`; there are enabled, address, port, ",
            ],
        ),
        ({1: 2, "server": {None: 1}}, ["settings: the name 1 is not text", "server: the name None is not text"]),
        (
            {"healthCheck": {"timeout": "0s", "interval": "0s", "failureThreshold": 0}},
            [
                "healthCheck.failureThreshold: expected `int` >= 1",
                "healthCheck.timeout: must be at least 1s, not 0s",
                "healthCheck.interval: must be at least 100ms, not 0s",
            ],
        ),
        (
            {"policy": {"allowedRanges": ["x", "10.0.0.0/8", "10.0.0.1/8"], "withoutSelector": ["a", "B", 3]}},
            [
                "policy.withoutSelector[1]: expected the name of a namespace",
                "policy.withoutSelector[2]: expected `str`, got `int`",
                "policy.allowedRanges[0]: 'x' does not appear to be an IPv4 or IPv6 network",
                "policy.allowedRanges[2]: 10.0.0.1/8 has host bits set",
            ],
        ),
        (
            {
                "policy": {
                    "refusedRanges": ["10.0.0.0/255.0.0.0", "::/08", "::ffff:10.0.0.0/104", "fe80::%a", "::1", "1::/16"]
                }
            },
            [
                "policy.refusedRanges[0]: '10.0.0.0/255.0.0.0' should be written as 10.0.0.0/8",
                "policy.refusedRanges[1]: '::/08' should be written as ::/8",
                "policy.refusedRanges[2]: '::ffff:10.0.0.0/104' stands for addresses of IPv4 in IPv6",
                "policy.refusedRanges[3]: 'fe80::%a' should be written as",
            ],
        ),
        (
            {
                "policy": {
                    "trustedTypes": ["a", "b", "a", "a"],
                    "foreignEndpoints": [{"namespaces": ["*", "*"], "hosts": []}],
                }
            },
            [
                "policy.foreignEndpoints[0].namespaces[1]: '*' is there twice",
                "policy.trustedTypes[2]: 'a' is there twice",
                "policy.trustedTypes[3]: 'a' is there twice",
            ],
        ),
        (
            {"namespaces": {"include": [f"n{number}" for number in range(501)]}},
            ["namespaces.include: 501 of them: at most 500 are allowed"],
        ),
        (
            {"serviceTypes": {f"t{number}": {} for number in range(201)}},
            ["serviceTypes: 201 of them: at most 200 are allowed"],
        ),
        (
            {"serviceTypes": {"a": {"labels": {"team": "a b"}, "annotations": {"x/y": "any thing"}}}},
            ["serviceTypes.a.labels.team: expected the value of a label"],
        ),
        (
            {"toolset": {"credentials": [{"namespace": "a", "service": "b", "apiKey": key} for key in ("K", "L")]}},
            ["toolset.credentials[1]: there are credentials for a/b already"],
        ),
        ({"configMap": {"name": "a\n"}}, ["configMap.name: expected a name in lower case"]),
        ({"massFailure": {"hold": "1000000h"}}, ["massFailure.hold: expected a duration such as 500ms"]),
        ({"massFailure": {"hold": "999999h999999h"}}, []),
        ({"massFailure": {"hold": "999999h999999h10h"}}, ["massFailure.hold: expected `str` of length <= 16"]),
        ({"selector": "a\u00a0in (b)"}, ["selector: unable to parse requirement: 'a\\xa0in (b)'"]),
        (
            {"policy": {"foreignEndpoints": [{"namespaces": ["a"]}, {"hosts": ["a"], "namespaces": 1, "x": 1}, 5]}},
            [
                "policy.foreignEndpoints[0]: missing required field `hosts`",
                "policy.foreignEndpoints[1].namespaces: expected `array`, got `int`",
                "policy.foreignEndpoints[1].x: unknown field `x`; there are namespaces, hosts",
                "policy.foreignEndpoints[2]: expected `object`, got `int`",
            ],
        ),
        (
            {"toolset": {"base": {"a": 1, "b": {}, 3: {}}}},
            ["toolset.base.a: expected `object`, got `int`", "toolset.base: the name 3 is not text"],
        ),
        ({"toolset": {"base": {"a": {4: {}}}}}, ["toolset.base.a: the name 4 is not text"]),
        (
            {"serviceTypes": {"No": {"labels": {"a b": 1}}, "jaeger": {"enabled": False}}},
            [
                "serviceTypes.No: expected a name in lower case",
                "serviceTypes.No.labels.a b: expected the name of a label or an annotation",
                "serviceTypes.No.labels.a b: expected `str`, got `int`",
            ],
        ),
        # A contradiction with what is wrong in itself says nothing.
        (
            {"leaderElection": {"leaseDuration": "soon", "renewDeadline": "20s"}},
            ["leaderElection.leaseDuration: expected"],
        ),
        (
            {"leaderElection": {"renewDeadline": "20s"}},
            ["leaderElection: leaseDuration must be longer than renewDeadline"],
        ),
        (
            {"server": {"auth": "none", "address": "::", "allowAnonymous": 7}},
            ["server.allowAnonymous: expected `bool`"],
        ),
        ({"server": {"auth": "none", "address": "::1"}}, []),
        ({"server": {"auth": "none", "address": "::", "allowAnonymous": True}}, []),
        ({"server": {"auth": "none", "address": "::"}}, ["server: auth none on address :: would let everybody in"]),
        (
            {"server": {"auth": "none", "address": ""}},
            ["server.address: '' does not appear to be an IPv4 or IPv6 address"],
        ),
        (
            {"server": {"shutdownDelay": "1h", "tls": {"certFile": "a"}, "corsOrigins": ["https://a/", "https://a"]}},
            [
                "server.tls: certFile and keyFile belong together: give both, or none",
                "server.corsOrigins[0]: expected an origin such as https://dash.example.com",
                "server: shutdownDeadline must be longer than shutdownDelay",
            ],
        ),
        (
            {"catalogFolder": "/etc\0", "healthCheck": {"caFile": "a" * 5000}},
            [
                "catalogFolder: expected the path of a file or folder",
                "healthCheck.caFile: expected `str` of length <= 4095",
            ],
        ),
        ({"endpointHost": "\ud800"}, ["endpointHost: the text contains half of a surrogate pair"]),
        ({"endpointHost": "\x1b[2J" + "x" * 500}, ["endpointHost: invalid enum value '\\x1b[2Jxxx"]),
        ({"x\ny\ud800": 1}, ["x y?: unknown field `x y?`; there are"]),
    ],
)
def test_says_where_and_what_is_allowed(content: Any, expected: list[str]) -> None:
    found = [str(problem) for problem in problems(content)]
    assert len(found) == len(expected), found
    assert all(one.startswith(start) for one, start in zip(found, expected, strict=True)), found
    assert all(one.isprintable() and len(one) < 1000 for one in found)


def test_a_model_made_by_hand_tells_all_its_contradictions_too() -> None:
    with pytest.raises(ValueError, match="certFile and keyFile belong together"):
        TlsFiles(cert_file="a")
    with pytest.raises(
        ValueError, match=r"^timeout: must be at least 1s, not 0s; interval: must be at least 100ms, not 0s$"
    ):
        type(Settings().health_check)(timeout="0s", interval="0s")


def test_who_has_too_many_problems_is_told_so() -> None:
    found = problems({"namespaces": {"include": ["B"] * 5000}})
    assert len(found) == MAX_MISTAKES + 1
    assert str(found[-1]) == "settings: more than 1000 problems: the rest is not looked at"


@pytest.mark.parametrize(
    "text", ["1" * 200_000, "1s" * 100_000, "a" * 200_000 + "!", "a." * 100_000 + "!", "," * 200_000, "/" * 200_000]
)
def test_no_text_takes_long(text: str) -> None:
    started = time.process_time()
    for path, expected in leaves():
        value: Any = text
        if get_origin(expected) is tuple:
            value = [text]
        for name in reversed(path.split(".")):
            value = {name: value}
        problems(value)
    problems({f"{text[:250]}{number}": 1 for number in range(1000)})
    assert time.process_time() - started < 20


def test_merged_settings_raises_with_all_of_them() -> None:
    with pytest.raises(SettingsError) as caught:
        merged_settings({"a": 1, "endpointHost": "ip"})
    assert [line.partition(":")[0] for line in str(caught.value).splitlines()] == ["a", "endpointHost"]


# --- The law ----------------------------------------------------------------------------------------------------------

scalars = st.none() | st.booleans() | st.integers(-2, 70000) | st.floats() | st.text(st.characters(), max_size=4)
words = st.sampled_from(
    ["5s", "0s", "20s", "1m", "a", "a,b", "*", "none", "token", "::", "127.0.0.1", "10.0.0.0/8", "dns"]
)
anything = st.recursive(
    scalars | words,
    lambda inner: (
        st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=2) | st.integers(0, 1), inner, max_size=2)
    ),
    max_leaves=4,
)


def values(expected: Any) -> st.SearchStrategy[Any]:
    if get_origin(expected) is tuple:
        return st.lists(values(get_args(expected)[0]), max_size=2) | anything
    if get_origin(expected) is dict:
        return st.dictionaries(words, values(get_args(expected)[1]), max_size=2) | anything
    if isinstance(expected, type) and issubclass(expected, msgspec.Struct):
        fields = {field.encode_name: values(field.type) for field in msgspec.structs.fields(expected)}
        right = st.fixed_dictionaries({}, optional=fields)
        return right | right.flatmap(
            lambda group: st.dictionaries(st.just("x"), anything, max_size=1).map(group.__or__)
        )
    return words | anything


@given(values(Settings))
def test_there_are_none_exactly_if_the_model_takes_it(content: Any) -> None:
    try:
        msgspec.convert(content, Settings, strict=False)
    except (msgspec.ValidationError, UnicodeEncodeError):
        taken = False
    else:
        taken = True
    found = problems(content)
    assert (found == ()) is taken
    assert len(set(found)) == len(found)
    if found:
        with pytest.raises(SettingsError) as caught:
            merged_settings(content)
        assert str(caught.value).splitlines() == [str(problem) for problem in found]
