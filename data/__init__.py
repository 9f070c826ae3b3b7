"""Data modules in which every random choice is a function of the seed and the update.

An open package: modules in another folder `data` on the path, as in a user's project, join these.
"""

from pkgutil import extend_path

__path__ = extend_path(__path__, __name__)
