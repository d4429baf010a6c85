"""The type checker of the import hook: shapes and types of arrays, at run time.

Other annotations are left out: what a wrong word or kind leads to is the library's own sentence, which tests
read.
"""

from beartype import beartype

__all__ = ["arrays_only"]


def arrays_only(function):
    """`beartype` for those parameters whose annotation names an array."""
    hints = function.__annotations__
    function.__annotations__ = {name: hint for name, hint in hints.items() if "jaxtyping" in str(hint)}
    return beartype(function)
