"""The run-time type checker of the tests: beartype, with ints allowed where floats are asked for.

It looks at random items of containers. It gets numbers of its own, so that checks do not move the global random state,
by which methods of other libraries are found to be random.
"""

import random

import beartype._check.code.codemain as checks
from beartype import BeartypeConf, beartype

checks.getrandbits = random.Random(0).getrandbits
checked = beartype(conf=BeartypeConf(is_pep484_tower=True))
