// Norms of blocks, in two launches: `partial_norms` sums over tiles, `block_norms` over the tiles of each block.
//
// A thread block is cut into teams of `lanes` threads, and a team has one column of entries at a time. All orders are
// fixed, so the same gradient gives the same bits. Sums are double. Halves and floats need no care beyond that; doubles
// (SCALED) are multiplied by the power of two that brings the tile's largest entry into [1/2, 1).

struct Tile {  // rows a0 … a1, blocks j0 … j1, entries c0 … c1 of a tensor cut into (before, n, after)
    long long tensor, a0, a1, j0, j1, c0, c1, n, after;
    long long rows, lanes;  // of the lanes, how many rows they take at a time
    long long norm;         // 1, 2, or 0 for the largest
    long long slot;         // the partial of block 0
};

struct Blocks {  // blocks j0 … j1 of a group of n; the partials of one are `n` apart, `count` of them
    long long j0, j1, n, first, slot, count, lanes, norm, size;
};

__device__ inline double greater(double a, double b) { return b > a || b != b ? b : a; }  // NaN stays

// The sum, or the greatest, of what the lanes of a team have.
__device__ inline double together(double value, int team, int lane, int lanes, bool largest)
{
    __shared__ double held[BLOCK];
    double* const mine = held + team * lanes;
    mine[lane] = value;
    __syncthreads();
    for (int half = lanes / 2; half > 0; half /= 2) {
        if (lane < half)
            mine[lane] = largest ? greater(mine[lane], mine[lane + half]) : mine[lane] + mine[lane + half];
        __syncthreads();
    }
    const double all = mine[0];
    __syncthreads();
    return all;
}

extern "C" __global__ void partial_norms(const Tile* tiles, const T* first, const long long* offsets,
                                         double* partial, int* exponents, long long* bad)
{
    if (blockIdx.x == 0 && threadIdx.x == 0)
        *bad = NONE;
    const Tile tile = tiles[blockIdx.x];
    const T* const g = at(first, offsets[tile.tensor]);
    const int thread = threadIdx.x, lanes = tile.lanes, teams = BLOCK / lanes, across = lanes / tile.rows;
    const int team = across > 1 ? thread / lanes : thread % teams;  // neighbours in memory go to neighbouring threads
    const int lane = across > 1 ? thread % lanes : thread / teams;
    const long long a0 = tile.a0 + lane / across, c0 = tile.c0 + lane % across;
    for (long long j = tile.j0 + team; j - team < tile.j1; j += teams) {
        const long long a1 = j < tile.j1 ? tile.a1 : a0;  // a team without a block waits for the others
        int exponent = 0;
        double fit = 1.0, rest = 1.0;
        if (SCALED) {
            double largest = 0.0;
            for (long long a = a0; a < a1; a += tile.rows)
                for (long long c = c0; c < tile.c1; c += across)
                    largest = greater(largest, fabs(double(g[(a * tile.n + j) * tile.after + c])));
            largest = together(largest, team, lane, lanes, true);
            if (largest > 0.0 && largest - largest == 0.0)
                frexp(largest, &exponent);
            fit = ldexp(1.0, -(exponent / 2));
            rest = ldexp(1.0, -(exponent - exponent / 2));
        }
        double total = 0.0;
        for (long long a = a0; a < a1; a += tile.rows)
            for (long long c = c0; c < tile.c1; c += across) {
                const double size = fabs(double(g[(a * tile.n + j) * tile.after + c])) * fit * rest;
                total = tile.norm == 0 ? greater(total, size) : total + (tile.norm == 2 ? size * size : size);
            }
        total = together(total, team, lane, lanes, tile.norm == 0);
        if (lane == 0 && j < tile.j1) {
            partial[tile.slot + j] = total;
            if (SCALED)
                exponents[tile.slot + j] = exponent;
        }
    }
}

extern "C" __global__ void block_norms(const Blocks* all, const double* partial, const int* exponents,
                                       double* roots, int* powers, long long* bad)
{
    const Blocks blocks = all[blockIdx.x];
    const int thread = threadIdx.x, lanes = blocks.lanes, teams = BLOCK / lanes;
    const int team = thread % teams, lane = thread / teams, twice = blocks.norm == 2 ? 2 : 1;
    for (long long j = blocks.j0 + team; j - team < blocks.j1; j += teams) {
        const long long slot = blocks.slot + j, count = j < blocks.j1 ? blocks.count : 0;
        int exponent = 0;
        if (SCALED) {
            double largest = -1e9;
            for (long long k = lane; k < count; k += lanes)
                if (partial[slot + k * blocks.n] != 0.0)
                    largest = greater(largest, double(exponents[slot + k * blocks.n]));
            largest = together(largest, team, lane, lanes, true);
            exponent = largest > -1e9 ? int(largest) : 0;
        }
        double total = 0.0;
        for (long long k = lane; k < count; k += lanes) {
            double part = partial[slot + k * blocks.n];
            if (SCALED)
                part = ldexp(part, twice * (exponents[slot + k * blocks.n] - exponent));
            total = blocks.norm == 0 ? greater(total, part) : total + part;
        }
        total = together(total, team, lane, lanes, blocks.norm == 0);
        if (lane > 0 || j >= blocks.j1)
            continue;
        if (SCALED) {  // as plain sums would have it, where those are exact enough
            const double plain = ldexp(total, twice * exponent);
            const bool safe = blocks.norm == 2 ? blocks.size * 0x1p-900 <= plain && plain <= 0x1p1000
                                               : blocks.size * 0x1p-450 <= plain && plain <= 0x1p500;
            if (safe || blocks.size == 1 || total - total != 0.0) {
                total = plain;
                exponent = 0;
            }
        }
        roots[blocks.first + j] = blocks.norm == 2 ? sqrt(total) : total;
        powers[blocks.first + j] = -exponent;
        if (total - total != 0.0)
            atomicMin(bad, blocks.first + j);
    }
}
