"""Whole lists: distributions over their documents, of teacher and student."""

import jax
import jax.numpy as jnp

_NOTHING = -1e9


def kl_loss(scores_BM, teacher_BM, real_BM):
  """KL(softmax(t) || softmax(s)) over the documents of a list.

  As ColBERTv2 (arXiv 2112.01488) and RocketQAv2 (arXiv 2110.07367) learn from a
  cross-encoder, after Hinton et al. 2015 (arXiv 1503.02531).

  Args:
    scores_BM: the student's scores.
    teacher_BM: the teacher's, scaled to the student's.
    real_BM: bool, which places hold a document; of documents that have one
      score whatever the student learns, one place alone, or it would be asked
      for what it cannot give.

  Returns:
    The mean over the lists in nats, and metrics; an empty list gives 0.
  """
  wanted_BM = _log_softmax(teacher_BM, real_BM)
  found_BM = _log_softmax(scores_BM, real_BM)
  loss_B = jnp.sum(
    jnp.exp(wanted_BM) * (wanted_BM - found_BM), axis=-1, where=real_BM
  )
  return jnp.mean(loss_B), {'kl': (jnp.sum(loss_B), loss_B.size)}


def listnet_loss(scores_BM, real_BM, place):
  """ListNet (Cao et al. 2007): cross-entropy of top-one probabilities.

  - sum_i P_t(i) log P_s(i), with P(i) = exp(z_i) / sum_j exp(z_j) over the
  documents of a list, of the teacher's scores t and the student's s.
  A teacher's scores have any scale: here the order alone is taken, exp(-p i) of
  the place i in the list (our choice; `kl_loss` takes the scores).

  Args:
    scores_BM: the student's scores of lists in the teacher's order.
    real_BM: bool, which places hold a document, as `kl_loss` takes it; the
      others are no places.
    place: p, how far a document is asked to be before the next, in units of
      the student's scores. Where the student sets them further apart, a small
      one pulls them together.

  Returns:
    The mean over the lists in nats, and metrics.
  """
  places_BM = jnp.cumsum(real_BM, axis=-1, dtype=scores_BM.dtype)
  wanted_BM = jnp.exp(_log_softmax(-place * places_BM, real_BM))
  found_BM = _log_softmax(scores_BM, real_BM)
  loss_B = -jnp.sum(wanted_BM * found_BM, axis=-1, where=real_BM)
  return jnp.mean(loss_B), {'listnet': (jnp.sum(loss_B), loss_B.size)}


def _log_softmax(scores_BM, real_BM):
  return jax.nn.log_softmax(jnp.where(real_BM, scores_BM, _NOTHING), axis=-1)
