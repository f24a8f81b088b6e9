"""Audit a model on images: python -m utils.audit --model MODEL --images folder:PATH

MODEL is a timm or torchvision name, the directory of a Hugging Face model, or package.module:function;
the page is figures/audit/NAME/report.html, its numbers audit.json beside it. Several processes
share the work: accelerate launch -m utils.audit ... on GPUs, torchrun -m utils.audit ... on CPUs.
"""

from __future__ import annotations

import argparse
import re
import sys
from pathlib import Path

from torch import nn

from .. import env, models
from ..train import processes
from . import answers, battery, page, parts, subject


def main(arguments: list[str] | None = None) -> None:
    """The command line; errors end it with one sentence, and what was measured stays."""
    parser = argparse.ArgumentParser(
        prog="python -m utils.audit",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--model", required=True, help="timm or torchvision name, directory, module:function"
    )
    parser.add_argument(
        "--images", required=True, help="folder:PATH, photographs, or a source such as cifar10"
    )
    parser.add_argument("--weights", help="a .safetensors file for the model")
    parser.add_argument("--methods", nargs="+", default=list(parts.USUAL_METHODS))
    parser.add_argument("--minutes", type=float, default=10.0, help="about how long it may take")
    parser.add_argument("--name", help="folder of the result (default: the model's name)")
    parser.add_argument(
        "--shortcut", action="store_true", help="plant one and train on it: as many minutes again"
    )
    options = parser.parse_args(arguments)
    name = re.sub(r"[^\w.-]+", "-", options.name or Path(options.model).name).strip("-.")
    out = env.FIGURES / "audit" / name
    try:
        judged = subject.open_subject(_model(options.model, options.weights), options.images)
        report = battery.run(judged, out, options.methods, options.minutes, plant=options.shortcut)
        if processes.rank() > 0:
            return
        file = page.write_page(judged, report, out / "report.html")
    except KeyboardInterrupt:
        sys.exit("\nThe audit was stopped; the same command goes on where it was.")
    except (ValueError, RuntimeError, OSError, ImportError) as error:
        sys.exit(str(error))
    for question, sentence in answers.recommended(report).items():
        print(f"{question} {sentence}")
    print(f"The page is figures/audit/{name}/{file.name}: open it in a browser.")


def _model(name: str, weights: str | None) -> nn.Module:
    """The model on this process's device; a directory is taken for a Hugging Face model."""
    name = f"hf:{name}" if Path(name).expanduser().is_dir() else name
    sys.path.insert(0, "")  # functions of the reader's own, in the current folder
    return models.resolve(name, weights=weights).to(env.device())


if __name__ == "__main__":
    main()
