"""python -m utils.bench [--device cuda] | python -m utils.bench gpu"""

import sys

from . import cpu, gpu

try:
    if sys.argv[1:2] == ["gpu"]:
        gpu.main(sys.argv[2:])
    else:
        cpu.main(sys.argv[1:])
except KeyboardInterrupt:
    print("\nStopped: the cases that are printed above are kept.", file=sys.stderr)
    sys.exit(130)
