"""What can be checked of the Kotlin that users are shown without Android's SDK: names, calls, XML, versions."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path
from xml.etree import ElementTree

import pytest

from bssl_tf_deploy.readme import readme
from bssl_tf_deploy.tasks import multilabel
from tests.deploy import bundles
from tests.java import ANDROID, ROOT, compiled

APP = ANDROID / "example" / "app"
MAIN = APP / "src" / "main"
ACTIVITY = MAIN / "kotlin" / "bssl" / "tf" / "example" / "MainActivity.kt"
NAME = "{http://schemas.android.com/apk/res/android}name"
# What variables of the Kotlin are of.
OF = {"classifier": "BsslClassifier", "detector": "BsslDetector", "box": "DetectedBox", "bundle": "BsslBundle"}
KOTLINS_OWN = {"use"}


@pytest.fixture(scope="module")
def members() -> dict[str, set[str]]:
    """By public class of the library: its public methods and fields, and properties as Kotlin has them."""
    folder = compiled() / "bssl" / "tf"
    files = sorted(str(path) for path in folder.glob("*.class") if "$" not in path.name and path.stem != "package-info")
    done = subprocess.run(["javap", "-public", *files], capture_output=True, text=True, check=True)
    found: dict[str, set[str]] = {}
    for line in done.stdout.splitlines():
        if begun := re.match(r"public .*(?:class|interface) bssl\.tf\.(\w+)", line):
            found[begun[1]] = names = set()
        elif method := re.search(r"(\w+)\(", line):
            names.add(method[1])
            if method[1].startswith("get"):
                names.add(method[1][3].lower() + method[1][4:])
    return found


def calls_of(kotlin: str) -> set[tuple[str, str]]:
    """Class and member of each call into the library."""
    found = {(kind, name) for kind, name in re.findall(r"\b(Bssl\w+)\s*\.(\w+)\b", kotlin)}
    found |= {(OF[one], name) for one, name in re.findall(rf"\b({'|'.join(OF)})\s*\.(\w+)\b", kotlin)}
    return {(kind, name) for kind, name in found if name not in KOTLINS_OWN}


def kotlin_of_readmes() -> dict[str, str]:
    from tests.deploy.android.test_same_as_python import detector

    several = bundles.manifest(task="multilabel", table=multilabel.Table(bundles.LABELS, None))
    made = {"classification": bundles.manifest(), "detection": detector(32, 32, 3), "multilabel": several}
    return {
        task: readme(manifest.__class__(**{**vars(manifest), "target": "android-arm64"}), library=True)
        for task, manifest in made.items()
    }


@pytest.mark.parametrize("task", ["classification", "detection", "multilabel"])
def test_the_readme_of_a_bundle_shows_its_task_in_ten_lines_of_kotlin(task: str, members: dict[str, set[str]]) -> None:
    text = kotlin_of_readmes()[task]
    assert max(map(len, text.partition("From native code")[0].splitlines())) <= 120
    [kotlin] = re.findall(r"\n\nIn Kotlin, .*:\n\n((?:    .*\n|\n)+)", text)
    assert len(kotlin.strip().splitlines()) <= 10
    wanted = {"classification": "BsslClassifier", "detection": "BsslDetector", "multilabel": "BsslDelegate"}[task]
    assert wanted in kotlin and "close()" in kotlin and "{kotlin}" not in text and "{{" not in text
    for kind in re.findall(r"\bBssl\w+", kotlin):
        assert kind in members and f"import bssl.tf.{kind}" in kotlin
    for kind, name in calls_of(kotlin.replace(f"bssl.tf.{wanted}", "")):
        assert name in members[kind], (kind, name)


def test_the_example_calls_what_the_library_has(members: dict[str, set[str]]) -> None:
    kotlin = ACTIVITY.read_text()
    body = "\n".join(line for line in kotlin.splitlines() if not line.startswith("import"))
    for kind in set(re.findall(r"\bBssl\w+", body)):
        assert kind in members and f"import bssl.tf.{kind}\n" in kotlin
    calls = calls_of(body)
    assert len(calls) >= 6
    assert {(kind, name) for kind, name in calls if name not in members[kind]} == set()
    page = (ROOT / "docs/pages/reference/device.md").read_text().partition("## In an Android app")[2]
    shown = calls_of(page.partition("## Without")[0])
    assert ("BsslClassifier", "fromAssets") in shown
    assert {(kind, name) for kind, name in shown if name not in members[kind]} == set()


def test_the_example_is_of_one_piece() -> None:
    kotlin, gradle = ACTIVITY.read_text(), (APP / "build.gradle.kts").read_text()
    manifest = ElementTree.parse(MAIN / "AndroidManifest.xml").getroot()
    [activity] = manifest.iter("activity")
    assert activity.attrib[NAME] == f".{ACTIVITY.stem}" and f"class {ACTIVITY.stem} " in kotlin
    assert "android.permission.CAMERA" in {one.attrib[NAME] for one in manifest.iter("uses-permission")}
    assert 'namespace = "bssl.tf.example"' in gradle and kotlin.startswith("package bssl.tf.example\n")
    # As the library has them.
    build = (ANDROID / "build.py").read_text()
    assert re.findall(r"minSdk = (\d+)", gradle) == ["24"]
    assert re.findall(r'abiFilters \+= listOf\("([\w-]+)", "(\w+)"\)', gradle) == [
        tuple(re.findall(r'"([\w-]+)": "android-', build))
    ]
    assert set(re.findall(r"tensorflow-lite:([\d.]+)", gradle)) == set(
        re.findall(r"tensorflow-lite:([\d.]+)", readme(bundles.manifest(target="android-arm64"), library=True))
    )
    # Layouts, ids and words that the code names.
    resources = MAIN / "res"
    layouts = {path.stem: ElementTree.parse(path).getroot() for path in (resources / "layout").glob("*.xml")}
    ids = {
        value.removeprefix("@+id/")
        for root in layouts.values()
        for one in root.iter()
        for name, value in one.attrib.items()
        if name.endswith("}id")
    }
    strings = {one.attrib["name"] for one in ElementTree.parse(resources / "values" / "strings.xml").getroot()}
    used = {kind: set(re.findall(rf"\bR\.{kind}\.(\w+)", kotlin)) for kind in ("layout", "id", "string")}
    assert used["layout"] == set(layouts) and used["id"] == ids and used["string"] <= strings
    named = re.findall(r"@string/(\w+)", (MAIN / "AndroidManifest.xml").read_text())
    assert set(named) | used["string"] == strings
    # Every name that is imported is used, and brackets close.
    for name in re.findall(r"^import [\w.]+\.(\w+)$", kotlin, re.MULTILINE):
        assert len(re.findall(rf"\b{name}\b", kotlin)) > 1, name
    for opening, closing in ("()", "{}", "[]"):
        assert kotlin.count(opening) == kotlin.count(closing)
    assert all(
        path.suffix in (".kts", ".kt", ".xml", ".md", ".properties", "") for path in tracked(ANDROID / "example")
    )


def tracked(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file()]
