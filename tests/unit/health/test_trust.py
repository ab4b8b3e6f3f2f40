"""What is read of a CA file. What comes of it when backends are checked is in test_probe.py."""

import os
import ssl
from pathlib import Path

import pytest

from dynamic_toolset.health import trust as subject
from dynamic_toolset.health.trust import read_authorities, trust
from dynamic_toolset.settings import HealthCheckSettings, SettingsError
from tests.unit.health.backends import Certificate


@pytest.fixture(scope="module")
def pem(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    return Certificate(tmp_path_factory.mktemp("tls")).file.read_bytes()


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "ca.pem"


def reading(file: Path, *, verify: bool = True) -> HealthCheckSettings:
    return HealthCheckSettings(ca_file=str(file), verify_tls=verify)


def test_a_pipe_is_not_waited_for(file: Path) -> None:
    os.mkfifo(file)
    with pytest.raises(SettingsError, match=rf"healthCheck\.caFile {file}: not a regular file"):
        read_authorities(reading(file))


@pytest.mark.parametrize("before", ["", "# Főtanúsítvány\n", "Bag Attributes\n    friendlyName: \xe9\n"])
def test_what_stands_between_the_certificates_is_passed_over(file: Path, pem: bytes, before: str) -> None:
    file.write_bytes(before.encode("latin-1", errors="replace") + pem + before.encode() + pem)
    context = trust(reading(file), read_authorities(reading(file)))
    assert context.cert_store_stats()["x509"] == ssl.create_default_context().cert_store_stats()["x509"] + 1


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (None, "No such file or directory"),
        (b"", "no certificates in PEM"),
        (b"no certificate", "no certificates in PEM"),
        (b"\x00\xff", "no certificates in PEM"),
        (b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n", "no certificates in PEM"),
        (b"#" * (subject.MAX_BYTES + 1), "longer than 4194304 bytes"),
    ],
)
def test_a_ca_file_that_cannot_be_used_is_named(file: Path, content: bytes | None, why: str) -> None:
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(SettingsError, match=rf"healthCheck\.caFile {file}: {why}"):
        read_authorities(reading(file))


def test_half_a_certificate_after_a_whole_one_is_no_good_file(file: Path, pem: bytes) -> None:
    file.write_bytes(pem + pem[: len(pem) // 2])
    with pytest.raises(SettingsError, match="no certificates in PEM"):
        read_authorities(reading(file))


def test_a_folder_is_no_ca_file(file: Path) -> None:
    file.mkdir()
    with pytest.raises(SettingsError, match="Is a directory"):
        read_authorities(reading(file))


def test_who_verifies_nothing_needs_no_file(file: Path) -> None:
    assert read_authorities(reading(file, verify=False)) == ""
    assert read_authorities(HealthCheckSettings()) == ""
    assert read_authorities(HealthCheckSettings(ca_file="")) == ""
