from __future__ import annotations

import sys

import pytest

from bssl_tf_deploy.errors import RuntimeUnavailableError
from bssl_tf_deploy.litert import LiteRtInterpreter


def test_a_missing_interpreter_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in ("ai_edge_litert.interpreter", "tflite_runtime.interpreter", "tensorflow"):
        monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(RuntimeUnavailableError, match="pip install ai-edge-litert"):
        LiteRtInterpreter(b"")


@pytest.mark.parametrize("content", [b"", b"x" * 100])
def test_what_it_cannot_run_is_told(content: bytes) -> None:
    with pytest.raises(RuntimeUnavailableError, match="does not run this model"):
        LiteRtInterpreter(content)
