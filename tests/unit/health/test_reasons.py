"""Why a check failed, in words: what the tests of the probe cannot bring about with a real server."""

import errno
import ssl

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dynamic_toolset.health import reasons


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (OSError(errno.EHOSTUNREACH, "x"), "no route to host"),
        (OSError(errno.ETIMEDOUT, "x"), "connection timed out"),
        (ConnectionResetError(errno.ECONNRESET, "x"), "connection reset by peer"),
        (ssl.SSLError(1, "x"), "TLS failed: no reason given; does it speak https here?"),
        (OSError("what the backend said"), "connection failed"),
        (ValueError("what the backend said"), "the check cannot be sent: its URL or one of its headers is malformed"),
    ],
)
def test_errors_of_the_connection(error: OSError | ValueError, reason: str) -> None:
    assert reasons.of_error(error) == reason


@pytest.mark.parametrize(
    ("code", "message", "helps"),
    [
        (10, "certificate has expired", "renew it"),
        (20, "unable to get local issuer certificate", "healthCheck.caFile"),
    ],
)
def test_what_helps_depends_on_what_is_wrong_with_the_certificate(code: int, message: str, helps: str) -> None:
    why = ssl.SSLCertVerificationError()
    why.verify_code, why.verify_message = code, message
    reason = reasons.of_error(why)
    assert message in reason
    assert helps in reason
    assert ("caFile" in reason) == (helps == "healthCheck.caFile")


@given(st.text())
def test_any_text_becomes_one_short_printable_line(text: str) -> None:
    line = reasons.one_line(text)
    assert line.isprintable()
    assert len(line) <= reasons.MAX_LENGTH
    if text.isprintable() and len(text) <= reasons.MAX_LENGTH:
        assert line == text


@given(st.text())
def test_wherever_a_redirect_leads_the_reason_is_harmless(location: str) -> None:
    reason = reasons.of_redirect(location)
    assert reason.isascii()
    assert not set(reason) & set("{}$<>\"'\n")
