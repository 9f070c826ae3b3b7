"""What pyproject.toml cannot say: the folder `conf` is installed as the package `cadence.conf`."""

from setuptools import find_namespace_packages, setup

ROOMS = ("cadence*", "trainer*", "models*", "data*", "hydra_plugins*")

setup(
    packages=[*find_namespace_packages(include=ROOMS, exclude=("*.__pycache__",)), "cadence.conf"],
    package_dir={"cadence.conf": "conf"},
    package_data={"cadence.conf": ["**/*.yaml"], "trainer": ["**/*.css", "**/*.html", "**/*.js"]},
)
