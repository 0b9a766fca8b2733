"""The vendors' own scoring packages, in an environment of their own, as the reference of ours.

`nox -s parity` builds that environment, has every vendor score the same generated images with the
same seeded weights (`hps_v2`, `image_reward`, `hps_v3`), writes what they say to tests/golden/ and
holds our scorers against it (`compare`). Modules that both environments import need no more than
torch, numpy and Pillow.
"""
