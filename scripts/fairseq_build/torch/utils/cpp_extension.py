"""Build fairseq without the three extensions that are compiled against torch.

`libbase`, `libnat` and `alignment_train` serve mixtures of experts and models of translation that
this plugin never uses, and they take seven eighths of the time of the build. fairseq imports them
where it needs them, and does without elsewhere.
"""

from setuptools import Extension
from setuptools.command.build_ext import build_ext


class CppExtension(Extension):
    """An extension against torch."""


class BuildExtension(build_ext):
    """Leaves those out."""

    def build_extensions(self) -> None:
        """Called by setuptools."""
        self.extensions = [one for one in self.extensions if not isinstance(one, CppExtension)]
        super().build_extensions()
