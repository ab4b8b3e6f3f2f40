import math
import sys

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from dynamic_toolset.settings import YamlLoader
from dynamic_toolset.toolset.emitter import to_yaml

text = st.text(st.characters(exclude_categories=["Cs"]))
scalars = st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats(allow_nan=False) | text
values = st.dictionaries(
    text,
    st.recursive(scalars, lambda inner: st.lists(inner) | st.dictionaries(text, inner), max_leaves=20),
)


@pytest.mark.parametrize("loader", [yaml.SafeLoader, YamlLoader], ids=["pure", "libyaml"])
class TestRoundTrip:
    @given(value=values.filter(lambda value: all(math.isfinite(number) for number in floats(value))))
    def test_what_is_written_is_read_again(self, loader, value):
        assert yaml.load(to_yaml(value), loader) == value

    @pytest.mark.parametrize(
        "trap",
        [
            *(
                "on",
                "no",
                "123",
                "0123",
                "12:30:45",
                "~",
                "",
                " x ",
                "a: b",
                "# no",
                "{{ env.X }}",
                "2024-01-01",
                "---",
            ),
            *(
                "\x00",
                "\x7f",
                "\x85",
                "\xa0",
                "\u2028",
                "\u2029",
                "\ufeff",
                "\ufffe",
                "\U0001f600",
                "a\tb\r\nc",
                '"\\/',
            ),
            *("---", "- x", "&a", "*a", "!!python/none", "%YAML", "long " * 1000, "x\n" * 3, '"\\/'),
        ],
    )
    def test_yaml_11_traps_stay_text(self, loader, trap):
        written = to_yaml({trap[:200]: trap, "list": [trap, {"key": trap}]})
        assert yaml.load(written, loader) == {trap[:200]: trap, "list": [trap, {"key": trap}]}

    @pytest.mark.parametrize("number", [1e-7, 1e16, -2.5e300, 5e-324, sys.float_info.max, -0.0, 1.5])
    def test_floats_stay_numbers(self, loader, number):
        read = yaml.load(to_yaml({"x": number}), loader)["x"]
        assert isinstance(read, float)
        assert read == number


def floats(value):
    if isinstance(value, dict):
        return [number for member in value.values() for number in floats(member)]
    if isinstance(value, list):
        return [number for member in value for number in floats(member)]
    return [value] if isinstance(value, float) else []


@given(values, st.randoms(use_true_random=False))
def test_the_order_of_keys_does_not_matter(value, random):
    def shuffled(part):
        if isinstance(part, dict):
            items = [(key, shuffled(member)) for key, member in part.items()]
            random.shuffle(items)
            return dict(items)
        return [shuffled(member) for member in part] if isinstance(part, list) else part

    assert to_yaml(shuffled(value)) == to_yaml(value)


def test_layout_is_for_people():
    value = {"b": {"list": [{"y": 1, "x": "1"}, [], [[1], ["2"]]], "none": None}, "a": [True, 1.0], "empty": {}}
    assert to_yaml(value) == (
        '"a": [true, 1.0]\n'
        '"b":\n'
        '  "list":\n'
        '    - "x": "1"\n'
        '      "y": 1\n'
        "    - []\n"
        "    - - [1]\n"
        '      - ["2"]\n'
        '  "none": null\n'
        '"empty": {}\n'
    )
    assert to_yaml({}) == "{}\n"


def test_nothing_is_shared_by_anchors():
    part = {"x": [1]}
    assert "&" not in to_yaml({"a": part, "b": part})


def test_a_byte_order_mark_inside_is_escaped():
    assert to_yaml({"a": "\ufeff"}) == '"a": "\\ufeff"\n'  # YAML 1.2 has no place for it, though PyYAML reads it
