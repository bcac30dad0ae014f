"""A collection small enough to memorise, in the BEIR layout."""

import json

ANIMALS = ['otter', 'heron', 'badger', 'lynx', 'toad', 'mole', 'swift', 'carp']
PLACES = ['river', 'meadow', 'cellar', 'summit', 'harbour']


def write_collection(folder):
  """40 documents; each has two training queries, and one is dev and test.

  Args:
    folder: made, with corpus.jsonl, queries.jsonl and qrels/.

  Returns:
    The folder.
  """
  (folder / 'qrels').mkdir(parents=True)
  documents, queries = [], []
  judged = {'train': [], 'dev': [], 'test': []}
  for animal in ANIMALS:
    for place in PLACES:
      name = f'{animal}-{place}'
      documents.append(
        {
          '_id': name,
          'title': f'{animal} {place}',
          'text': f'The {animal} lives at the {place} and sleeps by day.',
        }
      )
      for number, text in enumerate(
        [f'{animal} of the {place}', f'which {animal} is at the {place}']
      ):
        queries.append({'_id': f'{name}-{number}', 'text': text})
        judged['train'].append((f'{name}-{number}', name))
      judged['dev'].append((f'{name}-0', name))
      judged['test'].append((f'{name}-1', name))
  for file, rows in (('corpus', documents), ('queries', queries)):
    lines = ''.join(json.dumps(row) + '\n' for row in rows)
    (folder / f'{file}.jsonl').write_text(lines)
  for split, pairs in judged.items():
    rows = ''.join(f'{query}\t{document}\t1\n' for query, document in pairs)
    (folder / 'qrels' / f'{split}.tsv').write_text(
      'query-id\tcorpus-id\tscore\n' + rows
    )
  return folder
