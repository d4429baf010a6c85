"""How a measurement enters: as the end of a process, through tangents, or through what knows z."""

from typing import TYPE_CHECKING

from ..._lazy import lazy

if TYPE_CHECKING:
    from .automatic import Automatic as Automatic
    from .base import Inputs as Inputs, Route as Route
    from .conditional import Conditional as Conditional, ConditionalKernel as ConditionalKernel
    from .conditional_network import ConditionalNetwork as ConditionalNetwork
    from .dual_head import DualHead as DualHead
    from .linear import Linear as Linear
    from .linearized import Linearized as Linearized

__getattr__, __dir__ = lazy(
    __name__,
    {
        "Automatic": ".automatic",
        "Inputs": ".base",
        "Route": ".base",
        "Conditional": ".conditional",
        "ConditionalKernel": ".conditional",
        "ConditionalNetwork": ".conditional_network",
        "DualHead": ".dual_head",
        "Linear": ".linear",
        "Linearized": ".linearized",
    },
)
