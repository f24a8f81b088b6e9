"""What the notebooks leave behind: figures, numbers, executed copies, one HTML page.

python -m utils.report run [--profile demo]        run the course, build report.html
python -m utils.report html [--profile demo]       only build report.html again
python -m utils.report notebooks [--profile demo]  run, then keep the outputs in notebooks/
"""

from __future__ import annotations

import argparse
import sys

from .. import env
from ..env import profile
from .course import publish, run_course
from .page import build_html


def main(arguments: list[str] | None = None) -> None:
    """The command line; see the module's first lines. Errors end it with one sentence."""
    parser = argparse.ArgumentParser(
        prog="python -m utils.report",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("task", choices=["run", "html", "notebooks"])
    parser.add_argument(
        "--profile", help="smoke, demo, paper or full (default: XTL_PROFILE, else auto)"
    )
    asked = parser.parse_args(arguments)
    try:
        chosen = profile(asked.profile)
        if asked.task == "notebooks":
            publish(chosen.name)
        elif asked.task == "run":
            run_course(chosen.name)
        executed = env.RUNS / chosen.name / "executed" / "13_report.ipynb"
        if not executed.exists():
            raise FileNotFoundError(
                f"There is no executed 13_report for the profile {chosen.name}: run `make report PROFILE={chosen.name}`."
            )
        page = build_html(executed, chosen.figures / "report.html")
        print(
            f"The report is figures/{chosen.name}/{page.name} ({page.stat().st_size / 1e6:.1f} MB): open it in a browser."
        )
    except (ValueError, RuntimeError, OSError) as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()
