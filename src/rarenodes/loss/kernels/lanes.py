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
    """A float32, uint8 or truth value (`types.boolean`) for each of `lanes` lanes."""

    def __init__(self, dtype, lanes):
        self.dtype, self.lanes = dtype, lanes
        super().__init__(name=f"Vector({dtype} x {lanes})")

    @property
    def ir_type(self):
        """The same as LLVM has it."""
        element = {
            types.float32: ir.FloatType(),
            types.uint8: ir.IntType(8),
            types.boolean: ir.IntType(1),
        }
        return ir.VectorType(element[self.dtype], self.lanes)

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
def load_at(context, array, place, lanes):
    """Values of an array from a place on, counted in all its values."""
    vector = Vector(array.dtype, len(lanes))

    def generate(context, builder, signature, arguments):
        pointer = _pointer(context, builder, signature, arguments, vector, 1)
        return builder.load(pointer, align=4)

    return vector(array, place, lanes), generate


@_vector_operation
def store_at(context, array, place, value):
    """Write values of an array from a place on, counted in all its values."""

    def generate(context, builder, signature, arguments):
        pointer = _pointer(context, builder, signature, arguments, value, 1)
        builder.store(arguments[2], pointer, align=4)
        return context.get_dummy_value()

    return types.void(array, place, value), generate


@_vector_operation
def prefetch(context, array, place):
    """Have the values of an array at a place, which may lie outside, brought into the caches."""

    def generate(context, builder, signature, arguments):
        byte, number = ir.IntType(8).as_pointer(), ir.IntType(32)
        data = context.make_array(signature.args[0])(context, builder, arguments[0]).data
        k = context.cast(builder, arguments[1], signature.args[1], types.intp)
        pointer = builder.bitcast(builder.gep(data, [k]), byte)
        kind = ir.FunctionType(ir.VoidType(), [byte, number, number, number])
        function = builder.module.declare_intrinsic("llvm.prefetch", [byte], kind)
        settings = [ir.Constant(number, value) for value in (0, 3, 1)]
        builder.call(function, [pointer, *settings])
        return context.get_dummy_value()

    return types.void(array, place), generate


@_vector_operation
def transpose(context, tile, k, lanes):
    """Turn the square of as many rows as there are lanes, from row `k` of a tile on."""
    vector = Vector(tile.dtype, len(lanes))

    def generate(context, builder, signature, arguments):
        first = _row_pointer(context, builder, signature, arguments, vector)
        places = [builder.gep(first, [ir.Constant(ir.IntType(64), i)]) for i in lane_numbers]
        rows = [builder.load(place, align=4) for place in places]
        # As cards are shuffled: so often that every row's number and its lanes' have changed places.
        for _ in range(half.bit_length()):
            pairs = zip(rows[:half], rows[half:], strict=True)
            rows = [builder.shuffle_vector(*pair, part) for pair in pairs for part in (low, high)]
        for row, place in zip(rows, places, strict=True):
            builder.store(row, place, align=4)
        return context.get_dummy_value()

    half, lane_numbers = vector.lanes // 2, range(vector.lanes)
    numbers = ir.VectorType(ir.IntType(32), vector.lanes)
    woven = [number for i in lane_numbers for number in (i, i + vector.lanes)]
    low, high = (ir.Constant(numbers, part) for part in (woven[: 2 * half], woven[2 * half :]))
    return types.void(tile, k, lanes), generate


@_vector_operation
def splat(context, number, lanes):
    """The same float32 in every lane."""
    vector = Vector(types.float32, len(lanes))

    def generate(context, builder, signature, arguments):
        one = context.cast(builder, arguments[0], number, vector.dtype)
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
def multiply(context, a, b):
    """Products of float32."""
    return a(a, b), lambda _, builder, __, arguments: builder.fmul(*arguments)


@_vector_operation
def larger(context, a, b):
    """Where `a > b`, of float32; false for NaN."""
    return a.mask(a, b), lambda _, builder, __, arguments: builder.fcmp_ordered(">", *arguments)


@_vector_operation
def mask_of(context, bits, lanes):
    """A truth value for each lane from the lowest bits of an integer."""
    mask = Vector(types.boolean, len(lanes))

    def generate(context, builder, signature, arguments):
        wide = context.cast(builder, arguments[0], bits, types.uint64)
        return builder.bitcast(builder.trunc(wide, ir.IntType(mask.lanes)), mask.ir_type)

    return mask(bits, lanes), generate


@_vector_operation
def not_zero(context, a):
    """Where the value is anything but 0, also NaN."""

    def generate(context, builder, signature, arguments):
        zero = ir.Constant(a.ir_type, None)
        if a.dtype == types.float32:
            return builder.fcmp_unordered("!=", *arguments, zero)
        return builder.icmp_unsigned("!=", *arguments, zero)

    return a.mask(a), generate


@_vector_operation
def bits_of(context, mask):
    """A bit for each lane, the first lowest."""

    def generate(context, builder, signature, arguments):
        return builder.zext(builder.bitcast(arguments[0], ir.IntType(mask.lanes)), ir.IntType(64))

    return types.uint64(mask), generate


@_vector_operation
def both(context, a, b):
    """Where both masks hold."""
    return a(a, b), lambda _, builder, __, arguments: builder.and_(*arguments)


def _row_pointer(context, builder, signature, arguments, vector):
    return _pointer(context, builder, signature, arguments, vector, vector.lanes)


def _pointer(context, builder, signature, arguments, vector, step):
    """To the vector that starts `arguments[1]` steps from the start of array `arguments[0]`."""
    data = context.make_array(signature.args[0])(context, builder, arguments[0]).data
    k = context.cast(builder, arguments[1], signature.args[1], types.intp)
    offset = builder.mul(k, ir.Constant(ir.IntType(64), step))
    return builder.bitcast(builder.gep(data, [offset]), vector.ir_type.as_pointer())
