"""The page: headings, figures, tables and links as HTML that reads the same on paper, on a phone, and aloud."""

import base64
import html
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

EMBEDDED_AT_MOST = 150_000  # bytes of a CSV that goes into the page itself

STYLE = """
:root { color-scheme: light dark; --ink: #1d2125; --soft: #5b6570; --paper: #ffffff; --card: #f5f6f8;
  --line: #d9dee3; --link: #1a5fb4; --warn: #8a4b00; }
@media (prefers-color-scheme: dark) { :root { --ink: #e4e7ea; --soft: #a3adb8; --paper: #14171a;
  --card: #1e2226; --line: #3a4249; --link: #8ab4f8; --warn: #ffb95c; } }
* { box-sizing: border-box; }
html { -webkit-text-size-adjust: 100%; scroll-behavior: smooth; }
@media (prefers-reduced-motion: reduce) { html { scroll-behavior: auto; } }
body { margin: 0; background: var(--paper); color: var(--ink); line-height: 1.5;
  font: 1rem/1.55 system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", Arial, sans-serif; }
main, header, footer { max-width: 68rem; margin: 0 auto; padding: 0 1.25rem; }
header { padding-top: 2rem; }
h1 { font-size: 1.9rem; line-height: 1.2; margin: 0 0 .3rem; }
h2 { font-size: 1.35rem; margin: 2.6rem 0 .6rem; padding-top: .8rem; border-top: 1px solid var(--line); }
h3 { font-size: 1.05rem; margin: 1.6rem 0 .4rem; }
p, li { max-width: 46rem; overflow-wrap: break-word; }
.sub, figcaption, .note { color: var(--soft); }
.note, figcaption { font-size: .9rem; }
a { color: var(--link); } a:focus-visible, summary:focus-visible, .scroll:focus-visible {
  outline: 3px solid var(--link); outline-offset: 2px; border-radius: 3px; }
.skip { position: absolute; left: -99rem; } .skip:focus { left: 1rem; top: 1rem; background: var(--paper);
  padding: .4rem .8rem; z-index: 2; }
nav { max-width: 68rem; margin: 0 auto; padding: .8rem 1.25rem; }
nav ul { display: flex; flex-wrap: wrap; gap: .3rem 1.1rem; list-style: none; padding: 0; margin: 0; }
@media (min-width: 60rem) { nav { position: sticky; top: 0; z-index: 1; background: var(--paper); font-size: .9rem; }
  h2 { scroll-margin-top: 4.5rem; } }
.cards { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 9rem), 1fr)); gap: .8rem;
  margin: 1rem 0; padding: 0; }
.cards div { background: var(--card); border-radius: .5rem; padding: .7rem .9rem; }
.cards dt { color: var(--soft); font-size: .85rem; }
.cards dd { margin: 0; font-size: 1.3rem; font-weight: 600; font-variant-numeric: tabular-nums; }
.cards dd span { font-size: .95rem; font-weight: 400; white-space: nowrap; }
.cards dd small { display: block; font-size: .8rem; font-weight: 400; color: var(--soft); }
.figures { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 21rem), 1fr)); gap: 1.6rem;
  align-items: start; margin: 1rem 0; }
figure { margin: 0; break-inside: avoid; min-width: 0; }
figure.wide { grid-column: 1 / -1; }
figure svg { display: block; width: 100%; height: auto; fill: currentColor; }
.small { grid-template-columns: repeat(auto-fit, minmax(min(100%, 17rem), 1fr)); }
figcaption { margin-top: .3rem; max-width: 46rem; }
.scroll { overflow-x: auto; margin: .8rem 0; }
table { border-collapse: collapse; font-size: .9rem; font-variant-numeric: tabular-nums; }
caption { text-align: left; color: var(--soft); font-size: .9rem; padding-bottom: .3rem; }
th, td { padding: .25rem .8rem .25rem 0; text-align: right; border-bottom: 1px solid var(--line); white-space: nowrap; }
th { font-weight: 600; } th[scope=row], thead th:first-child { text-align: left; }
td.unit, th.unit, .facts td, .facts th { text-align: left; }
td.text { text-align: left; white-space: normal; overflow-wrap: anywhere; min-width: 12rem; }
@media (max-width: 30rem) { table { font-size: .8rem; } th, td { padding-right: .5rem; } }
.warn { color: var(--warn); font-weight: 600; }
summary { cursor: pointer; margin: .6rem 0; }
code { font-size: .9em; overflow-wrap: anywhere; }
footer { color: var(--soft); font-size: .85rem; padding: 2rem 1.25rem 3rem; }
@media print { :root { color-scheme: light; } nav, .skip { display: none; } body { font-size: 10pt; }
  main, header, footer { max-width: none; } .figures { grid-template-columns: 1fr 1fr; } .small { grid-template-columns: 1fr 1fr 1fr; } .scroll { overflow: visible; }
  h2, caption { break-after: avoid; } table, figure { break-inside: avoid; } .scroll { break-inside: auto; }
  details > * { display: block; } details::details-content { content-visibility: visible; }
  th, td { white-space: normal; } }
"""
PRINT_COLORS = """
@media print { :root { --ink: #1d2125; --soft: #5b6570; --paper: #ffffff; --card: #f5f6f8; --line: #d9dee3;
  --link: #1a5fb4; --warn: #8a4b00; } }
"""


@dataclass(frozen=True)
class Section:
    """A part of the page with a heading.

    Args:
        name: for links, letters and hyphens.
        title: plain text.
        body: HTML.
    """

    name: str
    title: str
    body: str


def document(
    title: str, subtitle: str, sections: Sequence[Section], footer: str, colors: str = ""
) -> str:
    """The whole page.

    Args:
        title: plain text.
        subtitle: plain text.
        sections: in their order.
        footer: plain text.
        colors: further style sheet, for the colors of the figures.
    """
    links = "".join(f'<li><a href="#{s.name}">{text(s.title)}</a></li>' for s in sections)
    parts = "\n".join(
        f'<section aria-labelledby="{s.name}"><h2 id="{s.name}">{text(s.title)}</h2>\n{s.body}</section>'
        for s in sections
    )
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>{text(title)}</title>
<style>{STYLE}{colors}{PRINT_COLORS}</style>
</head>
<body>
<a class="skip" href="#content">Skip to the content</a>
<header>
<h1>{text(title)}</h1>
<p class="sub">{text(subtitle)}</p>
</header>
<nav aria-label="Contents"><ul>{links}</ul></nav>
<main id="content">
{parts}
</main>
<footer>{text(footer)}</footer>
</body>
</html>
"""


def text(words: object) -> str:
    """Plain text, safe inside HTML."""
    return html.escape(str(words))


def paragraph(words: str, kind: str = "") -> str:
    """A paragraph of plain text; `kind` is note or warn."""
    return f'<p class="{kind}">{text(words)}</p>\n' if kind else f"<p>{text(words)}</p>\n"


def bullets(items: Iterable[str]) -> str:
    """A list of plain sentences."""
    return "<ul>" + "".join(f"<li>{text(item)}</li>" for item in items) + "</ul>\n"


def cards(items: Iterable[tuple[str, str, str, str]]) -> str:
    """A few numbers in large letters: what it is, the number, its unit, a remark."""
    rows = "".join(
        f"<div><dt>{text(name)}</dt><dd>{text(value)} <span>{text(unit)}</span>"
        f"<small>{text(remark)}</small></dd></div>"
        for name, value, unit, remark in items
    )
    return f'<dl class="cards">{rows}</dl>\n'


def figure(svg: str, caption: str, table: Path | None = None, wide: bool = False) -> str:
    """A figure with its caption, and a link to its numbers.

    Args:
        svg: from `scschnet.report.figures.inline_svg`.
        caption: plain text.
        table: CSV of its numbers.
        wide: across the whole page.
    """
    link = "" if table is None else f" {csv_link(table)}"
    kind = ' class="wide"' if wide else ""
    return f"<figure{kind}>{svg}<figcaption>{text(caption)}{link}</figcaption></figure>\n"


def figures(*items: str, small: bool = False) -> str:
    """Figures side by side where there is room; three small ones or two."""
    kind = "figures small" if small else "figures"
    return f'<div class="{kind}">{"".join(items)}</div>\n'


def facts(caption: str, rows: Iterable[Sequence[object]]) -> str:
    """A table of names and what they are, for words rather than numbers; rows as in `table`."""
    return table(caption, ("what", "found"), rows).replace("<table>", '<table class="facts">')


def table(caption: str, columns: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """A table with a caption; the first column names the rows.

    Args:
        caption: plain text.
        columns: plain text.
        rows: a value per column; numbers are formatted by the caller.
    """
    kinds = {"unit": ' class="unit"'}  # its column is words
    head = "".join(f'<th scope="col"{kinds.get(name, "")}>{text(name)}</th>' for name in columns)
    body = "".join(
        f'<tr><th scope="row">{text(row[0])}</th>{"".join(_cell(value) for value in row[1:])}</tr>'
        for row in rows
    )
    return (
        f'<div class="scroll" tabindex="0" role="region" aria-label="{text(caption)}"><table>'
        f"<caption>{text(caption)}</caption><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>\n"
    )


def details(summary: str, body: str) -> str:
    """Something to open; `body` is HTML."""
    return f"<details><summary>{text(summary)}</summary>{body}</details>\n"


def csv_link(path: Path) -> str:
    """A link to a CSV: its content where it is small, so that the page needs no other file."""
    content = path.read_bytes()
    if len(content) <= EMBEDDED_AT_MOST:
        data = base64.b64encode(content).decode()
        target = f"data:text/csv;charset=utf-8;base64,{data}"
    else:
        target = f"{path.parent.name}/{path.name}"
    name = text(path.name)
    return f'<a href="{text(target)}" download="{name}">Numbers: {name}</a>'


def _cell(value: object) -> str:
    words = str(value)
    kind = ""
    if len(words) > 28:
        kind = ' class="text"'
    elif not any(letter.isdigit() for letter in words):
        kind = ' class="unit"'
    return f"<td{kind}>{text(words)}</td>"
