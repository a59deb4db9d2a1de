"""Hook of MkDocs: links from pages to files of the repository, which the site does not hold.

With `repo_url` in mkdocs.yml they lead there; without it the name of the file remains.
"""

import posixpath
import re
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]


def on_page_markdown(markdown: str, *, page: Any, config: Any, **_: Any) -> str:
    """The page with links to existing files outside of docs/ replaced."""
    folder = posixpath.dirname(f"docs/{page.file.src_uri}")

    def replacement(found: re.Match[str]) -> str:
        path = posixpath.normpath(posixpath.join(folder, found[2]))
        if path.startswith("docs/") or not (ROOT / path).exists():
            return found[0]  # a link within the site, or a wrong one, which --strict finds
        repository = config["repo_url"]
        return f"[{found[1]}]({repository}/blob/main/{path})" if repository else found[1]

    return re.sub(r"\[([^\]]*)\]\((\.\./[^)#]+)[^)]*\)", replacement, markdown)
