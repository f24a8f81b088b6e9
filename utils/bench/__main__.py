"""python -m utils.bench [--device cuda] | python -m utils.bench gpu"""

import sys

from . import cpu, gpu

if sys.argv[1:2] == ["gpu"]:
    gpu.main(sys.argv[2:])
else:
    cpu.main(sys.argv[1:])
