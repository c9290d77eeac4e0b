"""`load` with a real network: our runtime in every interpreter, LCE's as a second opinion, and what is refused."""

from __future__ import annotations

import gc
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from bssl_tf_deploy import load
from bssl_tf_deploy.bundle import read_bundle
from bssl_tf_deploy.errors import BundleError, RuntimeUnavailableError
from bssl_tf_deploy.library import LIBRARY, bundled_name, describe, host_target, library_for, own_library
from bssl_tf_deploy.litert import LiteRtInterpreter
from bssl_tf_deploy.runtime import load_runtime
from tests.conftest import require_or_skip
from tests.deploy.bundles import write


@pytest.fixture(autouse=True)
def own(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The package's own library: the one of this checkout, built from the sources as they are."""
    path = tmp_path_factory.getbasetemp() / LIBRARY
    if not path.exists():
        path.write_bytes(library_for(host_target()).content)
    monkeypatch.setattr("bssl_tf_deploy.runtime.own_library", lambda: path)
    return path


@pytest.fixture
def without_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bssl_tf_deploy.runtime.own_library", lambda: None)


@pytest.fixture
def without_lce(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bssl_tf_deploy.runtime._offered", lambda name: None)


def images(bundle: Path, count: int) -> np.ndarray:
    """Pixels of images of the network's size, uint8 [N, H, W, C]."""
    shape = read_bundle(bundle).manifest.inputs[0].shape
    return np.random.default_rng(0).integers(0, 256, (count, *shape[1:]), dtype=np.uint8)


@pytest.mark.parametrize("threads", [1, 3])
def test_both_runtimes_give_the_golden_outputs_and_agree(real_bundle: Path, threads: int) -> None:
    bundle = read_bundle(real_bundle)
    ours, lce = load(bundle, threads, "own"), load(real_bundle, threads, "lce")
    for predictor in (ours, lce):
        predictor.verify_golden()
    batch = images(real_bundle, 20)
    # Rounding alone: what is binary is exact, and the float layers of both are XNNPACK's.
    np.testing.assert_allclose(ours.outputs(batch)["logits"], lce.outputs(batch)["logits"], rtol=1e-4, atol=1e-4)
    assert ours.check_against(load_runtime(bundle, threads, "lce"), batch) < 1e-4


def test_it_says_what_computes(real_bundle: Path, own: Path) -> None:
    version, kernels = describe(own)
    ours, lce = load_runtime(read_bundle(real_bundle), runtime="own"), load_runtime(read_bundle(real_bundle), 1, "lce")
    assert (ours.name, lce.name) == ("own", "lce")
    assert kernels.split(",")[0] in ours.kernel
    assert ours.versions["bssl-tf runtime"] == version
    assert "ai-edge-litert" in ours.versions
    assert list(lce.versions) == ["larq-compute-engine"]
    # The portable kernels run everywhere.
    assert "portable" in kernels


@pytest.mark.parametrize("missing", [(), ("ai_edge_litert.interpreter",)])
def test_every_interpreter_that_is_installed_runs_it(
    real_bundle: Path, own: Path, missing: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in missing:
        monkeypatch.setitem(sys.modules, module, None)
    bundle = read_bundle(real_bundle)
    made = LiteRtInterpreter(bundle.model, 2, own)
    expected = "tensorflow" if missing else "ai-edge-litert"
    assert expected in made.versions
    np.testing.assert_allclose(made.run(bundle.golden_inputs)[0], bundle.golden_outputs[0], rtol=1e-4, atol=1e-4)


def test_without_a_library_of_its_own_lce_runs_it(real_bundle: Path, without_own: None) -> None:
    assert load_runtime(read_bundle(real_bundle)).name == "lce"
    with pytest.raises(RuntimeUnavailableError, match=r"not trusted.*--trust-bundle-library"):
        load(real_bundle, runtime="own")


def test_with_a_library_of_its_own_lce_is_not_asked(real_bundle: Path, without_lce: None) -> None:
    assert load_runtime(read_bundle(real_bundle)).name == "own"
    with pytest.raises(RuntimeUnavailableError, match="LCE's interpreter is not installed"):
        load(real_bundle, runtime="lce")


def test_a_bundles_library_is_loaded_only_on_trust(real_bundle: Path, tmp_path: Path, without_own: None) -> None:
    copy = shutil.copytree(real_bundle, tmp_path / "copy")
    library = str(copy / bundled_name(host_target()))

    def loaded() -> bool:
        return library in Path("/proc/self/maps").read_text()

    require_or_skip(Path("/proc/self/maps").exists(), "what is loaded can be seen on Linux only")
    for runtime in ("auto", "lce"):
        load(copy, runtime=runtime)
    with pytest.raises(RuntimeUnavailableError):
        load(copy, runtime="own")
    assert not loaded()
    predictor = load(copy, trust_bundle_library=True)
    predictor.verify_golden()
    assert loaded()


def test_a_bundles_library_is_not_needed_when_there_is_an_own_one(real_bundle: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(real_bundle, tmp_path / "copy")
    load(copy, trust_bundle_library=True).verify_golden()
    assert str(copy) not in Path("/proc/self/maps").read_text()


def test_a_bundles_library_that_was_changed_is_refused(real_bundle: Path, tmp_path: Path, without_own: None) -> None:
    copy = shutil.copytree(real_bundle, tmp_path / "copy")
    bundle = read_bundle(copy)
    library = copy / bundled_name(host_target())
    content = library.read_bytes()
    library.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    for changed in (copy, bundle):
        with pytest.raises(BundleError, match=f"{LIBRARY} was changed"):
            load(changed, runtime="own", trust_bundle_library=True)


def test_a_bundle_without_a_library_says_so(tmp_path: Path, without_own: None, without_lce: None) -> None:
    bundle = write(tmp_path / "bundle")
    with pytest.raises(RuntimeUnavailableError, match=r"installed without a runtime library, and .* has none for"):
        load(bundle, trust_bundle_library=True)


def test_a_library_that_does_not_load_is_told_and_not_passed_over(
    real_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken = tmp_path / LIBRARY
    monkeypatch.setattr("bssl_tf_deploy.runtime.own_library", lambda: broken)
    [other] = {"x86_64", "arm64"} - {host_target()}
    for content in (b"no library", library_for(other).content):
        broken.write_bytes(content)
        with pytest.raises(RuntimeUnavailableError, match="cannot be loaded") as caught:
            load(real_bundle)
        assert "\n" not in str(caught.value)


def test_a_model_that_it_cannot_run_is_told(tmp_path: Path) -> None:
    with pytest.raises(RuntimeUnavailableError, match="does not run this model"):
        load(write(tmp_path / "bundle", model=b"no model at all"), runtime="own")


def test_arguments_out_of_range_are_refused(real_bundle: Path) -> None:
    for threads in (0, -1, 65):
        with pytest.raises(ValueError, match="threads"):
            load(real_bundle, threads)
    with pytest.raises(ValueError, match="no runtime 'fast'"):
        load(real_bundle, runtime="fast")


def test_many_predictors_at_once_do_not_disturb_each_other(real_bundle: Path) -> None:
    bundle = read_bundle(real_bundle)
    batch = images(real_bundle, 30)
    expected = load(bundle, runtime="own").outputs(batch)["logits"]

    def work(threads: int) -> np.ndarray:
        return load(bundle, threads, "own").outputs(batch)["logits"]

    with ThreadPoolExecutor(4) as pool:
        for outputs in pool.map(work, [1, 2, 3, 4] * 3):
            np.testing.assert_array_equal(outputs, expected)


def test_delegates_outlive_their_interpreters(real_bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In whatever way an interpreter goes: the garbage collector would end delegates first."""
    import weakref

    from ai_edge_litert import interpreter as litert

    ends: list[str] = []
    destroy = litert.Delegate.__del__

    def told(delegate: object) -> None:
        ends.append("delegate")
        destroy(delegate)

    monkeypatch.setattr(litert.Delegate, "__del__", told)
    bundle = read_bundle(real_bundle)
    for in_a_circle in (False, True):
        made = load_runtime(bundle, 2, "own")
        assert isinstance(made, LiteRtInterpreter)
        made.run(bundle.golden_inputs)
        weakref.finalize(made.native._interpreter, ends.append, "interpreter")
        circle: list[object] = [made]
        if in_a_circle:
            circle.append(circle)
        del made, circle
        gc.collect()
        assert ends == ["interpreter", "delegate"]
        ends.clear()


def test_a_program_that_ends_with_predictors_in_use_ends_well(real_bundle: Path, own: Path) -> None:
    program = (
        "import sys\nfrom pathlib import Path\nfrom bssl_tf_deploy import load, runtime\n"
        f"runtime.own_library = lambda: Path({str(own)!r})\n"
        f"kept = [load({str(real_bundle)!r}, threads, 'own') for threads in (1, 4)]\n"
        "for predictor in kept:\n    predictor.verify_golden()\n"
        "kept.append(kept)\nprint('done')\n"
        "raise SystemExit(3)\n"
    )
    done = subprocess.run([sys.executable, "-X", "dev", "-c", program], capture_output=True, text=True, timeout=100)
    assert (done.returncode, done.stdout) == (3, "done\n"), done.stderr


def test_this_checkout_has_a_library() -> None:
    """`make setup` builds it; the command line uses it without being told to."""
    library = own_library()
    assert library is not None
    assert describe(library)[0]
