"""One page of HTML that needs nothing else: no script, no font, no network. Text out of files is always escaped."""

from __future__ import annotations

import base64
import html

from bssl_tf.reports import figures
from bssl_tf.reports.document import Document, Figure, Grid, Group, Picture, Section, Table
from bssl_tf.reports.fields import printable
from bssl_tf.reports.formats import cells

# More than so many runs are folded away, to be opened one by one.
_OPEN_GROUPS = 2
_MANY_ROWS = 12
# Should escaping ever fail, a browser that honours this still loads nothing and runs nothing.
_POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:"
_LIGHT = ("#0072b2", "#c35500", "#008a64", "#b0568c", "#a87400", "#2b8cc4")
_DARK = ("#4aa8e0", "#f08a45", "#2fc79a", "#dd97c0", "#e8b13a", "#8fd0f5")


def _palette(colours: tuple[str, ...]) -> str:
    return "".join(f"--series-{number}:{colour};" for number, colour in enumerate(colours))


_STYLE = f"""
:root {{ color-scheme: light dark; --ink:#1b1f24; --quiet:#59636e; --page:#ffffff; --line:#d5dae0; --soft:#f4f6f8;
  --good:#00734f; --bad:#b04500; {_palette(_LIGHT)} }}
@media (prefers-color-scheme: dark) {{ :root {{ --ink:#e4e8ec; --quiet:#a2acb7; --page:#14181d; --line:#3a434d;
  --soft:#1e242b; --good:#4fd1a5; --bad:#f09a5c; {_palette(_DARK)} }} }}
* {{ box-sizing: border-box; }}
body {{ margin: 0 auto; padding: 1rem; max-width: 72rem; color: var(--ink); background: var(--page);
  font: 1rem/1.5 system-ui, -apple-system, "Segoe UI", Roboto, "Noto Sans", "DejaVu Sans", sans-serif;
  overflow-wrap: anywhere; }}
h1 {{ font-size: 1.6rem; line-height: 1.25; margin: .5rem 0; }}
h2 {{ font-size: 1.25rem; margin: 2.5rem 0 .5rem; padding-top: .75rem; border-top: 1px solid var(--line); }}
h3 {{ font-size: 1rem; margin: 0 0 .25rem; }}
p {{ max-width: 44rem; margin: .5rem 0; }}
nav ul {{ display: flex; flex-wrap: wrap; gap: .25rem 1rem; padding: 0; margin: .75rem 0; list-style: none; }}
a {{ color: var(--series-0); }}
.figures {{ display: grid; grid-template-columns: repeat(auto-fill, minmax(min(100%, 24rem), 1fr)); gap: 1.5rem;
  margin: 1rem 0; align-items: start; }}
figure {{ margin: 0; min-width: 0; }}
figure svg {{ display: block; width: 100%; max-width: 30rem; height: auto; }}
svg text {{ font-family: system-ui, -apple-system, "Segoe UI", Roboto, "DejaVu Sans", sans-serif !important; }}
figcaption {{ font-size: .9rem; }}
.legend {{ display: flex; flex-wrap: wrap; gap: 0 1rem; margin: .25rem 0; padding: 0; list-style: none;
  font-size: .85rem; }}
.conditions, footer {{ color: var(--quiet); font-size: .8rem; }}
details {{ margin: .5rem 0; }}
summary {{ cursor: pointer; }}
figure summary {{ font-size: .85rem; color: var(--quiet); }}
details.run > summary {{ font-weight: 600; padding: .35rem .6rem; background: var(--soft); border-radius: .3rem; }}
.scroll {{ overflow-x: auto; margin: .5rem 0; }}
details .long {{ max-height: 32rem; }}
table {{ border-collapse: collapse; font-size: .85rem; font-variant-numeric: tabular-nums; }}
caption {{ text-align: left; font-weight: 600; padding-bottom: .25rem; }}
th, td {{ padding: .2rem .7rem .2rem 0; text-align: left; vertical-align: top; border-bottom: 1px solid var(--line);
  overflow-wrap: normal; min-width: 4rem; max-width: 24rem; }}
td.long {{ min-width: 14rem; }}
th[scope=row], thead th:first-child {{ position: sticky; left: 0; background: var(--page); min-width: 6rem;
  max-width: 9rem; overflow-wrap: break-word; }}
thead th {{ position: sticky; top: 0; background: var(--page); }}
td.number {{ text-align: right; }}
.missing {{ background: var(--soft); border-radius: .3rem; padding: .6rem .6rem .6rem 2rem; font-size: .9rem; }}
.grid th:first-child {{ position: static; min-width: 0; }}
.grid th, .grid td {{ min-width: 0; padding: 0 .3rem .4rem 0; overflow-wrap: anywhere; }}
.grid th {{ font-size: .75rem; }}
.grid td {{ border: 0; font-size: .75rem; line-height: 1.2; }}
.grid img {{ display: block; width: clamp(2.6rem, 13vw, 4.5rem); height: clamp(2.6rem, 13vw, 4.5rem);
  image-rendering: pixelated; border-radius: .2rem; }}
.good {{ color: var(--good); }} .bad {{ color: var(--bad); }}
""" + "".join(f".s{number} {{ color: var(--series-{number}); }}\n" for number in range(len(figures.PALETTE)))


def as_html(document: Document) -> str:
    """The whole page."""
    places = [f"section-{number}" for number in range(1, len(document.sections) + 1)]
    links = "".join(
        f'<li><a href="#{place}">{_text(section.title)}</a></li>'
        for place, section in zip(places, document.sections, strict=True)
    )
    body = "".join(_section(section, place) for place, section in zip(places, document.sections, strict=True))
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n<link rel="icon" href="data:,">\n'
        f"<title>{_text(document.title)}</title>\n<style>{_STYLE}</style>\n</head>\n<body>\n<main>\n"
        f"<h1>{_text(document.title)}</h1>\n<nav aria-label=\"Contents\"><ul>{links}</ul></nav>\n{body}</main>\n"
        f"<footer><p>{_text(document.made)}<br>Command: <code>{_text(document.command)}</code></p></footer>\n"
        "</body>\n</html>\n"
    )  # fmt: skip


def _text(value: object) -> str:
    return html.escape(printable(value))


def _prose(sentence: str) -> str:
    """A sentence whose commands stand between backticks."""
    parts = _text(sentence).split("`")
    return "".join(f"<code>{part}</code>" if number % 2 else part for number, part in enumerate(parts))


def _section(section: Section, place: str) -> str:
    groups = sum(isinstance(block, Group) for block in section.blocks)
    about = f"<p>{_prose(section.about)}</p>\n" if section.about else ""
    return (
        f'<section aria-labelledby="{place}">\n<h2 id="{place}">{_text(section.title)}</h2>\n{about}'
        f"{_blocks(section.blocks, groups <= _OPEN_GROUPS)}{_missing(section.missing)}</section>\n"
    )


def _blocks(blocks: tuple[Table | Figure | Grid | Group, ...], opened: bool = True) -> str:
    """Plots that follow each other stand side by side where there is room."""
    made, plots = [], ""
    for block in blocks:
        if isinstance(block, Figure):
            plots += _figure(block)
            continue
        if plots:
            made.append(f'<div class="figures">{plots}</div>\n')
            plots = ""
        if isinstance(block, Table):
            made.append(_table(block))
        elif isinstance(block, Grid):
            made.append(_grid(block))
        else:
            made.append(
                f'<details class="run"{" open" if opened else ""}><summary>{_text(block.title)}</summary>\n'
                f"{_blocks(block.blocks)}{_missing(block.missing)}</details>\n"
            )
    return "".join(made) + (f'<div class="figures">{plots}</div>\n' if plots else "")


def _missing(missing: tuple[str, ...]) -> str:
    lines = "".join(f"<li>{_prose(line)}</li>" for line in missing)
    return f'<ul class="missing">{lines}</ul>\n' if lines else ""


def _figure(figure: Figure) -> str:
    colours = len(figures.PALETTE)
    keys = "".join(
        f'<li><span class="s{key.style % colours}" aria-hidden="true">{figures.marker(key.style)[1]}</span> '
        f"{_text(key.label)}</li>"
        for key in figure.keys
    )
    legend = f'<ul class="legend">{keys}</ul>' if keys else ""
    return (
        f'<figure><h3>{_text(figure.title)}</h3><div role="img" aria-label="{_text(figure.alt)}">{figure.draw()}</div>'
        f"{legend}<figcaption>{_text(figure.caption)}"
        f'<div class="conditions">{_text(figure.conditions)}</div></figcaption>'
        f"<details><summary>The same in numbers</summary>{_plain_table(figure.table)}</details></figure>\n"
    )


def _table(table: Table) -> str:
    made = _plain_table(table)
    if len(table.rows) <= _MANY_ROWS or table.turned:
        return made
    return f"<details><summary>{_text(table.title)}, {len(table.rows)} rows</summary>{made}</details>\n"


def _plain_table(table: Table) -> str:
    columns, rows = cells(table)
    if table.turned:
        head = [columns[0].title, *(row[0] for row in rows)]
        body = [
            (f'<th scope="row">{_text(column.title)}</th>', [row[place] for row in rows], False)
            for place, column in enumerate(columns)
            if place
        ]
    else:
        head = [column.title for column in columns]
        body = [(f'<th scope="row">{_text(row[0])}</th>', row[1:], True) for row in rows]
    lines = "".join(f"<tr>{first}{''.join(_cell(cell, right) for cell in rest)}</tr>" for first, rest, right in body)
    titles = "".join(f'<th scope="col">{_text(title)}</th>' for title in head)
    kind = "scroll long" if len(rows) > _MANY_ROWS else "scroll"
    return (
        f'<div class="{kind}" tabindex="0" role="region" aria-label="{_text(table.title)}"><table>'
        f"<caption>{_text(table.title)}</caption><thead><tr>{titles}</tr></thead><tbody>{lines}</tbody></table></div>\n"
    )  # fmt: skip


def _cell(cell: str, right: bool) -> str:
    long = ' class="long"' if len(cell) > 24 else ""
    digits = right and cell.replace(".", "").replace("-", "").replace("e", "").replace("+", "").isdecimal()
    return f'<td class="number">{_text(cell)}</td>' if digits else f"<td{long}>{_text(cell)}</td>"


def _grid(grid: Grid) -> str:
    titles = "".join(f'<th scope="col">{_text(title)}</th>' for title in grid.headings)
    lines = "".join(f"<tr>{''.join(_picture(one) for one in row)}</tr>" for row in grid.rows)
    return (
        f'<figure><div class="scroll" tabindex="0" role="region" aria-label="{_text(grid.title)}">'
        f'<table class="grid"><caption>{_text(grid.title)}</caption><thead><tr>{titles}</tr></thead>'
        f"<tbody>{lines}</tbody></table></div><figcaption>{_text(grid.caption)}</figcaption></figure>\n"
    )


def _picture(picture: Picture) -> str:
    content = base64.b64encode(picture.png).decode("ascii")
    mark = "" if picture.good is None else "✓ " if picture.good else "✗ "
    kind = "" if picture.good is None else ' class="good"' if picture.good else ' class="bad"'
    return (
        f'<td><img src="data:image/png;base64,{content}" alt="{_text(picture.alt)}">'
        f"<span{kind}>{mark}{_text(picture.label)}</span></td>"
    )
