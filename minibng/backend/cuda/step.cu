// One step of a formula over all tensors, in one launch: a thread block has one tile, inside one tensor.

struct Tile {  // entries start … stop of a tensor
    long long tensor, start, stop;
};

struct Cut {  // entry i of the tensor belongs to block first + (i / after) % n, which has `size` entries
    long long first, n, after, size;
};

struct Lengths {  // the norms that blocks have, root · 2^-exponent, and the lengths that they are to have
    const double* roots;
    const int* exponents;
    const double* lengths;
};

struct Scale {  // g becomes g · 2^exponent · factor, or, where it is the only entry of its block, ± factor
    double factor;
    int exponent;
    bool single;
};

// Whether the guard has found something not finite; the first thread of all notes it in the record.
__device__ inline bool suppressed(const long long* bad, long long* record, long long step)
{
    if (!bad || *bad >= NONE)
        return false;
    if (record && blockIdx.x == 0 && threadIdx.x == 0) {
        if (record[0] < 0) {
            record[0] = step;
            record[1] = *bad;
        }
        record[2] += 1;
    }
    return true;
}

__device__ inline long long block_of(long long i, const Cut& cut)
{
    if ((i | cut.n | cut.after) >> 32)
        return cut.first + i / cut.after % cut.n;
    return cut.first + (unsigned)i / (unsigned)cut.after % (unsigned)cut.n;  // several times faster
}

__device__ inline Scale scale_of(long long block, const Cut& cut, const Lengths& given)
{
    const double root = given.roots[block], length = given.lengths[block];
    const int exponent = given.exponents[block];
    const bool kept = length == (exponent ? ldexp(root, -exponent) : root);
    if (cut.size == 1 && (cut.n > 1 || !kept))
        return {double(T(length)), 0, true};
    if (kept)
        return {1.0, 0, false};
    double factor = root == 0.0 ? 0.0 : length / root;
    int shift = 0;
    if (factor != 0.0 && factor - factor == 0.0 && !(0x1p-970 < factor && factor < 0x1p1023))
        factor = frexp(factor, &shift);  // a long step along a tiny gradient, or the reverse: bring both near 1
    return {factor, exponent + shift, false};
}

__device__ inline T scaled(T g, const Scale& scale)
{
    const double d = double(g);
    return T((scale.single ? np_sign(d) : scale.exponent ? ldexp(d, scale.exponent) : d) * scale.factor);
}
