"""A value type for numba: one number for each lane of a tile, in vector registers.

numba leaves it to LLVM to find vector operations in loops. In the passes over edges LLVM does not:
it cannot know that a node's row and its child's are different rows. These few operations say
outright what is a vector.

The number of lanes must be known when compiling. It is the length of a tuple, passed as `lanes`
whatever its values: numba compiles a version of a function for each length it is called with.
"""

import inspect

from llvmlite import ir
from numba import types
from numba.extending import intrinsic, models, register_model


def as_written(function):
    """The function without what a type checker wrapped round it, which numba cannot compile.

    The tests' checker does so to every function of this package.
    """
    return inspect.unwrap(function)


def _vector_operation(function):
    return intrinsic(as_written(function))


class Vector(types.Type):
    """A float32, int32 or truth value (`types.boolean`) for each of `lanes` lanes."""

    def __init__(self, dtype, lanes):
        self.dtype, self.lanes = dtype, lanes
        super().__init__(name=f"Vector({dtype} x {lanes})")

    @property
    def ir_type(self):
        """The same as LLVM has it."""
        element = {types.float32: ir.FloatType(), types.int32: ir.IntType(32)}
        return ir.VectorType(element.get(self.dtype, ir.IntType(1)), self.lanes)

    @property
    def mask(self):
        """Type of the truth values of comparisons."""
        return Vector(types.boolean, self.lanes)


@register_model(Vector)
class _VectorModel(models.PrimitiveModel):
    def __init__(self, manager, vector):
        super().__init__(manager, vector, vector.ir_type)


@_vector_operation
def load(context, tile, k, lanes):
    """Row `k` of a tile `[nodes, lanes]`."""
    vector = Vector(tile.dtype, len(lanes))

    def generate(context, builder, signature, arguments):
        pointer = _row_pointer(context, builder, signature, arguments, vector)
        return builder.load(pointer, align=4)

    return vector(tile, k, lanes), generate


@_vector_operation
def store(context, tile, k, value):
    """Write row `k` of a tile."""

    def generate(context, builder, signature, arguments):
        pointer = _row_pointer(context, builder, signature, arguments, value)
        builder.store(arguments[2], pointer, align=4)
        return context.get_dummy_value()

    return types.void(tile, k, value), generate


@_vector_operation
def splat(context, number, lanes):
    """The same number in every lane: float32, or int32 from any integer."""
    dtype = types.float32 if isinstance(number, types.Float) else types.int32
    vector = Vector(dtype, len(lanes))

    def generate(context, builder, signature, arguments):
        one = context.cast(builder, arguments[0], number, dtype)
        undefined = ir.Constant(vector.ir_type, ir.Undefined)
        first = builder.insert_element(undefined, one, ir.Constant(ir.IntType(32), 0))
        everywhere = ir.Constant(ir.VectorType(ir.IntType(32), vector.lanes), None)
        return builder.shuffle_vector(first, undefined, everywhere)

    return vector(number, lanes), generate


@_vector_operation
def where(context, mask, yes, no):
    """Lane by lane, `yes` where the mask holds and `no` elsewhere."""
    return yes(mask, yes, no), lambda _, builder, __, arguments: builder.select(*arguments)


@_vector_operation
def add(context, a, b):
    """Sums of float32."""
    return a(a, b), lambda _, builder, __, arguments: builder.fadd(*arguments)


@_vector_operation
def larger(context, a, b):
    """Where `a > b`, of float32; false for NaN."""
    return a.mask(a, b), lambda _, builder, __, arguments: builder.fcmp_ordered(">", *arguments)


@_vector_operation
def equal(context, a, b):
    """Where `a == b`, of int32."""
    return a.mask(a, b), lambda _, builder, __, arguments: builder.icmp_signed("==", *arguments)


@_vector_operation
def same_sign(context, a, b):
    """Where the sign bits of int32 agree."""

    def generate(context, builder, signature, arguments):
        return builder.icmp_signed(">=", builder.xor(*arguments), ir.Constant(a.ir_type, None))

    return a.mask(a, b), generate


@_vector_operation
def both(context, a, b):
    """Where both masks hold."""
    return a(a, b), lambda _, builder, __, arguments: builder.and_(*arguments)


def _row_pointer(context, builder, signature, arguments, vector):
    data = context.make_array(signature.args[0])(context, builder, arguments[0]).data
    k = context.cast(builder, arguments[1], signature.args[1], types.intp)
    offset = builder.mul(k, ir.Constant(ir.IntType(64), vector.lanes))
    return builder.bitcast(builder.gep(data, [offset]), vector.ir_type.as_pointer())
