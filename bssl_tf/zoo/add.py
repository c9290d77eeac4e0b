"""Adds a run's student to the zoo: `python -m bssl_tf.zoo.add RUN NAME COMMAND [BUNDLE]`. For maintainers."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

from bssl_tf.files import read_json
from bssl_tf.models.saved import load_weights, read_network, save_network
from bssl_tf.settings import FINE_TUNED, merge, read_run_config, write_config
from bssl_tf.zoo import Entry, write_entry, zoo_folder
from bssl_tf_deploy.bundle import read_bundle, write_bundle
from bssl_tf_deploy.manifest import EXAMPLES

_PROTOCOL = "linear-probe"


def add(run: Path, name: str, command: str, folder: Path | None = None, bundle: Path | None = None) -> Entry:
    """Packs the student of `run`, which must have been evaluated, into the zoo.

    Args:
        run: a run folder.
        name: after `zoo:`.
        command: what trained it, for the record.
        folder: the zoo; None for the package's own.
        bundle: what `bssl-tf export` made of the run, if the entry is to have a ready bundle. Its runtime library stays
            behind: what runs the bundle brings its own.
    """
    folder = folder or zoo_folder()
    network, tables = read_network(run / "student"), read_run_config(run)
    student = network.build()
    load_weights(run / "student", {"student": student})
    save_network(folder / name, network, {"student": student}, packed=True)
    tuned = (run / "head").is_dir()
    if tuned:
        shutil.copytree(run / "head", folder / name / "head", dirs_exist_ok=True)
    # The teacher and the data lay somewhere on the machine that trained; neither comes along.
    kept = {"teacher": "", "data": {"data_dir": ""}, "training": {"probe_data": ""}}
    # That of a user's network is a path.
    kept |= {"backbone": {"name": network.backbone}} | ({"student": ""} if tuned else {})
    write_config(folder / name / "config.toml", merge(tables, kept))
    if bundle is not None:
        found = read_bundle(bundle)
        examples = sorted((bundle / EXAMPLES).iterdir(), key=lambda path: int(path.name.partition("-")[0]))
        write_bundle(
            folder / name / "bundle",
            found.manifest,
            found.model,
            found.golden_inputs,
            found.golden_outputs,
            [path.stem.partition("-")[2] for path in examples],
            overwrite=True,
        )
    evaluation, environment = read_json(run / "evaluation.json"), read_json(run / "environment.json")
    protocol = FINE_TUNED if tuned else _PROTOCOL
    facts = {
        "method": tables["method"],
        "data": tables["data"]["source"],
        "command": command,
        "commit": str(environment.get("commit") or "unknown"),
        "protocol": protocol,
        "top1": round(evaluation["rows"][0]["scores"][protocol][0], 2),
    }
    return write_entry(folder, name, facts)


if __name__ == "__main__":
    run, name, command, *bundles = sys.argv[1:]
    made = add(Path(run), name, command, bundle=Path(bundles[0]) if bundles else None)
    print(f"{made.folder}: {made.weights_bytes} bytes, {made.protocol} {made.top1} %")
