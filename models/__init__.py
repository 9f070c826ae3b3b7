"""Nets from plain numbers, one architecture a file: no config, no learning rate, no loss.

An open package: the modules of a folder `models` elsewhere on the path, as a user's project has, join these.
"""

from pkgutil import extend_path

__path__ = extend_path(__path__, __name__)
