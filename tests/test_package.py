"""The wheel is the whole product: built here, and used where there is no checkout."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tomllib
import zipfile
from email.parser import Parser
from pathlib import Path

import pytest
import yaml
from hatchling.builders.wheel import WheelBuilder

from bigchem.base.installed import resources

ROOT = Path(__file__).parent.parent
PLACES = {
    "bigchem": Path("bigchem"),
    "constraints.txt": Path("bigchem/_shipped/constraints.txt"),
    "ds_configs": Path("bigchem/_shipped/ds_configs"),
    "slurm/clusters": Path("bigchem/_shipped/clusters"),
    "slurm/environments": Path("bigchem/_shipped/environments"),
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


ENVIRONMENTS = ROOT / "slurm" / "environments"
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
IN_CONDA = {"torch": "pytorch", "matplotlib": "matplotlib-base"}
"""Names of conda-forge's packages, where they differ."""


def test_the_conda_environment_has_what_the_package_needs() -> None:
    made = yaml.safe_load((ENVIRONMENTS / "environment.yml").read_text())
    needed = [re.match(r"[\w-]+", one) for one in PROJECT["dependencies"]]
    wanted = {IN_CONDA.get(name[0], name[0]) + name.string[name.end() :] for name in needed if name}
    assert {*made["dependencies"]} - {"pip", "gxx", "python>=3.11,<3.14"} == wanted
    assert PROJECT["requires-python"] == ">=3.11"


def test_both_images_install_the_same_by_commands_that_a_shell_reads() -> None:
    docker = (ENVIRONMENTS / "Dockerfile").read_text()
    apptainer = (ENVIRONMENTS / "apptainer.def").read_text()
    run = "\n".join(re.findall(r"^RUN ((?:.*\\\n)*.*)", docker, re.MULTILINE)).replace("\\\n    && ", "\n")
    sections = re.split(r"^%(\w+)\n", apptainer, flags=re.MULTILINE)
    post = dict(zip(sections[1::2], sections[2::2], strict=True))["post"].replace("{{ extras }}", "${EXTRAS}")
    installs = [[line.strip() for line in text.splitlines() if "pip install" in line] for text in (run, post)]
    assert installs[0] == [line.replace(" torch", ' --index-url "${TORCH}" torch') for line in installs[1]]
    assert len(installs[0]) == 2
    for shell in (run, post):
        subprocess.run(["sh", "-n"], input=shell, text=True, check=True)
    base = re.search(r"ARG PYTHON=(\S+)", docker)
    assert base
    assert f"From: python:{base[1]}-slim-bookworm" in apptainer
    assert f"Programming Language :: Python :: {base[1]}" in PROJECT["classifiers"]
    assert {"Bootstrap", "From"} == set(re.findall(r"^(\w+): ", sections[0], re.MULTILINE))
    assert {*sections[1::2]} == {"arguments", "files", "post", "environment", "test", "runscript", "help"}
