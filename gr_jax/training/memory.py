"""What a step takes of a device's memory, read off its compiled program."""

import dataclasses
import math

import jax


@dataclasses.dataclass(frozen=True)
class StepMemory:
  """Bytes on each device while a step runs.

  Attributes:
    parameters: trained and frozen ones.
    optimizer: its state.
    temporary: activations, gradients and whatever else the program makes.
    peak: of all that is there at once, at most.
  """

  parameters: int
  optimizer: int
  temporary: int
  peak: int


def device_bytes(tree):
  """Bytes that each device holds of a tree of arrays, or of their shapes.

  Args:
    tree: arrays or ShapeDtypeStructs, with shardings if on several devices.
  """
  total = 0
  for leaf in jax.tree.leaves(tree):
    sharding = getattr(leaf, 'sharding', None)
    shape = sharding.shard_shape(leaf.shape) if sharding else leaf.shape
    total += math.prod(shape) * leaf.dtype.itemsize
  return total


def step_memory(compiled, state):
  """StepMemory of a step, None where the backend does not tell.

  Args:
    compiled: the step, from `jax.jit(...).lower(...).compile()`.
    state: training.state.TrainState, or its shapes.
  """
  analysis = compiled.memory_analysis()
  if analysis is None:
    return None
  return StepMemory(
    parameters=device_bytes((state.params, state.frozen)),
    optimizer=device_bytes(state.opt_state),
    temporary=analysis.temp_size_in_bytes,
    peak=peak_bytes(analysis),
  )


def peak_bytes(analysis):
  """Bytes of all that is there at once while a program runs, at most.

  Args:
    analysis: of a compiled program, its `memory_analysis()`.
  """
  kept = analysis.argument_size_in_bytes + analysis.output_size_in_bytes
  kept -= analysis.alias_size_in_bytes
  # What CPU calls the peak leaves out what is temporary.
  return max(analysis.peak_memory_in_bytes, kept + analysis.temp_size_in_bytes)


class ReportingStep:
  """A step that says what memory it takes before its first run.

  Nothing is compiled twice: what is compiled ahead is what the jitted function
  then finds.
  """

  def __init__(self, step_fn, stage, report):
    """Takes a step.

    Args:
      step_fn: from training.step.make_step.
      stage: name of the stage of training.
      report: told one line.
    """
    self._step_fn = step_fn
    self._stage = stage
    self._report = report
    self._told = False

  def __call__(self, state, batch):
    """The step."""
    if not self._told:
      self.lower(state, batch)
    return self._step_fn(state, batch)

  def lower(self, state, batch):
    """As the jitted function has it."""
    lowered = self._step_fn.lower(state, batch)
    if not self._told:
      self._told = True
      memory = step_memory(lowered.compile(), state)
      if memory is not None:
        self._report(memory_line(self._stage, memory))
    return lowered


def memory_line(stage, memory):
  """One line for the reader of a log.

  Args:
    stage: name of the stage of training.
    memory: StepMemory.
  """
  parts = ', '.join(
    f'{name} {size / 2**20:,.0f}'
    for name, size in dataclasses.asdict(memory).items()
  )
  return f"memory of a '{stage}' step in MiB a device: {parts}"
