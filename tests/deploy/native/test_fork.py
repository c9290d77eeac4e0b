"""A service loads a network, forks, and its children classify and end as any program does."""

from __future__ import annotations

import subprocess
import sys

import pytest

from bssl_tf_deploy.library import host_target
from tests.native import ROOT, built_library

BUNDLE = ROOT / "bssl_tf" / "zoo" / "fashion-mnist-28" / "bundle"
HOSTS_PROGRAM = """
import os, sys
from pathlib import Path
from bssl_tf_deploy import load

network = load(sys.argv[1], threads=int(sys.argv[2]), runtime="lce")
images = sorted(Path(sys.argv[1], "examples").iterdir())
wanted = network.classify(images)
for generation in range(2):
    child = os.fork()
    if child:
        sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
    assert network.classify(images) == wanted
print("the grandchild is right")
"""
PROGRAM = """
import os, sys
from pathlib import Path
from bssl_tf_deploy.litert import LiteRtInterpreter
import numpy as np

model = Path(sys.argv[1], "model.tflite").read_bytes()
network = LiteRtInterpreter(model, int(sys.argv[3]), Path(sys.argv[2]))
shape = network.native.get_input_details()[0]["shape"]
images = np.random.default_rng(0).normal(size=(2, *shape[1:])).astype("float32")
wanted = network.predict(images)
for generation in range(2):
    child = os.fork()
    if child:
        sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
    assert (network.predict(images) == wanted).all()
print("the grandchild is right")
"""


# As the page on devices describes it.
WITHOUT_THE_PACKAGE = """
import os, sys
import numpy as np
from ai_edge_litert.interpreter import Interpreter, load_delegate

model, library = sys.argv[1] + "/model.tflite", sys.argv[2]

def made():
    runtime = load_delegate(library, {"num_threads": "4"})
    found = Interpreter(model, num_threads=4, experimental_delegates=[runtime])
    found.allocate_tensors()
    return found

def outputs(interpreter):
    [image] = interpreter.get_input_details()
    interpreter.set_tensor(image["index"], np.random.default_rng(0).normal(size=image["shape"]).astype("float32"))
    interpreter.invoke()
    return interpreter.get_tensor(interpreter.get_output_details()[0]["index"])

inherited = made()
wanted = outputs(inherited)
child = os.fork()
if not child:
    os._exit(0 if (outputs(made()) == wanted).all() else 1)
status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
assert (outputs(inherited) == wanted).all()
sys.exit(status)
"""


def test_a_child_makes_a_plain_interpreter_of_its_own_and_leaves_its_parents_alone() -> None:
    command = [sys.executable, "-c", WITHOUT_THE_PACKAGE, str(BUNDLE), str(built_library(host_target()))]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("threads", [1, 2, 3, 4, 8])
def test_children_and_their_children_give_the_parents_results_and_end(threads: int) -> None:
    """Python tidies up at their end, which is where they hung or died."""
    command = [sys.executable, "-c", PROGRAM, str(BUNDLE), str(built_library(host_target())), str(threads)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert (done.returncode, done.stdout) == (0, "the grandchild is right\n"), done.stderr


@pytest.mark.parametrize("threads", [1, 2, 4])
def test_so_do_those_with_the_interpreter_of_larq_compute_engine(threads: int) -> None:
    command = [sys.executable, "-c", HOSTS_PROGRAM, str(BUNDLE), str(threads)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert (done.returncode, done.stdout) == (0, "the grandchild is right\n"), done.stderr
