"""Hook of MkDocs: equations, which are LaTeX in blocks called `math`, as MathML, which browsers render without a script.

GitHub renders the same blocks.
"""

import re
from typing import Any

from latex2mathml.converter import convert


def on_page_markdown(markdown: str, **_: Any) -> str:
    """The page with its equations replaced."""
    return re.sub(
        r"^```math\n(.*?)^```$",
        lambda found: f'<div class="equation">{convert(found[1], display="block")}</div>',
        markdown,
        flags=re.DOTALL | re.MULTILINE,
    )
