"""seqio's Evaluator, after the corpus has its identifiers of this moment."""

import functools

import jax
import numpy as np
import seqio

from gr_jax.retrieval.encoding import assign_codes, document_vectors
from gr_jax.t5x import run


class RetrievalEvaluator(seqio.Evaluator):
  """Gives the documents their identifiers, where these move, and evaluates.

  What T5X decodes with are the identifiers that a state holds. While codes
  move it holds none: here the corpus is encoded with the state's parameters
  first, as gr_jax.train does it to evaluate.
  """

  def __init__(
    self,
    mixture_or_task_name,
    feature_converter,
    model,
    run_dir,
    eval_split='dev',
    use_cached=False,
    seed=None,
    sequence_length=None,
    use_memory_cache=True,
    logger_cls=(),
    log_dir=None,
  ):
    """As seqio.Evaluator.

    Args:
      mixture_or_task_name: the same.
      feature_converter: the same.
      model: contract.RetrieverModel; bound in gin.
      run_dir: folder of its run; bound in gin.
      eval_split: the same.
      use_cached: the same.
      seed: the same.
      sequence_length: the same.
      use_memory_cache: the same.
      logger_cls: the same.
      log_dir: the same.
    """
    super().__init__(
      mixture_or_task_name,
      feature_converter,
      eval_split=eval_split,
      use_cached=use_cached,
      seed=seed,
      sequence_length=sequence_length,
      logger_cls=logger_cls,
      log_dir=log_dir,
      use_memory_cache=use_memory_cache,
    )
    self._model = model
    self._prepared = run.opened(run_dir)[1]

  def evaluate(
    self,
    *,
    compute_metrics,
    step=None,
    predict_fn=None,
    score_fn=None,
    predict_with_aux_fn=None,
    model_fns=None,
  ):
    """As seqio.Evaluator.evaluate, of the functions that T5X gives.

    Args:
      compute_metrics: the same.
      step: the same.
      predict_fn: a functools.partial that holds the train_state.
      score_fn: the same as seqio.Evaluator has it.
      predict_with_aux_fn: as predict_fn.
      model_fns: the same as seqio.Evaluator has it.
    """
    if self._model.moves_identifiers:
      state = self._with_identifiers(predict_fn.keywords['train_state'])
      predict_fn = functools.partial(predict_fn, train_state=state)
      predict_with_aux_fn = functools.partial(
        predict_with_aux_fn, train_state=state
      )
    return super().evaluate(
      compute_metrics=compute_metrics,
      step=step,
      predict_fn=predict_fn,
      score_fn=score_fn,
      predict_with_aux_fn=predict_with_aux_fn,
      model_fns=model_fns,
    )

  def _with_identifiers(self, state):
    """The state with the identifiers that the index would have."""
    model, prepared = self._model, self._prepared
    params = model.joined(state.params, state.flax_mutables)
    vectors_ND = document_vectors(
      model.module,
      params,
      prepared.document_tokens,
      len(prepared.document_ids),
      prepared.document_length,
    )
    codes_NL = assign_codes(model.module, params, vectors_ND)
    frozen = state.flax_mutables['frozen']
    table = frozen['identifiers']['table']
    found = jax.device_put(codes_NL.astype(np.int32), table.sharding)
    frozen = frozen.copy({'identifiers': {'table': found}})
    return state.replace_flax_mutables(
      state.flax_mutables.copy({'frozen': frozen})
    )
