import pytest
import yaml
from hypothesis import given

from dynamic_toolset import strict_yaml
from dynamic_toolset.strict_yaml import MAX_BYTES, MAX_MISTAKES, YamlError, YamlLoader, examine, lines_of, read
from dynamic_toolset.toolset.emitter import to_yaml
from dynamic_toolset.toolset.loadable import key_problem
from tests.unit.toolset.samples import plain

EMPTY = ["", " ", "\n\n", "# only\n# comments\n", "---\n", "--- null", "---\n...\n", "~"]


@pytest.fixture(params=[yaml.SafeLoader, YamlLoader], ids=["pure", "libyaml"], autouse=True)
def _loader(request, monkeypatch):
    monkeypatch.setattr(strict_yaml, "YamlLoader", request.param)


@pytest.mark.parametrize("text", EMPTY)
def test_nothing_is_none(text):
    assert read(text) is None


@pytest.mark.parametrize(
    "text",
    [
        "a: 1",
        "a: [1, 2.5, ~, true, yes, 0x10, 0b1, '12:30:45', 1_000, x, 'y', \"z\"]",
        "a: !!str 1\nb: !!int '3'\nc: !!map {d: !!seq [!!float 1]}\n'on': '*x'\n! k: ! 5",
        "a: |\n  x\n  y\nb: >-\n  x\n  y",
        "a: &x {b: 1}\nc: *x\nd: [*x, *x]\ne: &y text\nf: *y",
        "base: &x {b: 1, c: 2}\nother: &y {b: 3, d: 4}\nm: {<<: *x, b: 5}\nn: {<<: [*x, *y], e: 1}",
        "o: {e: 1, <<: {e: 2}}",
        "p: {<<: {a: 1, b: 1}, <<: [{a: 2}, {a: 3, c: 3}, {c: 4, d: 4}], <<: {e: 5}, e: 6}",
        "x: &x {a: 1}\nq: {<<: [&y {a: 2, <<: *x, b: {<<: *x}}, *x], <<: *y}",
        "{}",
        "[]",
        "plain text",
    ],
)
def test_reads_what_safe_loading_reads(text):
    assert read(text) == yaml.safe_load(text)


@given(plain)
def test_reads_what_we_write(value):
    assert read(to_yaml({"a": value})) == {"a": value}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: 1\nb:\n  c: 1\n  c: 2", "4: b.c: this name is there twice, first in line 3"),
        ("a: 1\non: 2", '2: YAML reads the name on as bool, not as text: put it in quotes, "on"'),
        ("a:\n  123: x", "2: a: YAML reads the name 123 as int"),
        ("a:\n  2024-01-01: x", "2: a: YAML reads the name 2024-01-01 as timestamp"),
        ("a:\n  ~: x", "2: a: YAML reads the name ~ as null"),
        ("? [a]\n: b", "1: a name must be text"),
        ("x: &a b\n*a : c", "2: a name must be text"),
        ("a:\n  my.api: x", "2: a: the name 'my.api' contains '.': HolmesGPT would refuse the whole file"),
        ("a:\n  - b: {c.d: x}", "2: a[0].b: the name 'c.d' contains '.'"),
        ('a:\n  "b\\nc": x', "2: a: the name 'b\\nc' contains a character that cannot be printed"),
        ("a: 2024-01-01", "1: a: 2024-01-01 is a value of type timestamp, which is not allowed: put it in quotes"),
        ("a: !!binary aGk=", "1: a: aGk= is a value of type binary"),
        ("a: !!set {x, y}", "1: a: the tag set is not allowed"),
        ("a: !!omap [x: 1]", "1: a: the tag omap is not allowed"),
        ("a: !mine x", "1: a: x is a value of type !mine"),
        ("a: !!python/object/apply:os.system [id]", "1: a: the tag python/object/apply:os.system is not allowed"),
        ("a: !!python/name:os.system", "1: a: is a value of type python/name:os.system"),
        ("a: .inf", "1: a: inf is not a number: put it in quotes"),
        ("a: .NaN", "1: a: nan is not a number"),
        ("a: 1.0e+999", "1: a: inf is not a number"),
        ("a: 99999999999999999999", "1: a: the number does not fit into 64 bits"),
        ("a: " + "9" * 5000, "1: a: " + "9" * 40 + "... is no int: put it in quotes"),
        ("a: " + "0" * 90_000 + ".5", "1: a: " + "0" * 40 + "... is no float: put it in quotes"),
        ("a: 0b" + "1" * 99, "1: a: 0b" + "1" * 38 + "... is no int: put it in quotes"),
        ("a: 12:30:45", "1: a: YAML reads 12:30:45 as a number to base 60: put it in quotes to make it text"),
        ("a: 1:30.5", "1: a: YAML reads 1:30.5 as a number to base 60"),
        ("a: " + ":".join(["1"] * 180) + ".5", "1: a: YAML reads 1:1:1"),
        ("a: !!float '" + ":".join(["1"] * 180) + "'", "1: a: YAML reads 1:1:1"),
        ("a: !!int ''", "1: a: is no int"),
        ("a: !!float abc", "1: a: abc is no float"),
        ("a: !!int abc", "1: a: abc is no int"),
        ("a: !!bool abc", "1: a: abc is no bool"),
        ("a: &x [*x]", "1: a[0]: the alias *x has no anchor before it, or stands in it"),
        ("a: &x {b: *x}", "1: a.b: the alias *x has no anchor"),
        ("a: *x", "1: a: the alias *x has no anchor"),
        ("a: {<<: 1}", "1: a: the merge key << takes a mapping"),
        ("a: {<<: [1]}", "1: a: the merge key << takes a mapping"),
        ("a: 1\n---\nb: 2", "2: a second document: only one is read"),
        ("a: [1", "not valid YAML: "),
        ("a: b: c", "1: not valid YAML: "),
        ("a: 1\n\tb: 2", "2: not valid YAML: "),
        ("a: \x07", "1: not valid YAML: "),
        ("a: \ud800", "1: the text contains half of a surrogate pair"),
        ("a: " + "x" * MAX_BYTES, f"1: {MAX_BYTES + 3} bytes; at most {MAX_BYTES} are read"),
        ("[" * 5000, "1: " + "[0]" * 32 + ": nested more than 32 deep"),
        ("{b: " * 5000, "nested more than 32 deep"),
        ("- " * 5000 + "x", "nested more than 32 deep"),
    ],
)
def test_says_where_and_why(text, message):
    with pytest.raises(YamlError) as caught:
        read(text, key_problem)
    said = str(caught.value)
    assert said.startswith(message) if message[0].isdigit() else message in said
    assert "\n" not in said


def test_aliases_cannot_nest_without_end():
    levels = "\n".join(f"a{i}: &a{i} [[[[[[[[*a{i - 1}]]]]]]]]" for i in range(1, 20))
    with pytest.raises(YamlError, match=r"^5: a4.*: nested more than 32 deep"):
        read("a0: &a0 [x]\n" + levels)


@pytest.mark.parametrize("leaf", ["x", "y" * 10_000])
def test_an_alias_bomb_is_refused_at_once(leaf):
    levels = "\n".join(f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]" for i in range(1, 12))
    with pytest.raises(
        YamlError, match=r"more than (30000 values and names|1000000 characters), with aliases expanded"
    ):
        read(f"a0: &a0 {leaf}\n{levels}")


def test_what_stands_there_counts_as_what_an_alias_stands_for():
    with pytest.raises(YamlError, match="more than 30000 values and names"):
        read(f"a: [{'1,' * 30_000}]")


def test_a_surrogate_that_was_escaped_is_refused():
    with pytest.raises(YamlError):  # libyaml refuses the escape, PyYAML's own scanner lets it through
        read(r'a: "\ud800"')


@pytest.mark.parametrize(
    ("path", "line"),
    [
        ("", 1),
        ("a", 1),
        ("a.b", 2),
        ("a.b[0]", 3),
        ("a.b[1].d", 5),
        ("ab", 6),
        ("ab.c", 7),
        ("e.b[1].d", 8),
        ("f.c", 9),
    ],
)
def test_finds_the_line_of_a_path(path, line):
    text = "a: &a\n  b:\n  - c\n  -\n    d: 1\nab: &b\n  c: 1\ne: *a\nf: {<<: *b}\n"
    assert lines_of(text, (path,)) == [line]


def test_the_lines_of_many_paths_are_found_at_once_and_of_what_is_not_there_the_nearest():
    text = "a:\n  b:\n  - c: 1\n  - d\n"
    assert lines_of(text, ["a.b[1]", "a.b[0].c.x", "a.z", "y", "a.b"]) == [4, 3, 1, 1, 2]


@pytest.mark.parametrize(
    ("text", "content", "mistakes"),
    [
        ("a: 1\n", {"a": 1}, []),
        ("a: 1\na: {x: 2}\nb: 3", {"a": 1, "b": 3}, ["2: a: this name is there twice, first in line 1"]),
        (
            "on: {on: 1}\nb: 2024-01-01\n",
            {"b": None},
            [
                '1: YAML reads the name on as bool, not as text: put it in quotes, "on"',
                '1: ?: YAML reads the name on as bool, not as text: put it in quotes, "on"',
                "2: b: 2024-01-01 is a value of type timestamp, which is not allowed: put it in quotes to make it text",
            ],
        ),
        ("a: !!set {x: }", {"a": {"x": None}}, ["1: a: the tag set is not allowed"]),
        ("a: [*x, 1]", {"a": [None, 1]}, ["1: a[0]: the alias *x has no anchor before it, or stands in it"]),
        ("a: {<<: [1, {b: 2}]}", {"a": {"b": 2}}, ["1: a: the merge key << takes a mapping, or a list of mappings"]),
        ("a: {1: x}\nb: [.inf", None, ["YAML reads the name 1 as int", "inf is not a number", "not valid YAML"]),
    ],
)
def test_every_mistake_is_told_and_the_rest_read(text, content, mistakes):
    parsed = examine(text)
    assert parsed.content == content
    assert len(parsed.mistakes) == len(mistakes)
    for mistake, said in zip(parsed.mistakes, mistakes, strict=True):
        assert said in str(mistake)


def test_who_has_too_many_mistakes_is_told_so():
    content, mistakes = examine("- 2024-01-01\n" * 5000)
    assert content is None
    assert len(mistakes) == MAX_MISTAKES + 1
    assert str(mistakes[-1]) == "1001: more than 1000 mistakes: the rest is not looked at"


def test_a_character_that_is_not_allowed_is_found_in_its_line():
    (mistake,) = examine("a: 1\nb: 2\nc: \x07\n").mistakes
    assert mistake.line == 3
    (mistake,) = examine("a: 1\nb: \ud800").mistakes
    assert mistake.line == 2


def test_no_name_tag_or_value_makes_a_message_long_or_breaks_its_line():
    long = "x" * 5000
    for text in (
        f"a: !{long} b",
        f"a: *{long}",
        f"? !!int {'1' * 5000}\n: b",
        f'a: !!int "{long}\\n\\e"',
        f"? {long}\n: b",
    ):
        (mistake,) = examine(text).mistakes
        assert len(str(mistake)) < 400
        assert str(mistake).isprintable()
