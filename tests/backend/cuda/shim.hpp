// CUDA's words for a C++ compiler: kernels run on the host, one thread block after another. A thread is a fiber only
// where there are barriers. The orders of blocks and threads are shuffled by a seed, for no result may depend on them.

#include <math.h>
#include <setjmp.h>
#include <string.h>
#include <ucontext.h>

#define __global__ __attribute__((visibility("hidden")))  // libc has a `step` of its own
#define __device__
#define __shared__ static

struct Dim {
    unsigned x, y, z;
};

static Dim threadIdx, blockIdx, blockDim, gridDim;

static inline unsigned __float_as_uint(float x) { unsigned y; memcpy(&y, &x, 4); return y; }
static inline float __uint_as_float(unsigned x) { float y; memcpy(&y, &x, 4); return y; }
static inline long long __double_as_longlong(double x) { long long y; memcpy(&y, &x, 8); return y; }
static inline long long atomicMin(long long* at, long long value) { long long old = *at; if (value < old) *at = value; return old; }

static const unsigned MOST = 1024, STACK = 1 << 16;
static ucontext_t fibers[MOST];
static jmp_buf launcher, threads[MOST];  // after its start a fiber is changed to by a jump, which is no system call
static bool started[MOST], finished[MOST];
static void (*entry)(void**);
static void** given;

static void fiber()
{
    entry(given);
    finished[threadIdx.x] = true;
    _longjmp(launcher, 1);
}

__attribute__((noinline)) static void resume(unsigned thread)
{
    if (_setjmp(launcher))
        return;
    if (started[thread])
        _longjmp(threads[thread], 1);
    started[thread] = true;
    setcontext(&fibers[thread]);
}

__attribute__((noinline)) static void __syncthreads()
{
    const unsigned me = threadIdx.x;
    if (!_setjmp(threads[me]))
        _longjmp(launcher, 1);
    threadIdx.x = me;
}

static void shuffle(unsigned* order, unsigned count, unsigned long long& seed)
{
    for (unsigned k = 0; k < count; ++k)
        order[k] = k;
    for (unsigned k = count; seed && k > 1; --k) {
        seed ^= seed << 13, seed ^= seed >> 7, seed ^= seed << 17;
        const unsigned other = seed % k, kept = order[k - 1];
        order[k - 1] = order[other], order[other] = kept;
    }
}

// Returns 0, or 1 where only some threads of a block came to a barrier.
static int run(void (*kernel)(void**), unsigned grid, unsigned block, unsigned long long seed, bool barriers, void** arguments)
{
    static char stacks[MOST][STACK];
    static unsigned order[MOST];
    unsigned* const blocks = new unsigned[grid];
    int wrong = 0;
    entry = kernel, given = arguments, gridDim = {grid, 1, 1}, blockDim = {block, 1, 1};
    shuffle(blocks, grid, seed);
    for (unsigned b = 0; b < grid && !wrong; ++b) {
        blockIdx = {blocks[b], 0, 0};
        for (unsigned t = 0; t < block; ++t) {
            started[t] = finished[t] = false;
            if (barriers) {
                getcontext(&fibers[t]);
                fibers[t].uc_stack.ss_sp = stacks[t], fibers[t].uc_stack.ss_size = STACK;
                makecontext(&fibers[t], fiber, 0);
            }
        }
        for (unsigned alive = block; alive && !wrong;) {
            unsigned ended = 0;
            shuffle(order, block, seed);
            for (unsigned k = 0; k < block; ++k) {
                const unsigned t = threadIdx.x = order[k];
                if (finished[t])
                    continue;
                if (barriers)
                    resume(t);
                else
                    entry(arguments), finished[t] = true;
                ended += finished[t];
            }
            alive -= ended;
            wrong = ended && alive;
        }
    }
    delete[] blocks;
    return wrong;
}
