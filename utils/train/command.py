"""The command line of `python -m utils.train`.

python -m utils.train [--profile demo]                 fine-tune the profile's models
python -m utils.train pretrain ARCH [--epochs N ...]   make course weights
python -m utils.train distil ARCH [--epochs N ...]     make course weights from an ImageNet network
python -m utils.train compare ARCH                     fine-tune all its course weights alike
python -m utils.train transfer ARCH                    accuracy against the number of images
python -m utils.train matched vit_mini                 initialisations compared at equal accuracy
accelerate launch -m utils.train --profile full        fine-tune on several GPUs, batches shared out

A command that was stopped goes on where it was when it is given again.
"""

from __future__ import annotations

import argparse
import json
import shlex
import sys
from dataclasses import replace

from ..env import profile
from . import distill, matched, pretrain, starts, transfer
from .chapter_models import finetuned
from .recipes import DISTIL, DISTIL_MORE, FROM_IMAGENET, NAMED, PRETRAIN, SELFSUP, Recipe


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m utils.train",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("task", nargs="?", choices=list(TASKS), default="finetune")
    parser.add_argument("arch", nargs="?", help="all but finetune: which architecture")
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
    parser.add_argument(
        "--teacher",
        nargs="+",
        default=[],
        help="pretrain: course architectures to learn from, or imagenet",
    )
    parser.add_argument("--epochs", type=int, help="pretrain, distil: other number of epochs")
    parser.add_argument("--lr", type=float, help="pretrain, distil: other learning rate")
    parser.add_argument(
        "--ema", type=float, default=0.0, help="pretrain: ship a moving average, decay 0.999 say"
    )
    parser.add_argument(
        "--start",
        default="none",
        help="go on from these weights; pretrain: 'course', 'course:imagenet' or a .safetensors "
        "file; distil: 'course:imagenet'",
    )
    parser.add_argument(
        "--sizes",
        nargs="+",
        default=[],
        metavar="EPOCHSxPIXELS",
        help="pretrain: phases, such as 15x96 5x128",
    )
    return parser


def main(arguments: list[str] | None = None) -> None:
    """The command line; see the module's first lines. Ctrl-C ends it with one sentence."""
    words = sys.argv[1:] if arguments is None else arguments
    parser = _parser()
    options = parser.parse_args(words)
    line = shlex.join(["python", "-m", "utils.train", *words])
    run, known = TASKS[options.task]
    if known and options.arch not in known:
        parser.error(f"{options.task} knows {', '.join(known)}, not {options.arch!r}")
    try:
        run(options, line, parser)
    except KeyboardInterrupt as stop:
        reason = str(stop) or "Stopped before training began; the same command begins it."
        print(f"\n{reason}", file=sys.stderr)
        raise SystemExit(130) from None


def _compare(options: argparse.Namespace, line: str, parser: argparse.ArgumentParser) -> None:
    print(json.dumps(starts.compare(options.arch), indent=1))


def _transfer(options: argparse.Namespace, line: str, parser: argparse.ArgumentParser) -> None:
    print(json.dumps(transfer.study(options.arch, line), indent=1))


def _matched(options: argparse.Namespace, line: str, parser: argparse.ArgumentParser) -> None:
    matched.study(options.arch, line)


def _distil(options: argparse.Namespace, line: str, parser: argparse.ArgumentParser) -> None:
    recipes = DISTIL if options.start == "none" else DISTIL_MORE
    recipe = _changed(recipes[options.arch], options)
    print(json.dumps(distill.distil(options.arch, recipe, line, options.start), indent=1))


def _pretrain(options: argparse.Namespace, line: str, parser: argparse.ArgumentParser) -> None:
    selfsup = SELFSUP.get(options.objective)
    recipe = _changed(selfsup or PRETRAIN[options.arch], options)
    if selfsup:
        if options.arch != "vit_mini" or options.teacher or options.start != "none":
            parser.error(
                f"--objective {options.objective} is for vit_mini, without --teacher or --start"
            )
        card = pretrain.pretrain_without_labels(options.arch, recipe, line, options.objective)
        print(json.dumps(card, indent=1))
        return
    if options.start == "course:imagenet":
        recipe = _changed(FROM_IMAGENET[options.arch], options)
    elif options.start != "none":  # the first phases are for young networks
        recipe = replace(recipe, sizes=(), patch_drop=())
    if options.sizes:
        sizes = _sizes(options.sizes, parser)
        recipe = replace(recipe, sizes=sizes, epochs=sum(epochs for epochs, _ in sizes))
    card = pretrain.pretrain(options.arch, recipe, line, options.teacher, options.start)
    print(json.dumps(card, indent=1))


def _changed(recipe: Recipe, options: argparse.Namespace) -> Recipe:
    """The recipe with what the command line gives in its place."""
    epochs, lr = options.epochs or recipe.epochs, options.lr or recipe.lr
    return replace(recipe, epochs=epochs, lr=lr, ema=options.ema)


def _sizes(words: list[str], parser: argparse.ArgumentParser) -> tuple[tuple[int, int], ...]:
    """Phases from words such as 15x96."""
    try:
        pairs = (word.split("x") for word in words)
        return tuple((int(epochs), int(pixels)) for epochs, pixels in pairs)
    except ValueError:
        parser.error(f"--sizes takes EPOCHSxPIXELS, such as 15x96 5x128, not {' '.join(words)}")


def _finetune(options: argparse.Namespace, line: str, parser: argparse.ArgumentParser) -> None:
    settings, recipe = profile(options.profile), NAMED.get(options.recipe)
    if recipe and settings.name != "full":
        recipe = replace(recipe, epochs=1)
        print(
            f"{options.recipe} is shortened to one epoch: "
            f"the profile {settings.name} is too small for all of it."
        )
    for arch in (settings.cnn, settings.vit):
        model = finetuned(arch, settings, recipe=recipe, label=options.recipe or "")
        best, seconds = max(model.history.val_accuracy), model.history.seconds
        print(f"{arch}: best validation accuracy {best:.3f} after {seconds:.0f} s")


TASKS = {  # what runs, and for which architectures; none: it takes no name
    "finetune": (_finetune, ()),
    "pretrain": (_pretrain, tuple(PRETRAIN)),
    "distil": (_distil, tuple(DISTIL)),
    "compare": (_compare, tuple(PRETRAIN)),
    "transfer": (_transfer, tuple(DISTIL)),
    "matched": (_matched, ("vit_mini",)),
}
