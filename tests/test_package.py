"""The wheel is the whole product: built here, and used where there is no checkout."""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from email.parser import Parser
from pathlib import Path

import pytest
from hatchling.builders.wheel import WheelBuilder

from bigchem.base.installed import resources

ROOT = Path(__file__).parent.parent
PLACES = {
    "bigchem": Path("bigchem"),
    "constraints.txt": Path("bigchem/_shipped/constraints.txt"),
    "ds_configs": Path("bigchem/_shipped/ds_configs"),
    "slurm/clusters": Path("bigchem/_shipped/clusters"),
}
"""In the wheel, by the place in a checkout."""


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> zipfile.ZipFile:
    (path,) = WheelBuilder(str(ROOT)).build(directory=str(tmp_path_factory.mktemp("dist")))
    return zipfile.ZipFile(path)


def test_the_wheel_has_the_package_the_shipped_files_and_nothing_else(wheel: zipfile.ZipFile) -> None:
    wanted = set()
    for place, there in PLACES.items():
        root = ROOT / place
        paths = [root] if root.is_file() else [path for path in root.rglob("*") if "__pycache__" not in path.parts]
        wanted |= {str(there / path.relative_to(root)) for path in paths if path.is_file()}
    assert len(wanted) > 400
    assert {name for name in wheel.namelist() if ".dist-info/" not in name} == wanted


def test_the_wheel_says_what_it_is_and_has_its_licence(wheel: zipfile.ZipFile) -> None:
    (info,) = {name.split("/")[0] for name in wheel.namelist() if ".dist-info/" in name}
    about = Parser().parsestr(wheel.read(f"{info}/METADATA").decode())
    assert (about["Name"], about["License-Expression"]) == ("bigchem-t5", "Apache-2.0")
    assert wheel.read(f"{info}/licenses/LICENSE") == (ROOT / "LICENSE").read_bytes()
    assert wheel.read(f"{info}/entry_points.txt").decode().split() == [
        "[console_scripts]",
        "bigchem",
        "=",
        "bigchem.cli.main:main",
    ]


def test_the_unpacked_wheel_lists_and_finds_what_a_checkout_has(wheel: zipfile.ZipFile, tmp_path: Path) -> None:
    wheel.extractall(tmp_path / "site")
    code = (
        "from bigchem.base.installed import resources; from bigchem.launch.cluster.profile import load_profile;"
        "load_profile('h100'); print(*resources.every(), sep='\\n')"
    )
    env = {**os.environ, "PYTHONPATH": str(tmp_path / "site")}
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env=env, capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == [*resources.every()]
