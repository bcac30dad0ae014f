"""The training loop: step, log, evaluate, save, and nothing else."""

from gr_jax.training.window import Window


def train_loop(
  *,
  state,
  stages,
  batches,
  put,
  settings,
  save,
  log,
  watch,
  hooks,
  check_interrupt,
):
  """Trains until `settings.steps`, from wherever `state` stands.

  Args:
    state: training.state.TrainState.
    stages: {'dense' | 'codes' | 'settled': (begin, step_fn)}, state -> state
      before the stage's first step and that of each of its rounds, and from
      training.step.make_step.
    batches: iterator of batches with get_state, already at the state's step.
    put: function from a numpy batch to device arrays.
    settings: training.state.TrainingSettings.
    save: (step, state, state of the batches) -> None.
    log: (step, {'name': value}) -> None.
    watch: state -> {'name': value}, of the identifiers given lately.
    hooks: functions (step, state) -> {'name': value}, called every
      `evaluate_every` steps once there are codes.
    check_interrupt: called before each step, from interrupts.deferred.

  Returns:
    The state after the last step, saved. No checkpoint is written once a
    metric is not finite: Window.close refuses that.
  """
  window = Window()
  for step in range(int(state.step), settings.steps):
    check_interrupt()
    stage = settings.stage(step)
    begin, step_fn = stages[stage]
    if step in settings.beginnings:
      state = begin(state)
    batch = next(batches)
    state, metrics = step_fn(state, put(batch))
    window.add(metrics, batch)
    done = step + 1
    last = done == settings.steps
    saving = last or done % settings.checkpoint_every == 0
    # The stages measure different criteria: no window spans both.
    staged = done in settings.beginnings
    if saving or staged or not done % settings.log_every:
      values = window.close(done)
      log(done, values if stage == 'dense' else {**values, **watch(state)})
    if saving:
      save(done, state, batches.get_state())
    due = last or (hooks and done % settings.evaluate_every == 0)
    if hooks and due and stage != 'dense':
      for hook in hooks:
        log(done, hook(done, state))
      window = Window()
  return state
