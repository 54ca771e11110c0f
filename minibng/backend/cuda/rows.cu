// target[index] += values over the first axis, each target row's values in their order: no atomics, always the same bits.
// `sorted` are the rows in order, `order` where they stood, `count` how many; a row has `width` entries.

extern "C" __global__ void add_rows(const long long* sorted, const long long* order, long long count, long long width,
                                    const T* values, T* target)
{
    for (long long i = blockIdx.x * (long long)BLOCK + threadIdx.x; i < count * width;
         i += (long long)gridDim.x * BLOCK) {
        const long long k = i / width, column = i % width, row = sorted[k];
        if (k > 0 && sorted[k - 1] == row)
            continue;  // the thread of the row's first value adds them all
        T sum = target[row * width + column];
        for (long long next = k; next < count && sorted[next] == row; ++next)
            sum = sum + values[order[next] * width + column];
        target[row * width + column] = sum;
    }
}
