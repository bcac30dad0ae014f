"""The sections of the identifier report, below its verdict."""

from collections.abc import Mapping, Sequence

from gr_jax.evaluation import id_charts
from gr_jax.evaluation import id_markup as markup

# Rows and codes listed on the page; the JSON file has all.
_LISTED = 60


def sections(report: Mapping) -> str:
  """All sections of a report, in order.

  Args:
    report: of `id_report.collect`.
  """
  contents = (
    ('Documents of one ID', _occupancy(report)),
    ('Codes of each position', _codes(report)),
    ('The tree of prefixes', _tree(report)),
    ('Evenness by length', _prefixes(report)),
    ('What decoding costs', _decoding(report)),
    ('Changes since an earlier index', _churn(report['churn'])),
    ('Head and tail', _recall(report['recall'])),
  )
  return ''.join(
    f'<section><h2>{name}</h2>{content}</section>' for name, content in contents
  )


def _occupancy(report: Mapping) -> str:
  """A histogram for each length, the whole ID first, and a choice."""
  rows = report['prefixes'][::-1]
  choices, panels = [], []
  for order, row in enumerate(rows):
    whole = order == 0
    name = 'whole ID' if whole else f'first {row["length"]}'
    checked = ' checked' if whole else ''
    choices.append(
      f'<label><input type="radio" name="length" value="{order}"{checked}>'
      f'<span>{name}</span></label>'
    )
    what = 'IDs' if whole else 'prefixes'
    chart = id_charts.histogram(row['occupancy'], what, f'occupancy{order}')
    text = (
      f'{row["in_use"]:,} {what} are in use; documents with uniform random '
      f'codes would use {markup.count(row["expected_in_use"])}. Documents of '
      f'one: mean {row["documents"]["mean"]:,.2f}, p99 '
      f'{row["documents"]["p99"]:,.0f}, max {row["documents"]["max"]:,}.'
    )
    hidden = '' if whole else ' hidden'
    panels.append(
      f'<div class="panel" data-length="{order}"{hidden}>{chart}'
      f'<div><p>{text}</p>{_bins_table(row["occupancy"], what)}</div></div>'
    )
  return (
    '<p>How many documents share an ID, or a prefix of one. A tail to the '
    'right of the line is documents that crowd together more than chance '
    'would have them.</p><fieldset class="choice" hidden><legend>Length'
    f'</legend>{"".join(choices)}</fieldset><p class="legend"><span '
    'class="key bar"></span>found <span class="key expected"></span>expected '
    f'of uniform random codes</p>{"".join(panels)}'
  )


def _bins_table(bins: Sequence[Mapping], what: str) -> str:
  rows = [
    (
      f'{b["from"]:,}' if b['from'] == b['to'] else
      f'{b["from"]:,} to {b["to"]:,}',
      f'{b["observed"]:,}',
      f'{b["expected"]:,.1f}',
    )
    for b in bins if b['observed'] or b['expected'] >= 0.05
  ]  # fmt: skip
  headings = ('documents', f'{what} found', 'expected')
  return markup.details(
    'As a table', markup.table(headings, rows[:_LISTED], '')
  )


def _dead(codes: Sequence[int]) -> str:
  """Dead codes as ranges: '3, 17 to 20'."""
  ranges: list[list[int]] = []
  for code in codes:
    if ranges and ranges[-1][1] == code - 1:
      ranges[-1][1] = code
    else:
      ranges.append([code, code])
  shown = ', '.join(
    f'{a}' if a == b else f'{a} to {b}' for a, b in ranges[:_LISTED]
  )
  more = sum(b - a + 1 for a, b in ranges[_LISTED:])
  return shown + (f' and {more:,} more' if more else '')


def _codes(report: Mapping) -> str:
  found, documents = report['statistics'], report['statistics']['documents']
  names = ''.join(
    f'<span><i class="h{level}"></i>{name}</span>'
    for level, name in enumerate(id_charts.HEAT_NAMES)
  )
  rows = []
  for position, usage in enumerate(report['usage']):
    cells, together = id_charts.heat_cells(usage)
    dead = report['dead'][position]
    title = f'Use of the {len(usage):,} codes of position {position + 1}'
    strip = id_charts.heat_strip(
      cells, documents / len(usage), title, f'strip{position}'
    )
    top = sorted(enumerate(usage), key=lambda item: -item[1])[:10]
    table = markup.table(
      ('code', 'documents', 'share'),
      [(code, f'{n:,}', f'{n / documents:.2%}') for code, n in top],
      'The most used codes',
    )
    lost = f'Dead: {_dead(dead)}.' if dead else 'No dead code.'
    joined = f', {together} codes a cell' if together > 1 else ''
    rows.append(
      f'<div class="position" data-position="{position}"><h3>Position '
      f'{position + 1}</h3><p class="small">entropy '
      f'<b>{found["position_entropy"][position]:.3f}</b>, in use '
      f'<b>{found["utilisation"][position]:.1%}</b> of {len(usage):,}{joined}'
      f'</p>{strip}<p class="small dead">{lost}</p>'
      f'{markup.details("Most used", table)}</div>'
    )
  return (
    '<p>Each strip is the codes of a position, coloured by their documents '
    'over an even share.</p>'
    f'<p class="legend heat">{names}</p><label class="toggle" hidden><input '
    'type="checkbox" id="sort"> most used first</label>'
    f'{"".join(rows)}<p id="tip" role="status" hidden></p>'
  )


def _tree(report: Mapping) -> str:
  root = report['tree']
  rows = [
    (
      markup.text(node['codes']),
      f'{node["documents"]:,}',
      f'{node["ids"]:,}' if 'ids' in node else '',
      markup.text(' / '.join(node['samples'])),
    )
    for node in root.get('children', [])[:_LISTED]
  ]
  table = markup.table(
    ('prefix', 'documents', 'IDs', 'some documents'),
    rows,
    'The largest prefixes of the first level',
  )
  return (
    '<p>An area is its documents, in a stronger colour where they share '
    'IDs; grey is the many small ones, at most a third. Choose a prefix to '
    'look inside; Escape goes back up.</p>'
    '<nav id="path" aria-label="Prefix"></nav>'
    '<div class="treemap"><div id="map"></div><aside id="node" '
    'aria-live="polite"></aside></div>'
    f'{markup.details("As a table", table)}'
  )


def _prefixes(report: Mapping) -> str:
  rows = [
    (
      row['length'],
      f'{row["in_use"]:,}',
      markup.count(row['expected_in_use']),
      markup.bar(row['entropy'], f'{row["entropy"]:.3f}'),
      f'{row["documents"]["mean"]:,.2f}',
      f'{row["documents"]["p99"]:,.0f}',
      f'{row["documents"]["max"]:,}',
      f'{row["gini"]:.3f}',
    )
    for row in report['prefixes']
  ]
  return markup.table(
    (
      'codes', 'prefixes in use', 'of random codes', 'entropy',
      'documents: mean', 'p99', 'max', 'Gini',
    ),
    rows,
    'Entropy over log min(documents, possible prefixes); 1 is even. The last '
    'line is whole IDs.',
  )  # fmt: skip


def _decoding(report: Mapping) -> str:
  cost = report['decoding']
  rows = [
    (
      step['position'] + 1,
      f'{step["nodes"]:,}',
      f'{step["children"]["mean"]:,.1f}',
      f'{step["children"]["max"]:,}',
      f'{step["continuations"]:,.1f}',
      markup.bar(step['allowed'], f'{step["allowed"]:.1%}'),
    )
    for step in cost['steps']
  ]
  return (
    markup.table(
      (
        'step', 'trie nodes', 'children: mean', 'max', 'allowed codes',
        'of all codes',
      ),
      rows,
      'Allowed codes: those that continue the prefix of a document drawn at '
      'random, which is what a beam on a good path chooses from.',
    )
    + f'<p class="small">The trie takes {cost["trie_bytes"]:,} bytes, '
    f'<b>{cost["trie_bytes_per_document"]:.1f} a document</b>.</p>'
  )  # fmt: skip


def _share(value: float | None) -> str:
  return 'no pairs' if value is None else f'{value:.3f}'


def _churn(churn: Mapping | None) -> str:
  if churn is None:
    return '<p>Left out: no --against was given to compare with.</p>'
  rows = [
    (
      prefix['length'],
      markup.bar(position['changed'], f'{position["changed"]:.1%}'),
      markup.bar(prefix['changed'], f'{prefix["changed"]:.1%}'),
      _share(prefix['adjusted_rand']),
      _share(prefix['kept_pairs']),
    )
    for position, prefix in zip(
      churn['positions'], churn['prefixes'], strict=True
    )
  ]
  return (
    f'<p><b>{churn["changed"]:.1%}</b> of the {churn["matched"]:,} documents '
    f'that are in both have another ID; {churn["new"]:,} are new and '
    f'{churn["removed"]:,} are gone.</p>'
    + markup.table(
      (
        'codes', 'this code changed', 'prefix changed', 'adjusted Rand index',
        'pairs kept',
      ),
      rows,
      'The last two do not depend on how codes are numbered: 1 means that the '
      'same documents are together, an adjusted Rand index of 0 chance. Pairs '
      'kept: of the pairs that shared a prefix, those that still do.',
    )
  )  # fmt: skip


def _system_name(slug: str) -> str:
  known = {'gr_jax': 'gr_jax', 'bm25': 'BM25', 'random_ids': 'random IDs'}
  return known.get(slug, slug.replace('_', ' '))


def _recall(recall: Mapping) -> str:
  if 'missing' in recall:
    return f'<p>{markup.text(recall["missing"])}</p>'
  systems = recall['systems']
  names = {system: markup.text(_system_name(system)) for system in systems}
  legend = ''.join(
    f'<span><i class="s{order % 6}"></i>{names[system]}</span>'
    for order, system in enumerate(systems)
  )
  intro = (
    f'<p>R@10 on split {markup.text(recall["split"])} ({recall["queries"]:,} '
    'queries), by the place of the relevant document: whether IDs serve '
    'crowded prefixes and rarely asked documents as well as the rest. Lines '
    f'are 95 % intervals.</p><p class="legend">{legend}</p>'
  )
  parts = [intro, '<div class="columns">']
  for number, grouping in enumerate(recall['groupings']):
    plot = id_charts.recall_plot(grouping, systems, f'recall{number}')
    rows = [
      (
        names[system],
        *(
          '' if row is None else f'{row["recall"]:.3f} ± {row["margin"]:.3f}'
          for row in grouping['rows'][system]
        ),
      )
      for system in systems
    ]
    headings = ('system', *map(markup.text, grouping['groups']))
    parts.append(
      f'<div><h3>{markup.text(grouping["name"])}</h3>{plot}'
      f'{markup.details("As a table", markup.table(headings, rows, ""))}</div>'
    )
  parts.append('</div>')
  if recall['unknown_documents']:
    parts.append(
      f'<p class="small">{recall["unknown_documents"]:,} relevant documents '
      'are not in this index and are left out.</p>'
    )
  return ''.join(parts)
