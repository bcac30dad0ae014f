"""The training loop: step, log, evaluate, save, and nothing else."""


def train_loop(
  *,
  state,
  stages,
  batches,
  put,
  settings,
  save,
  log,
  window,
  watch,
  hooks,
  stop,
):
  """Trains until `settings.steps`, whose state is saved, from where it stands.

  No checkpoint is written once a metric is not finite.

  Args:
    state: training.state.TrainState.
    stages: {'dense' | 'codes' | 'settled': (begins, begin, step_fn)}: steps
      before which `begin` is called, as the stage's first and that of each of
      its rounds; state -> state; and from training.step.make_step.
    batches: iterator of batches with get_state, already at the state's step.
    put: function from a numpy batch to device arrays.
    settings: training.state.TrainingSettings.
    save: (step, state, state of the batches) -> None.
    log: (step, {'name': value}) -> None.
    window: training.window.Window.
    watch: state -> {'name': value}, of the identifiers given lately.
    hooks: functions (step, state) -> {'name': value}, called every
      `evaluate_every` steps once there are codes.
    stop: training.interrupts.Stop, asked after each step, heard before.
  """
  for step in range(int(state.step), settings.steps):
    stop.check()
    stage = settings.stage(step)
    begins, begin, step_fn = stages[stage]
    if step in begins:
      with stop.at_once(save, step, state, batches.get_state()):
        state = begin(state)
    batch = next(batches)
    state, metrics = step_fn(state, put(batch))
    window.add(metrics, batch)
    done = step + 1
    last = done == settings.steps
    saving = last or stop.asked(done) or not done % settings.checkpoint_every
    due = last or (hooks and done % settings.evaluate_every == 0)
    # Stages measure different criteria; what is evaluated should be finite.
    closes = saving or due or done in settings.beginnings
    if closes or not done % settings.log_every:
      values = window.close(done)
      log(done, values if stage == 'dense' else {**values, **watch(state)})
    if saving:
      save(done, state, batches.get_state())
    if hooks and due and stage != 'dense':
      with stop.at_once(save, done, state, batches.get_state()):
        for hook in hooks:
          log(done, hook(done, state))
      window.reset()
