"""The page of `handoff compare`: one file that needs nothing besides, to be read, sent to a reviewer, and printed."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from datetime import datetime
from html import escape
from itertools import groupby
from typing import Any, Final

from engine.cli.common import named_time
from engine.cli.compare_text import HEADINGS, example_lines, headline
from engine.printable import single

_STYLE: Final = """
:root { color-scheme: light dark; --line: #8884; --bad: #b3261e; --mild: #8a5a00; }
@media (prefers-color-scheme: dark) { :root { --bad: #ff8a80; --mild: #ffca6b; } }
body { font: 16px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem; }
h1 { font-size: 1.5rem; margin-bottom: .25rem; }
h2 { font-size: 1.1rem; margin: 2rem 0 .5rem; }
p { margin: .25rem 0; overflow-wrap: anywhere; }
.counts { display: flex; flex-wrap: wrap; gap: .75rem; margin: 1.25rem 0; padding: 0; list-style: none; }
.counts li { border: 1px solid var(--line); border-radius: .5rem; padding: .5rem 1rem; min-width: 7rem; }
.counts b { display: block; font-size: 1.6rem; font-variant-numeric: tabular-nums; }
.bad b { color: var(--bad); } .mild b { color: var(--mild); }
table { border-collapse: collapse; width: 100%; }
th, td { text-align: left; vertical-align: top; padding: .4rem .75rem .4rem 0; border-top: 1px solid var(--line); }
th { font-size: .85rem; font-weight: 600; border-top: 0; }
td:first-child, th:first-child { text-align: right; width: 6rem; padding-right: 1rem; }
td:first-child { font-variant-numeric: tabular-nums; }
td { overflow-wrap: anywhere; }
small { display: block; opacity: .8; }
.phi { border: 2px solid var(--bad); padding: .5rem 1rem; margin: 1rem 0; font-weight: 600; }
@media print {
  body { font-size: 10pt; margin: 0; max-width: none; }
  tr, .counts li { break-inside: avoid; } h2 { break-after: avoid; }
}
"""
_VALUE: Final = re.compile(r"`([^`]*)`")
_COUNTS: Final = (
    ("same", "the same", ""),
    ("changed", "changed", "mild"),
    ("newly_filtered", "newly filtered", "bad"),
    ("newly_failing", "newly failing", "bad"),
)


def page(document: Mapping[str, Any], now: datetime) -> str:
    """The page as HTML. It loads nothing and runs nothing."""
    return "\n".join(_lines(document, now)) + "\n"


def _lines(document: Mapping[str, Any], now: datetime) -> Iterator[str]:
    title = f"Comparison of {document['channel']}"
    yield '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">'
    yield "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\">"
    yield '<meta name="viewport" content="width=device-width, initial-scale=1">'
    yield f"<title>{_shown(title)}</title>\n<style>{_STYLE}</style>\n</head>\n<body>\n<main>"
    yield f"<h1>{_shown(title)}</h1>"
    yield f"<p>Candidate: {_shown(document['candidate'])}. Made {_shown(named_time(now))}.</p>"
    yield f"<p>{_shown(headline(document))}</p>"
    if document["revealed"]:
        yield '<p class="phi">This page shows patient data.</p>'
    yield '<ul class="counts">'
    for name, words, style in _COUNTS:
        number = document[name]
        yield f'<li class="{style if number else ""}"><b>{number:,}</b>{words}</li>'
    yield "</ul>"
    if not document["groups"]:
        yield "<p>Nothing differs.</p>"
    for kind, groups in groupby(document["groups"], key=lambda one: one["kind"]):
        yield f"<h2>{HEADINGS[kind]}</h2>\n<table>"
        yield '<thead><tr><th scope="col">Messages</th><th scope="col">Cause and examples</th></tr></thead>\n<tbody>'
        for group in groups:
            examples = "".join(f"<small>{_shown(line)}</small>" for line in example_lines(group))
            yield f"<tr><td>{group['messages']:,}</td><td>{_cause(group['cause'])}{examples}</td></tr>"
        yield "</tbody>\n</table>"
    yield "</main>\n</body>\n</html>"


def _shown(text: object) -> str:
    return escape(single(str(text)))


def _cause(text: str) -> str:
    """Values, which stand between backticks, as such."""
    return _VALUE.sub(r"<code>\1</code>", _shown(text))
