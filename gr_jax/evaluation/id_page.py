"""The identifier report as one HTML page that needs nothing beside it."""

import importlib.resources
import json
from collections.abc import Mapping, Sequence

from gr_jax.evaluation import id_charts, id_sections
from gr_jax.evaluation import id_markup as markup

_STYLE, _SCRIPT = 'id_page.css', 'id_page.js'


def page(report: Mapping) -> str:
  """Renders a report.

  Args:
    report: of `id_report.collect`.

  Returns:
    An HTML document; nothing in it is loaded from elsewhere.
  """
  files = importlib.resources.files('gr_jax.evaluation')
  title = f'Identifiers of {markup.text(report["index"])}'
  return (
    '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
    '<meta name="viewport" content="width=device-width, initial-scale=1">'
    '<meta name="color-scheme" content="light dark">'
    # Without it browsers ask the folder for an icon.
    '<link rel="icon" href="data:,">'
    f'<title>{title}</title>'
    f'<style>{files.joinpath(_STYLE).read_text(encoding="utf-8")}</style>'
    f'</head><body><main>{_head(report)}{_verdicts(report["verdicts"])}'
    f'{id_sections.sections(report)}</main>'
    f'<script type="application/json" id="data">{_data(report)}</script>'
    f'<script>{files.joinpath(_SCRIPT).read_text(encoding="utf-8")}</script>'
    '</body></html>\n'
  )


def _data(report: Mapping) -> str:
  """What the script draws; no '<' so that no title can end the element."""
  cells = [id_charts.heat_cells(counts) for counts in report['usage']]
  data = {
    'tree': report['tree'],
    'strips': [
      {'cells': values, 'together': together} for values, together in cells
    ],
    'documents': report['statistics']['documents'],
  }
  text = json.dumps(data, ensure_ascii=False, separators=(',', ':'))
  return text.replace('<', '\\u003c')


def _head(report: Mapping) -> str:
  found = report['statistics']
  sizes = report['code_sizes']
  shape = (
    f'{len(sizes)} codes of {sizes[0]:,}'
    if len(set(sizes)) == 1
    else ' x '.join(f'{size:,}' for size in sizes)
  )
  facts = (
    ('documents', f'{found["documents"]:,}'),
    ('IDs in use', f'{found["identifiers"]:,}'),
    ('an ID', shape),
    ('possible IDs', f'10<sup>{report["log10_space"]:.1f}</sup>'),
    ('Gini of documents per ID', f'{found["gini"]:.3f}'),
    ('dead codes', f'{found["dead_codes"]:,}'),
  )
  items = ''.join(
    f'<div><dt>{name}</dt><dd>{value}</dd></div>' for name, value in facts
  )
  return (
    '<header><p class="over">gr_jax identifier report</p>'
    f'<h1>{markup.text(report["index"])}</h1>'
    f'<p class="small">version {report["version"]}, model '
    f'{markup.text(report["model_sha256"][:12])}</p>'
    f'<dl class="facts">{items}</dl></header>'
  )


def _verdicts(verdicts: Sequence[Mapping]) -> str:
  names = {'ok': 'ok', 'warn': 'warn', 'n/a': 'not judged'}
  classes = {'ok': 'ok', 'warn': 'warn', 'n/a': 'none'}
  cards = ''.join(
    f'<li class="card {classes[verdict["status"]]}">'
    f'<h3>{markup.text(verdict["name"])}</h3>'
    f'<span class="pill">{names[verdict["status"]]}</span>'
    f'<p class="figure">{markup.text(verdict["shown"])}</p>'
    f'<p class="wanted">{markup.text(verdict["wanted"])}</p>'
    f'<p class="small">{markup.text(verdict["why"])}</p></li>'
    for verdict in verdicts
  )
  warned = sum(verdict['status'] == 'warn' for verdict in verdicts)
  line = (
    'Nothing stands out.' if not warned else
    f'{warned} of {len(verdicts)} measures should be looked at.'
  )  # fmt: skip
  return (
    f'<section class="verdict" aria-label="Verdict"><p class="lead">{line}</p>'
    f'<ul class="cards">{cards}</ul></section>'
  )
