"""What is made from a hierarchy alone, such as its edges in some order: once, however often it is used."""

from typing import ClassVar, TypeVar
from weakref import WeakKeyDictionary

from rarenodes.loss.hierarchy import Hierarchy

Kind = TypeVar("Kind")


class KeptWithHierarchy:
    """Base of classes that a hierarchy alone determines; each keeps its own."""

    _known: ClassVar[WeakKeyDictionary]

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        cls._known = WeakKeyDictionary()

    @classmethod
    def of(cls: type[Kind], hierarchy: Hierarchy) -> Kind:
        """That of a hierarchy, made on first use and kept as long as the hierarchy."""
        found = cls._known.get(hierarchy)
        if found is None:
            found = cls._known[hierarchy] = cls(hierarchy)
        return found
