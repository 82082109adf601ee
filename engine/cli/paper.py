"""Pages to print, give out and file: one HTML file that needs nothing besides, loads nothing and runs nothing."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator, Sequence
from html import escape
from pathlib import Path
from typing import Final

import click

from engine.errors import HandoffError
from engine.printable import single

STYLE: Final = """
:root { color-scheme: light; --ink: #1c2430; --soft: #5b6675; --line: #d5dae1; --bad: #a3231b; --mild: #805300;
  --good: #1d6b3a; --head: #f4f6f8; }
* { box-sizing: border-box; }
body { font: 15px/1.5 system-ui, -apple-system, "Segoe UI", "DejaVu Sans", sans-serif; color: var(--ink);
  background: #fff; max-width: 62rem; margin: 2.5rem auto; padding: 0 1.5rem; }
header { border-bottom: 3px solid var(--ink); padding-bottom: .75rem; margin-bottom: 1.25rem; }
h1 { font-size: 1.55rem; line-height: 1.25; margin: 0 0 .25rem; }
h2 { font-size: 1.1rem; margin: 2rem 0 .5rem; break-after: avoid; }
h3 { font-size: 1rem; margin: 0; }
p { margin: .35rem 0; overflow-wrap: anywhere; max-width: 48rem; }
.soft, small { color: var(--soft); } small { display: block; font-size: .85rem; }
.facts { display: grid; grid-template-columns: max-content 1fr; gap: .2rem 1.25rem; margin: 1rem 0; }
.facts dt { color: var(--soft); } .facts dd { margin: 0; overflow-wrap: anywhere; }
table { border-collapse: collapse; width: 100%; margin: .5rem 0 1rem; }
th, td { text-align: left; vertical-align: top; padding: .45rem .9rem .45rem 0; border-top: 1px solid var(--line);
  overflow-wrap: anywhere; }
thead th { font-size: .82rem; font-weight: 600; color: var(--soft); border-top: 0;
  border-bottom: 1px solid var(--ink); }
td.number, th.number { text-align: right; font-variant-numeric: tabular-nums; white-space: nowrap; }
.eighth { width: 14%; } .fifth { width: 19%; } .quarter { width: 24%; } .third { width: 31%; }
td.date { white-space: nowrap; font-variant-numeric: tabular-nums; }
.note { border-left: 4px solid var(--mild); background: var(--head); padding: .5rem .9rem; margin: 1rem 0; }
.phi { border: 2px solid var(--bad); padding: .4rem .9rem; margin: 1rem 0; font-weight: 600; }
.mark { display: inline-block; min-width: 5.2rem; padding: .05rem .5rem; border: 1px solid currentColor;
  border-radius: .3rem; font-size: .8rem; font-weight: 600; text-align: center; white-space: nowrap; }
.good { color: var(--good); } .mild { color: var(--mild); } .bad { color: var(--bad); }
code { font: .88em ui-monospace, "DejaVu Sans Mono", monospace; background: var(--head); padding: .05rem .25rem; }
.sign { display: flex; gap: 3rem; margin-top: 3rem; } .sign div { flex: 1; border-top: 1px solid var(--ink);
  padding-top: .25rem; color: var(--soft); font-size: .85rem; }
footer { margin-top: 2.5rem; border-top: 1px solid var(--line); padding-top: .5rem; color: var(--soft);
  font-size: .85rem; }
@page { margin: 18mm 16mm; }
@media print { body { font-size: 10pt; margin: 0; padding: 0; max-width: none; } tr, .row { break-inside: avoid; }
  thead { display: table-header-group; } }
"""

_CODE: Final = re.compile(r"`([^`]*)`")

html_option = click.option(
    "--html", type=click.Path(dir_okay=False, writable=True, path_type=Path), help="Also write a page to print."
)


def shown(text: object) -> str:
    return escape(single(str(text)))


def worded(text: object) -> str:
    """As `shown`; what stands between backticks is a command or a name."""
    return _CODE.sub(r"<code>\1</code>", shown(text))


def paper(title: str, lead: str, body: Iterable[str], *, foot: str = "", phi: bool = False) -> str:
    """body: HTML. phi: it shows patient data, and says so."""
    return "\n".join(
        (
            '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">',
            "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\">",
            '<meta name="viewport" content="width=device-width, initial-scale=1">',
            f"<title>{shown(title)}</title>\n<style>{STYLE}</style>\n</head>\n<body>",
            f'<header><h1>{shown(title)}</h1>\n<p class="soft">{shown(lead)}</p></header>\n<main>',
            *(['<p class="phi">This page shows patient data. Keep it as you keep the record.</p>'] if phi else []),
            *body,
            f"</main>\n<footer>{shown(foot)}</footer>\n</body>\n</html>\n",
        )
    )


def facts(rows: Iterable[tuple[str, object]]) -> Iterator[str]:
    """Rows without a value are left out."""
    yield '<dl class="facts">'
    for name, value in rows:
        if value not in (None, ""):
            yield f"<dt>{shown(name)}</dt><dd>{shown(value)}</dd>"
    yield "</dl>"


def grid(titles: Sequence[str], rows: Iterable[Sequence[str]], styles: Sequence[str] = ()) -> Iterator[str]:
    """rows: of HTML. styles: class of each column."""
    kinds = [*styles, *[""] * (len(titles) - len(styles))]
    yield "<table>\n<thead><tr>"
    yield "".join(f'<th scope="col" class="{kind}">{shown(t)}</th>' for t, kind in zip(titles, kinds, strict=True))
    yield "</tr></thead>\n<tbody>"
    for row in rows:
        yield "<tr>" + "".join(f'<td class="{k}">{one}</td>' for one, k in zip(row, kinds, strict=True)) + "</tr>"
    yield "</tbody>\n</table>"


def check_folder(file: Path | None) -> None:
    """Raises UsageError before anything is looked at and put on record."""
    if file is not None and not file.resolve().parent.is_dir():
        raise click.UsageError(f"there is no folder {file.resolve().parent}")


def write_page(file: Path, text: str) -> None:
    """For its owner alone: whoever asked for patient data has them in it."""
    try:
        with os.fdopen(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w", encoding="utf-8") as out:
            os.fchmod(out.fileno(), 0o600)  # it may have been there
            out.write(text)
    except OSError as error:
        raise HandoffError(f"{file}: can't be written: {error.strerror}") from None
