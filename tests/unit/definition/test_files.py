"""What is committed is what is generated."""

import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from dynamic_toolset.definition import crd, files
from tests.documentation import ROOT


@pytest.mark.parametrize("name", files())
def test_the_committed_file_is_what_is_generated(name: str) -> None:
    assert (ROOT / name).read_text() == files()[name], "run make generate, and commit what it changes"


def test_generate_writes_all_of_it(tmp_path: Path) -> None:
    for name in files():
        (tmp_path / name).parent.mkdir(exist_ok=True)
    subprocess.run([sys.executable, "-m", "dynamic_toolset.definition", tmp_path], check=True)
    assert {name: (tmp_path / name).read_text() for name in files()} == dict(files())


def test_the_manifest_is_the_definition() -> None:
    assert yaml.safe_load(crd.manifest()) == crd.definition()
    assert crd.definition()["metadata"]["name"] == "toolsetconfigs.toolset.kubernaut.io"
