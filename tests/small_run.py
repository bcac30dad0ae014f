"""Arguments of a run that is small enough for any test."""

GIN = [
  '--gin_file=gin/runs/full.gin',
  '--gin_file=gin/models/t5_1_1_tiny.gin',
  '--gin.T5Config.vocab_size=256',
  '--gin.T5Config.emb_dim=16',
  '--gin.T5Config.num_heads=1',
  '--gin.T5Config.head_dim=8',
  '--gin.T5Config.num_encoder_layers=1',
  '--gin.T5Config.num_decoder_layers=1',
  '--gin.T5Config.mlp_dim=16',
  '--gin.RetrieverConfig.width=16',
  '--gin.POSITIONS=2',
  '--gin.CODES=8',
  '--gin.PreparationSettings.document_length=16',
  '--gin.PreparationSettings.query_length=8',
  '--gin.PreparationSettings.spans_per_document=1',
  '--gin.PreparationSettings.extractive_per_document=1',
  '--gin.PreparationSettings.vocabulary_size=160',
  '--gin.LoaderSettings.batch_size=16',
  '--gin.SearchSettings.beams=4',
]


def training(*more, run='run', data='data', steps=1):
  """What follows `python -m gr_jax.train`."""
  return [
    *GIN,
    f'--gin.RUN_DIR={run}',
    f'--gin.DATA_DIR={data}',
    f'--gin.STEPS={steps}',
    *more,
  ]
