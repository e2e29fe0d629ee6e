"""The packages: every folder of hdl/, sim/ and formal/, below `nibblecore`. All else is in pyproject.toml, which cannot say this."""

from setuptools import find_packages, setup

setup(packages=[f"nibblecore.{package}" for package in find_packages(include=["hdl*", "sim*", "formal*"])])
