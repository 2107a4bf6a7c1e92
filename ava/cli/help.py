"""The help of `ava-train`: the groups and options there are, the main keys, examples. Reads file names only."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from ava.config.paths import conf_directory, group_options

_TEXT = """\
ava-train trains a model: ava-train [options] [overrides]

Without anything, it learns handwritten digits in seconds.

Overrides
  group=option           choose a part:        optimizer=lion  scheduler=onecycle  task=stdlib_lm
  key=value              set a value:          optimizer.lr=3e-4  trainer.max_steps=2000
  key=a,b  with -m       one run for each:     -m optimizer=adamw,lion seed=0,1

Groups and their options
{groups}

Main keys
  seed                   of every random number
  run_dir                where the run is written; default outputs/<date>/<time>-<task>-<optimizer>
  resume                 auto, a run directory or a checkpoint directory
  path                   your file or folder, for data sources that read one
  plugins                [module, ...] that register parts of your own
  logger                 [tensorboard]
  trainer.max_steps      optimizer steps; trainer.max_epochs passes over the data: the first one reached counts
  trainer.batch_size     samples of one step, over all ranks; trainer.accumulate (a number, auto) cuts it up
  trainer.eval_every     steps between evaluations; trainer.log_every between logged steps
  trainer.device         auto, cpu, cuda
  trainer.compile        compile model and loss; trainer.activation_checkpointing saves memory
  precision.name         what precision=bf16 sets; precision.recipe, precision.qat and others stand beside it
  trainer.clip           how gradients are limited (norm, zscore, none, ...); trainer.clip_norm its threshold
  health.on_nonfinite    raise, skip or rollback at a gradient that is not finite; health.detail_every looks at layers
  optimizer.lr           learning rate; `ava list optimizers` names every option of every part
  scheduler.warmup_steps steps of warm-up, or a share of the training (0.05); `ava schedule` draws the whole schedule
  lr_finder.enabled      test first which learning rate is good, and train with it; `ava-find-lr` only tests
  checkpoint.every       steps between checkpoints; checkpoint.keep_last how many stay
  sweep.jobs             runs at the same time with -m; sweep.dir where they go

Options
  -h, --help             this
  --version              the version
  -c, --cfg job          show the configuration and stop; with --resolve, as it is used
  -m, --multirun         run every combination of the values given, each in its own process
  -cd, --config-dir DIR  a directory with configuration files of your own; may be repeated
  -sc, --shell-completion install=bash   print what turns on tab completion: eval "$(ava-train -sc install=bash)"

Examples
  ava-train optimizer=lion scheduler=onecycle
  ava-train experiment=gpt_stdlib
  ava-train data=text path=~/books task=language_model model=gpt
  ava-train resume=auto run_dir=outputs/mine trainer.max_steps=5000
  ava-train -m optimizer=adamw,lion,sgd seed=0,1 sweep.jobs=2
  torchrun --nproc-per-node 2 -m ava.cli.train optimizer=lion
"""


def help_text(config_dirs: Sequence[Path]) -> str:
    """Write the help, with what the user's own directories offer."""
    groups = group_options([conf_directory(), *config_dirs])
    return _TEXT.format(groups="\n".join(f"  {group:<22} {', '.join(names)}" for group, names in groups.items()))
