"""Pieces of HTML that the sections of a page are made of."""

import html
from collections.abc import Iterable, Sequence


def text(value: object) -> str:
  """Anything as text that cannot be markup."""
  return html.escape(str(value))


def table(
  headings: Sequence[str], rows: Iterable[Sequence[str]], caption: str
) -> str:
  """A table whose first column names the row; cells are HTML already."""
  head = ''.join(f'<th scope="col">{name}</th>' for name in headings)
  lines = ''.join(
    f'<tr><th scope="row">{first}</th>'
    + ''.join(f'<td>{cell}</td>' for cell in rest)
    + '</tr>'
    for first, *rest in rows
  )
  return (
    '<figure><div class="scroll" tabindex="0"><table><thead><tr>'
    f'{head}</tr></thead><tbody>{lines}</tbody></table></div>'
    f'<figcaption>{caption}</figcaption></figure>'
  )


def details(summary: str, content: str) -> str:
  """Content that is shown when asked for."""
  return f'<details><summary>{summary}</summary>{content}</details>'


def bar(share: float, shown: str) -> str:
  """A number with a bar under it, for a column of shares."""
  width = 100 * min(max(share, 0), 1)
  return f'<span class="meter" style="--share:{width:.1f}%">{shown}</span>'


def count(number: float) -> str:
  """A count, also one far past what documents have."""
  return f'{number:,.0f}' if number < 1e9 else f'{number:.2g}'
