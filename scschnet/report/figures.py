"""Figures inside a page: SVG whose colors follow the reader's light or dark setting."""

import html
import io
import re
from typing import Any

import numpy as np
from matplotlib import colormaps
from matplotlib.colors import to_hex
from matplotlib.figure import Figure

from scschnet.analysis import plots

MOST_COLORS = 16
REM_PER_INCH = 8.2  # letters of 7.5 pt then look like the text around
DARK_ACCENT = "#8ab4e0"
GRAYS = {
    "#4c4c4c": "#bdbdbd",
    "#595959": "#b3b3b3",
    "#808080": "#8f8f8f",
    "#a6a6a6": "#6f6f6f",
    "#8c8c8c": "#7d7d7d",
}
_HEX = re.compile(r"#[0-9a-f]{6}")


class Colors:
    """The colors of a page's figures, each with what it becomes on a dark page."""

    def __init__(self) -> None:
        self.dark = {plots.ACCENT: DARK_ACCENT, **GRAYS}
        for n in range(2, MOST_COLORS):
            light = [to_hex(color) for color in plots.layer_colors(n)[1:]]
            depths = np.linspace(0.42, 0.97, max(n - 1, 1))
            for one, other in zip(light, colormaps["plasma"](depths), strict=True):
                self.dark.setdefault(one, to_hex(other))
        self.used: set[str] = set()

    def themed(self, svg: str) -> str:
        """The same drawing, black as the page's ink and known colors as variables of its style sheet."""
        svg = re.sub(r"(stroke|fill): #000000", r"\1: currentColor", svg)
        svg = svg.replace("stroke: #ffffff", "stroke: var(--paper)")
        return _HEX.sub(lambda found: self._variable(found[0]), svg)

    def style(self) -> str:
        """The style sheet with the colors used so far."""
        names = sorted(self.used)
        light = "".join(f"--c{name[1:]}: {name};" for name in names)
        dark = "".join(f"--c{name[1:]}: {self.dark[name]};" for name in names)
        return f":root {{ {light} }}\n@media screen and (prefers-color-scheme: dark) {{ :root {{ {dark} }} }}\n"

    def _variable(self, color: str) -> str:
        if color not in self.dark:
            return color
        self.used.add(color)
        return f"var(--c{color[1:]})"


class Gallery:
    """Makes the figures of a page: numbers them, so that their ids stay apart, and themes them."""

    def __init__(self) -> None:
        self.colors = Colors()
        self.count = 0

    def new(self, width: float = 9.5, height: float = 6.8) -> Figure:
        """An empty figure, cm; use it within `plots.figure_style`."""
        return plots.new_figure(width, height)

    def inline(self, figure: Figure, title: str, description: str) -> str:
        """A drawn figure as SVG for the page.

        Args:
            figure: from `new`.
            title: its name, read aloud first.
            description: what is to be seen in it, for those who do not see it.
        """
        self.count += 1
        buffer = io.StringIO()
        figure.savefig(buffer, format="svg", transparent=True, metadata=plots.NO_DATE["svg"])
        drawing = self.colors.themed(buffer.getvalue())
        width = REM_PER_INCH * figure.get_figwidth()
        return inline_svg(drawing, self.count, title, description, width)


def inline_svg(svg: str, number: int, title: str, description: str, width: float) -> str:
    """SVG of matplotlib as an image within HTML, ids made its own.

    Args:
        svg: the whole file.
        number: of the figure.
        title: its name.
        description: what is to be seen.
        width: at most, in letters' heights (rem).
    """
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.S)
    svg = re.sub(r"<!--.*?-->\s*", "", svg, flags=re.S)
    prefix = f"f{number}-"
    seen: set[str] = set()

    def own_id(found: re.Match[str]) -> str:
        if found[1] in seen:  # a letter that matplotlib defines twice, both times the same
            return ""
        seen.add(found[1])
        return f'id="{prefix}{found[1]}"'

    svg = re.sub(r'\bid="([^"]+)"', own_id, svg)
    svg = re.sub(r'href="#([^"]+)"', rf'href="#{prefix}\1"', svg)
    svg = re.sub(r"url\(#([^)]+)\)", rf"url(#{prefix}\1)", svg)
    svg = re.sub(r"(\d+\.\d\d\d)\d+", r"\1", svg)  # a thousandth of a point
    box = re.search(r'viewBox="([^"]+)"', svg)
    head = (
        f'<svg viewBox="{box[1] if box else ""}" style="max-width: {width:.1f}rem" role="img" aria-labelledby="{prefix}title {prefix}desc" '
        'xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink">'
        f'<title id="{prefix}title">{html.escape(title)}</title>'
        f'<desc id="{prefix}desc">{html.escape(description)}</desc>'
    )
    return head + svg[svg.index(">") + 1 :].strip()


def ranking(names: list[str], values: Any, unit: str = "", digits: int = 3) -> str:
    """Names and values, largest first, as words for a description."""
    order = np.argsort(-np.asarray(values, dtype=float), kind="stable")
    return ", ".join(f"{names[k]} {values[k]:.{digits}g}{unit}" for k in order)
