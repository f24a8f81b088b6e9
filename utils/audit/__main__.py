"""Audit a model on images: python -m utils.audit --model MODEL --images folder:PATH

MODEL is a timm or torchvision name, hf:DIRECTORY, or package.module:function; the page is
figures/audit/NAME/report.html, its numbers audit.json beside it.
"""

from __future__ import annotations

import argparse
import re
import sys

from .. import env, models
from . import battery, page, subject


def main(arguments: list[str] | None = None) -> None:
    """The command line; errors end it with one sentence, and what was measured stays."""
    parser = argparse.ArgumentParser(
        prog="python -m utils.audit",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--model", required=True, help="timm or torchvision name, hf:DIR, module:function"
    )
    parser.add_argument("--images", required=True, help="folder:PATH, or a source such as cifar10")
    parser.add_argument("--weights", help="a .safetensors file for the model")
    parser.add_argument("--methods", nargs="+", default=list(battery.METHODS))
    parser.add_argument("--minutes", type=float, default=10.0, help="about how long it may take")
    parser.add_argument("--name", help="folder of the result (default: the model's name)")
    options = parser.parse_args(arguments)
    name = re.sub(r"[^\w.-]+", "-", options.name or options.model).strip("-.")
    out = env.FIGURES / "audit" / name
    try:
        model = models.resolve(options.model, weights=options.weights)
        judged = subject.load(model.to(env.device()), options.images)
        report = battery.run(judged, out, options.methods, options.minutes)
        file = page.build(judged, report, out / "report.html")
    except KeyboardInterrupt:
        sys.exit("\nThe audit was stopped; the same command goes on where it was.")
    except (ValueError, RuntimeError, OSError) as error:
        sys.exit(str(error))
    for question, sentence in battery.recommended(report).items():
        print(f"{question} {sentence}")
    print(f"The page is figures/audit/{name}/{file.name}: open it in a browser.")


if __name__ == "__main__":
    main()
