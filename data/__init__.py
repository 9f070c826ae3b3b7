"""What is trained on: data modules whose every random choice is a function of the seed and the update.

An open package: the modules of a folder `data` elsewhere on the path, as a user's project has, join these.
"""

from pkgutil import extend_path

__path__ = extend_path(__path__, __name__)
