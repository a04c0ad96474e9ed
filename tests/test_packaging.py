"""What is installed: the wheel's files, and the versions that were tested, newest and oldest."""

import re
import subprocess
import tomllib
import zipfile
from importlib import metadata
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.version import Version

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def requirements(*extras: str) -> list[Requirement]:
    lines = PROJECT["dependencies"] + [line for extra in extras for line in PROJECT["optional-dependencies"][extra]]
    return [Requirement(line) for line in lines]


def pinned(name: str) -> dict[str, str]:
    """``{"numpy": "2.4.6", ..}`` of a file of constraints; names as PyPI compares them."""
    lines = [line.partition("#")[0].strip() for line in (ROOT / name).read_text().splitlines()]
    pins = [line.split("==") for line in lines if line]
    return {canonical(package): version for package, version in pins}


def canonical(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def test_the_wheel_holds_every_file_of_the_package(tmp_path):
    from hatchling.builders.wheel import WheelBuilder

    (built,) = WheelBuilder(str(ROOT)).build(directory=str(tmp_path), versions=["standard"])
    with zipfile.ZipFile(built) as wheel:
        found = {name for name in wheel.namelist() if ".dist-info/" not in name}
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", "src"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    if listed.returncode:
        pytest.skip("needs a checkout: git lists the files that belong to the package")
    assert found == {line.removeprefix("src/") for line in listed.stdout.splitlines()}
    assert {"lingula/py.typed", "lingula/published.csv"} <= found
    assert any(name.endswith(".html.j2") for name in found)


def test_nothing_that_comes_by_itself_is_under_the_gpl():
    """What lingula needs, what that needs, and so on; pylibjpeg-libjpeg was once among it."""
    licences: dict[str, str] = {}
    wanted = requirements("dicom", "all")
    while wanted:
        requirement = wanted.pop()
        name = canonical(requirement.name)
        if name in licences:
            continue
        about = metadata.metadata(name)
        classifiers = [line for line in about.get_all("Classifier") or [] if line.startswith("License")]
        licences[name] = " ".join([about.get("License-Expression") or "", *classifiers])
        for needed in map(Requirement, metadata.requires(name) or []):
            extras = requirement.extras or {""}
            if needed.marker is None or any(needed.marker.evaluate({"extra": extra}) for extra in extras):
                wanted.append(needed)
    assert "Apache" in licences["python-gdcm"]
    assert {name: licence for name, licence in licences.items() if re.search("GPL|General Public", licence)} == {}


@pytest.mark.parametrize("requirement", requirements("dev"), ids=lambda requirement: requirement.name)
def test_every_dependency_was_tested_at_a_version_that_is_allowed(requirement):
    assert requirement.specifier.contains(pinned("constraints.txt")[canonical(requirement.name)])


@pytest.mark.parametrize("requirement", requirements(), ids=lambda requirement: requirement.name)
def test_every_floor_is_what_make_test_oldest_installs(requirement):
    (floor,) = requirement.specifier
    assert floor.operator == ">="
    assert Version(floor.version) == Version(pinned("constraints-oldest.txt")[canonical(requirement.name)])
