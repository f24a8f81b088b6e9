"""The command line of `python -m utils.train`.

python -m utils.train [--profile demo]                       fine-tune the profile's models
python -m utils.train pretrain ARCH [--epochs N ...]         make course weights
python -m utils.train compare ARCH                           fine-tune all its course weights, and random ones, alike
accelerate launch -m utils.train --profile full              fine-tune on several GPUs, batches shared out
"""

from __future__ import annotations

import argparse
import json
import shlex
import sys
from dataclasses import replace

from ..env import profile
from . import pretrain, starts
from .recipes import NAMED, PRETRAIN, SELFSUP
from .supervised import finetuned


def main(arguments: list[str] | None = None) -> None:
    """The command line; see the module's first lines."""
    parser = argparse.ArgumentParser(
        prog="python -m utils.train",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "task", nargs="?", choices=["finetune", "pretrain", "compare"], default="finetune"
    )
    parser.add_argument("arch", nargs="?", help="pretrain, compare: which architecture")
    parser.add_argument("--profile", help="finetune: smoke, demo, paper or full")
    parser.add_argument(
        "--recipe", choices=sorted(NAMED), help="finetune: one of the published full-data recipes"
    )
    parser.add_argument(
        "--objective",
        choices=["supervised", *SELFSUP],
        default="supervised",
        help="pretrain vit_mini: without labels",
    )
    parser.add_argument("--teacher", help="pretrain: course architecture to learn from")
    parser.add_argument("--epochs", type=int, help="pretrain: other number of epochs")
    parser.add_argument("--lr", type=float, help="pretrain: other learning rate")
    parser.add_argument(
        "--ema", type=float, default=0.0, help="pretrain: ship a moving average, decay 0.999 say"
    )
    parser.add_argument(
        "--start",
        default="none",
        help="pretrain: go on from 'course' weights or a .safetensors file",
    )
    parser.add_argument(
        "--sizes",
        nargs="+",
        default=[],
        metavar="EPOCHSxPIXELS",
        help="pretrain: phases, such as 15x96 5x128",
    )
    words = sys.argv[1:] if arguments is None else arguments
    asked, line = parser.parse_args(words), shlex.join(["python", "-m", "utils.train", *words])
    if asked.task != "finetune" and asked.arch not in PRETRAIN:
        parser.error(f"{asked.task} knows {', '.join(PRETRAIN)}, not {asked.arch!r}")
    if asked.task == "compare":
        print(json.dumps(starts.compare(asked.arch), indent=1))
        return
    if asked.task == "pretrain":
        selfsup = SELFSUP.get(asked.objective)
        recipe = selfsup or PRETRAIN[asked.arch]
        recipe = replace(
            recipe, epochs=asked.epochs or recipe.epochs, lr=asked.lr or recipe.lr, ema=asked.ema
        )
        if selfsup:
            if asked.arch != "vit_mini" or asked.teacher or asked.start != "none":
                parser.error(
                    f"--objective {asked.objective} is for vit_mini, without --teacher or --start"
                )
            card = pretrain.pretrain_without_labels(asked.arch, recipe, line, asked.objective)
            print(json.dumps(card, indent=1))
            return
        if asked.start != "none":  # the first phases are for young networks
            recipe = replace(recipe, sizes=(), patch_drop=())
        if asked.sizes:
            try:
                sizes = tuple(
                    (int(n), int(pixels)) for n, pixels in (s.split("x") for s in asked.sizes)
                )
            except ValueError:
                parser.error(
                    f"--sizes takes EPOCHSxPIXELS, such as 15x96 5x128, not {' '.join(asked.sizes)}"
                )
            recipe = replace(recipe, sizes=sizes, epochs=sum(n for n, _ in sizes))
        print(
            json.dumps(
                pretrain.pretrain(asked.arch, recipe, line, asked.teacher, asked.start), indent=1
            )
        )
        return
    chosen = profile(asked.profile)
    recipe = NAMED.get(asked.recipe)
    if recipe and chosen.name != "full":
        recipe = replace(recipe, epochs=1)
        print(
            f"{asked.recipe} is shortened to one epoch: the profile {chosen.name} only exercises it."
        )
    for arch in (chosen.cnn, chosen.vit):
        history = finetuned(arch, chosen, recipe=recipe, label=asked.recipe or "").history
        print(
            f"{arch}: best validation accuracy {max(history.val_accuracy):.3f} after {history.seconds:.0f} s"
        )
