"""A hook of MkDocs: pages that live outside docs/ become pages of the site, and links are those of the repository.

On GitHub a page links to `../slurm/README.md` or to a source file. Here the former is a page, `slurm.md`, and the
latter a copy under `source/`. Whatever a link names must exist, or the build with --strict fails.
"""

import re
from pathlib import Path
from posixpath import dirname, join, normpath, relpath
from typing import Any

from mkdocs.structure.files import File, Files

OUTSIDE = {
    "README.md": "index.md",
    "slurm/README.md": "slurm.md",
    "ds_configs/README.md": "ds_configs.md",
    "CONTRIBUTING.md": "contributing.md",
    "CHANGELOG.md": "changelog.md",
    "SECURITY.md": "vulnerabilities.md",
}
"""Pages outside docs/: place in the repository, place on the site."""
HERE = {page: place for place, page in OUTSIDE.items()}
LINK = re.compile(r"(\]\()(?!https?:|mailto:|#)([^)#\s]+)")


def on_files(files: Files, config: Any) -> Files:
    """Adds the pages outside docs/, and the files that any page links to."""
    root = dirname(config.config_file_path)
    for place, page in OUTSIDE.items():
        files.append(File.generated(config, page, abs_src_path=join(root, place)))
    for page in list(files.documentation_pages()):
        for _, target in LINK.findall(page.content_string):
            linked = site_place(page.src_uri, target)
            path = join(root, linked.removeprefix("source/"))
            if linked.startswith("source/") and files.get_file_from_path(linked) is None and Path(path).is_file():
                files.append(File.generated(config, linked, abs_src_path=path))
    return files


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """The page with its links as the site has them."""
    here = page.file.src_uri
    return LINK.sub(lambda link: link[1] + relpath(site_place(here, link[2]), dirname(here) or "."), markdown)


def site_place(page: str, target: str) -> str:
    """The place on the site of a link's target. page: its place on the site, from which its place in the repository
    follows, and so what a relative link means."""
    place = normpath(join(dirname(HERE.get(page, f"docs/{page}")), target))
    if place in OUTSIDE:
        return OUTSIDE[place]
    return place.removeprefix("docs/") if place.startswith("docs/") else f"source/{place}"
