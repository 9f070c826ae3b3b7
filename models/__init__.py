"""Nets from plain numbers, one architecture a file: no config, no learning rate, no loss.

An open package: modules in another folder `models` on the path, as in a user's project, join these.
"""

from pkgutil import extend_path

__path__ = extend_path(__path__, __name__)
