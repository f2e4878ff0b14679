"""What strangers look for in a repository is there, and says what the code says."""

from __future__ import annotations

import hashlib
import re
import tomllib
from pathlib import Path

import yaml

import bigchem

ROOT = Path(__file__).parent.parent
SHA256 = "0ffddef9e48f8a09aed5caf2d44f7ba1c1be2d9b8e0a6f693b1635b2d5566645"
"""Of the Apache License 2.0's words."""
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def test_the_licence_is_the_one_that_the_package_declares() -> None:
    text = (ROOT / "LICENSE").read_bytes().strip()
    assert PROJECT["license"] == "Apache-2.0"
    assert hashlib.sha256(b" ".join(text.split())).hexdigest() == SHA256


def test_the_citation_has_the_version_the_licence_and_the_paper() -> None:
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert (citation["version"], citation["license"]) == (bigchem.__version__, PROJECT["license"])
    assert [one["title"] for one in citation["references"]] == [
        "Unifying Molecular and Textual Representations via Multi-task Language Modelling"
    ]


def test_the_changelog_knows_the_version() -> None:
    assert re.search(rf"^## {re.escape(bigchem.__version__)}$", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)


def test_every_file_that_contributors_are_sent_to_exists() -> None:
    named = re.findall(r"`([\w./-]+/[\w.-]+)`", (ROOT / "CONTRIBUTING.md").read_text())
    assert len(named) > 10
    assert [name for name in named if not (ROOT / name).exists()] == []


def test_types_ship_with_the_package() -> None:
    assert (ROOT / "bigchem" / "py.typed").is_file()


def test_the_workflow_and_the_forms_are_what_github_reads() -> None:
    workflow = yaml.safe_load((ROOT / ".github/workflows/ci.yml").read_text())
    steps = workflow["jobs"]["test"]["steps"]
    assert any(".ci/run" in step.get("run", "") for step in steps)
    for form in ("bug", "idea"):
        body = yaml.safe_load((ROOT / f".github/ISSUE_TEMPLATE/{form}.yml").read_text())["body"]
        assert all({"type", "attributes"} <= set(field) for field in body)
