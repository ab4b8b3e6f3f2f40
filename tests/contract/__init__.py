"""What every Kubernetes API of the tests must do, the real one and the sandbox alike."""

import pytest

pytest.register_assert_rewrite("tests.contract.suite")
