"""What `compiled.py` runs in the copy: `python setup_compiled.py build_ext --inplace`, MODULES in the environment."""

import os
import resource

from mypyc.build import mypycify
from setuptools import setup

OPTIONS = ["--strict", "--explicit-package-bases", "--namespace-packages"]
MEMORY_BYTES = 6 << 30
"""mypyc folds constants: one careless tuple of 65,536 zeros took 18 GB. Better it fails."""

resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
setup(name="speciate-compiled", ext_modules=mypycify([*OPTIONS, *os.environ["MODULES"].split()], opt_level="2"))
