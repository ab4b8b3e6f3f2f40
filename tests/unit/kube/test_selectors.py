"""Label selectors: what is read, and the pattern that says the same."""

import re

from hypothesis import example, given
from hypothesis import strategies as st

from dynamic_toolset.kube import selectors


@given(
    st.text("aB1-_./ \t\n\x0b\u00a0=!,()")
    | st.lists(
        st.sampled_from(["a", " in ", "notin", "(", ")", ",", " ", "==", "=", "!=", "!", "b-", "x/y", "."]), max_size=12
    ).map("".join)
)
@example("a in (b,c),!d , e notin (),f==g")
@example("a in (b),c)")
@example("a,b)")
def test_the_pattern_takes_exactly_what_is_read(text: str) -> None:
    try:
        selectors.parse(text)
    except ValueError:
        read = False
    else:
        read = True
    # In Python $ also stands before a line feed at the end, but not in Go.
    pattern = selectors.pattern().removesuffix("$") + r"\Z"
    assert (re.match(pattern, text) is not None) is read
