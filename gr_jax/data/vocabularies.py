"""Text to token ids, the same in preparation and in search; no TensorFlow."""

import hashlib
import io
import json
import pathlib
from collections.abc import Iterable, Sequence
from typing import NamedTuple, Protocol

from gr_jax.types import UserError, near_miss

WORDPIECE_FILE = 'tokenizer.json'
SENTENCEPIECE_FILE = 'spiece.model'
# Text past this many characters a token is cut before it is tokenised, so that
# a long document costs no more than what is kept of it.
_CHARACTERS_PER_TOKEN = 32
# SentencePiece skips longer lines; training text is cut into such pieces.
_TRAINING_LINE_CHARACTERS = 1000


class Encoded(NamedTuple):
  """Token ids of one text, and whether text was left out to fit."""

  ids: list[int]
  truncated: bool


class Vocabulary(Protocol):
  """What preparation, models and search ask of a vocabulary."""

  pad_id: int
  unk_id: int
  size: int
  sha256: str

  def encode_batch(self, texts: Sequence[str], length: int) -> list[list[int]]:
    """Token ids of each text, at most `length` with the special ones."""

  def encode_counted(self, texts: Sequence[str], length: int) -> list[Encoded]:
    """Like `encode_batch`, saying too which texts did not fit."""

  def encode(self, text: str, length: int) -> list[int]:
    """Token ids of one text, at most `length` with the special ones."""

  def decode(self, ids: Sequence[int]) -> str:
    """Text of token ids, special ones left out."""

  def save(self, directory: str | pathlib.Path) -> None:
    """Writes the vocabulary's file into a folder."""


class _FileVocabulary:
  """What both kinds share: the file they are, and calls built on one."""

  pad_id = 0
  _file_name: str

  def __init__(self, path: str | pathlib.Path):
    self._path = pathlib.Path(path)
    try:
      content = self._path.read_bytes()
    except OSError as error:
      raise UserError(f'{path}: no vocabulary: {error.strerror}') from error
    self.sha256 = hashlib.sha256(content).hexdigest()
    self._content = content

  def encode(self, text: str, length: int) -> list[int]:
    """Token ids of one text, at most `length` with the special ones."""
    return self.encode_batch([text], length)[0]

  def encode_batch(self, texts: Sequence[str], length: int) -> list[list[int]]:
    """Token ids of each text, at most `length` with the special ones."""
    return [encoded.ids for encoded in self.encode_counted(texts, length)]

  def encode_counted(self, texts: Sequence[str], length: int) -> list[Encoded]:
    """Like `encode_batch`, saying too which texts did not fit."""
    limit = length * _CHARACTERS_PER_TOKEN
    encoded = self._encode([text[:limit] for text in texts], length)
    return [
      Encoded(ids, truncated or len(text) > limit)
      for (ids, truncated), text in zip(encoded, texts, strict=True)
    ]

  def _encode(self, texts: list[str], length: int) -> list[Encoded]:
    raise NotImplementedError

  def save(self, directory: str | pathlib.Path) -> None:
    """Writes the vocabulary's file into a folder."""
    directory = pathlib.Path(directory)
    directory.mkdir(parents=True, exist_ok=True)
    (directory / self._file_name).write_bytes(self._content)


class WordPieceVocabulary(_FileVocabulary):
  """A Hugging Face `tokenizer.json` with BERT's or MPNet's WordPiece model.

  MPNet's begins texts with id 0 and pads with 1: these two are swapped.
  """

  _file_name = WORDPIECE_FILE

  def __init__(self, path: str | pathlib.Path):
    import tokenizers

    super().__init__(path)
    try:
      kind = json.loads(self._content)['model']['type']
      self._tokenizer = tokenizers.Tokenizer.from_buffer(self._content)
    except (ValueError, KeyError, TypeError) as error:
      raise UserError(f'{path}: no tokenizer.json: {error}') from error
    self._swapped = self._tokenizer.token_to_id('<pad>') == 1
    padded = self._swapped or self._tokenizer.token_to_id('[PAD]') == 0
    if kind != 'WordPiece' or not padded:
      raise UserError(
        f'{path}: expected a WordPiece tokenizer whose [PAD] is 0 or whose '
        f'<pad> is 1, got {kind}'
      )
    unknown = self._tokenizer.model.unk_token
    self.unk_id = self._tokenizer.token_to_id(unknown)
    if self.unk_id is None:
      raise UserError(f'{path}: its vocabulary lacks its own {unknown}')
    self._tokenizer.no_padding()
    self.size = self._tokenizer.get_vocab_size()

  def _encode(self, texts: list[str], length: int) -> list[Encoded]:
    current = self._tokenizer.truncation
    if current is None or current['max_length'] != length:
      self._tokenizer.enable_truncation(length)
    return [
      Encoded(self._swap(encoding.ids), bool(encoding.overflowing))
      for encoding in self._tokenizer.encode_batch(texts)
    ]

  def _swap(self, ids: list[int]) -> list[int]:
    if not self._swapped:
      return ids
    return [1 - i if i < 2 else i for i in ids]

  def decode(self, ids: Sequence[int]) -> str:
    """Text of token ids, special ones left out."""
    return self._tokenizer.decode(self._swap(list(ids)))


class SentencePieceVocabulary(_FileVocabulary):
  """A SentencePiece model with T5's special ids: pad 0, end 1, unknown 2."""

  _file_name = SENTENCEPIECE_FILE
  eos_id = 1
  unk_id = 2

  def __init__(self, path: str | pathlib.Path):
    import sentencepiece

    super().__init__(path)
    try:
      self._processor = sentencepiece.SentencePieceProcessor(
        model_proto=self._content
      )
    except RuntimeError as error:
      raise UserError(f'{path}: no SentencePiece model: {error}') from error
    self.size = self._processor.get_piece_size()
    special = (
      self._processor.pad_id(),
      self._processor.eos_id(),
      self._processor.unk_id(),
    )
    if special != (0, 1, 2):
      raise UserError(
        f'{path}: expected pad, end and unknown to be 0, 1, 2 as in T5, got '
        f'{special}'
      )

  def _encode(self, texts: list[str], length: int) -> list[Encoded]:
    return [
      Encoded(ids[: length - 1] + [self.eos_id], len(ids) >= length)
      for ids in self._processor.encode(texts)
    ]

  def decode(self, ids: Sequence[int]) -> str:
    """Text of token ids, special ones left out."""
    return self._processor.decode([int(i) for i in ids if i > self.unk_id])


def load_vocabulary(
  path: str | pathlib.Path,
) -> WordPieceVocabulary | SentencePieceVocabulary:
  """Opens a vocabulary: a saved folder, a tokenizer.json or a .model file.

  Raises:
    UserError: when there is none of them.
  """
  path = pathlib.Path(path)
  if path.is_dir():
    for name in (WORDPIECE_FILE, SENTENCEPIECE_FILE):
      if (path / name).is_file():
        return load_vocabulary(path / name)
    there = [entry.name for entry in path.iterdir()]
    raise UserError(
      f'{path}: expected {WORDPIECE_FILE} or {SENTENCEPIECE_FILE}'
      f'{near_miss(WORDPIECE_FILE, there)}'
    )
  if path.suffix == '.json':
    return WordPieceVocabulary(path)
  if path.suffix == '.model':
    return SentencePieceVocabulary(path)
  raise UserError(
    f'{path}: expected a vocabulary: a {WORDPIECE_FILE} (WordPiece), a '
    '.model file (SentencePiece) or a folder that holds one'
  )


def train_sentencepiece(
  texts: Iterable[str],
  size: int,
  directory: str | pathlib.Path,
  max_characters: int = 5_000_000,
) -> SentencePieceVocabulary:
  """Trains a unigram vocabulary with T5's special ids, the same each time.

  Args:
    texts: the corpus, read until `max_characters` of it.
    size: pieces wanted; a small corpus gives fewer.
    directory: where the model is written.
    max_characters: training text, from its beginning.

  Returns:
    The vocabulary, saved in `directory`.

  Raises:
    UserError: when the text is too small for a vocabulary.
  """
  import sentencepiece

  model = io.BytesIO()
  try:
    sentencepiece.SentencePieceTrainer.train(
      sentence_iterator=_training_lines(texts, max_characters),
      model_writer=model,
      model_type='unigram',
      vocab_size=size,
      hard_vocab_limit=False,
      byte_fallback=False,
      pad_id=0,
      eos_id=1,
      unk_id=2,
      bos_id=-1,
      # Sampling inside the trainer would draw from an unseeded generator.
      input_sentence_size=0,
      shuffle_input_sentence=False,
      # Sums of floats depend on the number of threads.
      num_threads=2,
      minloglevel=2,
    )
  except RuntimeError as error:
    raise UserError(
      f'cannot train a vocabulary of {size} pieces on this corpus: {error}'
    ) from error
  directory = pathlib.Path(directory)
  directory.mkdir(parents=True, exist_ok=True)
  path = directory / SENTENCEPIECE_FILE
  path.write_bytes(model.getvalue())
  return SentencePieceVocabulary(path)


def _training_lines(texts: Iterable[str], max_characters: int):
  left = max_characters
  for text in texts:
    for line in text.splitlines():
      for start in range(0, len(line), _TRAINING_LINE_CHARACTERS):
        if left <= 0:
          return
        piece = line[start : start + _TRAINING_LINE_CHARACTERS]
        left -= len(piece)
        if piece.strip():
          yield piece
