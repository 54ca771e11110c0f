// What every kernel begins with. TYPE is the entries' type; sums, norms and lengths are double.

#define BLOCK 256
#define NONE (1LL << 62)

struct Half {  // an IEEE half, without CUDA's headers; its numbers go through float or double
    unsigned short bits;

    Half() = default;
    __device__ explicit Half(double value);
    __device__ explicit operator double() const;
};

typedef TYPE T;

__device__ inline Half::operator double() const
{
    const unsigned sign = (bits & 0x8000u) << 16, rest = (bits & 0x7fffu) << 13;
    const bool special = rest >= 0x0f800000u;  // infinite or NaN
    const float size = __uint_as_float(special ? rest | 0x7f800000u : rest) * (special ? 1.0f : 0x1p112f);
    return sign ? -size : size;
}

__device__ inline Half::Half(double value)
{
    const double size = fabs(value);
    int exponent;
    frexp(size, &exponent);
    const double unit = ldexp(1.0, exponent > -13 ? exponent - 11 : -24);  // of the last bit
    const double rounded = size < 65520.0 ? rint(size / unit) * unit : size * 0x1p1023;  // infinite, or NaN
    const float small = size < 65520.0 ? float(rounded) * 0x1p-112f : float(rounded);
    bits = (__float_as_uint(small) >> 13 & 0x7fffu) | (__double_as_longlong(value) < 0 ? 0x8000u : 0u);
}

__device__ inline Half operator+(Half a, Half b) { return Half(double(a) + double(b)); }

// Of two numbers, as NumPy has it: NaN wins.
template <class N> __device__ inline N np_maximum(N a, N b) { return a >= b || a != a ? a : b; }
template <class N> __device__ inline N np_minimum(N a, N b) { return a <= b || a != a ? a : b; }
template <class N> __device__ inline N np_square(N a) { return a * a; }
template <class N> __device__ inline N np_sign(N a) { return a > 0 ? N(1) : a < 0 ? N(-1) : a == 0 ? N(0) : a; }

// An array of one of the tensors: how many bytes it lies behind the column's first one is in a table.
template <class N> __device__ inline N* at(N* first, long long bytes)
{
    return (N*)((unsigned long long)first + (unsigned long long)bytes);
}
