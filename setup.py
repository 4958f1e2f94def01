"""What pyproject.toml can't say: the pages of docs/ go into the wheel, and not the scripts there that write them."""

from __future__ import annotations

from setuptools import setup
from setuptools.command.build_py import build_py


class WithPages(build_py):
    """Takes the modules of all packages but of the pages."""

    def find_package_modules(self, package: str, package_dir: str) -> list[tuple[str, str, str]]:
        """As its base does: (package, module, file)."""
        return [] if package == "optsweep.docs" else super().find_package_modules(package, package_dir)


setup(cmdclass={"build_py": WithPages})
