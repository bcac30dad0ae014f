"""Queries that a causal language model of `transformers` writes on demand."""

import hashlib
import importlib.util
import pathlib
from collections.abc import Sequence

from gr_jax.checksums import file_sha256
from gr_jax.querygen.candidates import Candidate
from gr_jax.querygen.query_settings import InstructionSource
from gr_jax.types import Document, UserError, document_text

_NEEDED = ('torch', 'transformers')


class Instructed:
  """A model on this machine that is told to write queries.

  Each document draws from a seed of its own, and all its queries at once: they
  do not depend on its neighbours.

  Attributes:
    provenance: SHA-256 of the files of its folder.
  """

  name = 'instruction'

  def __init__(self, settings: InstructionSource, seed: int):
    """Loads model and tokenizer.

    Args:
      settings: where they are, and how they are asked.
      seed: of all documents.

    Raises:
      UserError: when the packages or the folder are missing.
    """
    missing = [n for n in _NEEDED if importlib.util.find_spec(n) is None]
    if missing:
      raise UserError(
        f'InstructionSource needs {" and ".join(missing)}: '
        "pip install 'gr_jax[instruction]', or leave its folder empty"
      )
    folder = pathlib.Path(settings.folder)
    if not (folder / 'config.json').is_file():
      raise UserError(
        f'{folder}: expected a folder of a causal language model as '
        'save_pretrained writes it; it has no config.json'
      )
    import transformers

    self._settings, self._seed = settings, seed
    self._tokenizer = transformers.AutoTokenizer.from_pretrained(
      folder, local_files_only=True
    )
    self._model = transformers.AutoModelForCausalLM.from_pretrained(
      folder, local_files_only=True, use_safetensors=True
    ).eval()
    digest = hashlib.sha256()
    for file in sorted(folder.iterdir()):
      if file.is_file():
        digest.update(f'{file.name} {file_sha256(file)}\n'.encode())
    self.provenance = digest.hexdigest()

  def queries(
    self, documents: Sequence[Document], first: int
  ) -> list[list[Candidate]]:
    """See candidates.Source."""
    return [self._of_document(document) for document in documents]

  def _of_document(self, document: Document) -> list[Candidate]:
    import torch

    settings = self._settings
    text = document_text(document).split()[: settings.document_words]
    prompt = settings.instruction.replace('{document}', ' '.join(text))
    tokens = prompt_tokens(self._tokenizer, prompt)
    torch.manual_seed(_document_seed(self._seed, document.id))
    padding = self._tokenizer.pad_token_id
    if padding is None:
      padding = self._tokenizer.eos_token_id
    with torch.inference_mode():
      out = self._model.generate(
        input_ids=tokens['input_ids'],
        attention_mask=tokens['attention_mask'],
        do_sample=True,
        top_k=0,
        top_p=settings.top_p,
        temperature=settings.temperature,
        max_new_tokens=settings.max_tokens,
        num_return_sequences=settings.count,
        pad_token_id=padding,
      )
    length = tokens['input_ids'].shape[1]
    texts = self._tokenizer.batch_decode(
      out[:, length:], skip_special_tokens=True
    )
    lines = [first_line(text) for text in texts]
    return [Candidate(line, self.name) for line in lines if line]


def prompt_tokens(tokenizer, prompt: str):
  """What a language model reads of a prompt.

  Args:
    tokenizer: of transformers; with a chat template the prompt is what its
      user says.
    prompt: a text.

  Returns:
    'input_ids' and 'attention_mask', PyTorch tensors [1, S].
  """
  templated = bool(tokenizer.chat_template)
  if templated:
    prompt = tokenizer.apply_chat_template(
      [{'role': 'user', 'content': prompt}],
      tokenize=False,
      add_generation_prompt=True,
    )
  # A template writes the start of the text itself.
  return tokenizer(
    prompt, return_tensors='pt', add_special_tokens=not templated
  )


def first_line(text: str) -> str:
  """The query in what a model wrote: its first line, without quotes."""
  for line in text.splitlines():
    if line.strip(' "\'“”\t'):
      return line.strip(' "\'“”\t')
  return ''


def _document_seed(seed: int, document_id: str) -> int:
  name = f'{seed}\ninstruction\n{document_id}'.encode()
  return int.from_bytes(hashlib.blake2b(name, digest_size=7).digest())
