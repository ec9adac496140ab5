#include "autograd/cuda/conv_graph.h"
#include "autograd/cuda/rows.h"

/* Cross-correlation with zero padding; inputs: x (B,H,W,C), w (O,C,K,K); output: y (B,H',W',O). Each
 * direction is one product of matrices that are gathered on the way to shared memory. True f32, without
 * tensor cores: the kernel that others are measured by, and what runs where they cannot. */

namespace {

enum { X, W };
enum { TILE = 64, DEPTH = 16, THREADS = 256, SIDE = 16, EACH = TILE / SIDE };

struct conv {
    int64_t batch, height, width, in, out, kernel, stride, padding, lines, columns; /* lines, columns: of y */
};

/* A product's sizes, and what its operands and its result are. */
struct conv_args {
    conv v;
    tw_view x, w, y; /* or gradients of them */
    tw_view to;
    int64_t m, n, k, part; /* part: of k that a block adds up */
    float *partial;        /* (parts, m, n), or NULL: straight to `to` */
};

/* Element of the image at output pixel `pixel`, kernel place (ky, kx), channel c; 0 in the padding. */
TW_DEVICE float pixel_under(const conv_args &a, int64_t pixel, int64_t ky, int64_t kx, int64_t c) {
    const conv &v = a.v;
    int64_t column = pixel % v.columns * v.stride + kx - v.padding;
    int64_t line = pixel / v.columns % v.lines * v.stride + ky - v.padding,
            image = pixel / (v.columns * v.lines);
    if (line < 0 || line >= v.height || column < 0 || column >= v.width) return 0.0f;
    return tw_get_one(a.x, ((image * v.height + line) * v.width + column) * v.in + c);
}

TW_DEVICE float weight(const conv_args &a, int64_t o, int64_t c, int64_t place) {
    return tw_get_one(a.w, (o * a.v.in + c) * a.v.kernel * a.v.kernel + place);
}

/* y (pixels, O) = gathered x (pixels, K K C) times w */
struct forward_product {
    static __device__ __forceinline__ float left(const conv_args &a, int64_t m, int64_t k) {
        int64_t place = k / a.v.in;
        return pixel_under(a, m, place / a.v.kernel, place % a.v.kernel, k % a.v.in);
    }
    static __device__ __forceinline__ float right(const conv_args &a, int64_t k, int64_t n) {
        return weight(a, n, k % a.v.in, k / a.v.in);
    }
};

/* dx (pixels of x, C) = gathered dy (pixels of x, K K O) times w */
struct x_product {
    static __device__ __forceinline__ float left(const conv_args &a, int64_t m, int64_t k) {
        const conv &v = a.v;
        int64_t place = k / v.out, line = m / v.width % v.height + v.padding - place / v.kernel;
        int64_t column = m % v.width + v.padding - place % v.kernel, image = m / (v.width * v.height);
        if (line < 0 || column < 0 || line % v.stride != 0 || column % v.stride != 0) return 0.0f;
        line /= v.stride, column /= v.stride;
        if (line >= v.lines || column >= v.columns) return 0.0f;
        return tw_get_one(a.y, ((image * v.lines + line) * v.columns + column) * v.out + k % v.out);
    }
    static __device__ __forceinline__ float right(const conv_args &a, int64_t k, int64_t n) {
        return weight(a, k % a.v.out, n, k / a.v.out);
    }
};

/* dw (O, C K K) = dy^T (O, pixels) times gathered x (pixels, C K K) */
struct w_product {
    static __device__ __forceinline__ float left(const conv_args &a, int64_t m, int64_t k) {
        return tw_get_one(a.y, k * a.v.out + m);
    }
    static __device__ __forceinline__ float right(const conv_args &a, int64_t k, int64_t n) {
        int64_t square = a.v.kernel * a.v.kernel;
        return pixel_under(a, k, n % square / a.v.kernel, n % a.v.kernel, n / square);
    }
};

/* A block has TILE rows (x) and columns (y) of the result and part z of the sum. */
template <class P> __global__ void __launch_bounds__(THREADS) conv_product(conv_args a) {
    __shared__ float left[DEPTH][TILE + 1], right[DEPTH][TILE + 1];
    int64_t row = (int64_t)blockIdx.x * TILE, col = (int64_t)blockIdx.y * TILE, begin = blockIdx.z * a.part;
    int64_t end = begin + a.part < a.k ? begin + a.part : a.k;
    int ty = (int)threadIdx.x / SIDE, tx = (int)threadIdx.x % SIDE;
    float sum[EACH][EACH] = {};
    for (int64_t at = begin; at < end; at += DEPTH) {
        __syncthreads();
        for (int i = (int)threadIdx.x; i < TILE * DEPTH; i += THREADS) {
            int d = i % DEPTH, r = i / DEPTH;
            bool deep = at + d < end;
            left[d][r] = deep && row + r < a.m ? P::left(a, row + r, at + d) : 0.0f;
            right[d][r] = deep && col + r < a.n ? P::right(a, at + d, col + r) : 0.0f;
        }
        __syncthreads();
        for (int d = 0; d < DEPTH; d++)
#pragma unroll
            for (int i = 0; i < EACH; i++)
#pragma unroll
                for (int j = 0; j < EACH; j++) sum[i][j] += left[d][ty + SIDE * i] * right[d][tx + SIDE * j];
    }
#pragma unroll
    for (int i = 0; i < EACH; i++)
#pragma unroll
        for (int j = 0; j < EACH; j++) {
            int64_t r = row + ty + SIDE * i, c = col + tx + SIDE * j;
            if (r >= a.m || c >= a.n) continue;
            if (a.partial)
                a.partial[((int64_t)blockIdx.z * a.m + r) * a.n + c] = sum[i][j];
            else
                tw_put_one(a.to, r * a.n + c, sum[i][j]);
        }
}

/* The rows' sum, in order, to a row: of `parts` and n elements. */
__global__ void add_parts(tw_view partial, int64_t parts, int64_t n, tw_view to) {
    int64_t first = tw_global_thread() * TW_PACK;
    float sum[TW_PACK] = {}, v[TW_PACK];
    if (first >= n) return;
    for (int64_t p = 0; p < parts; p++) {
        tw_load_columns(partial, p, first, n, v);
#pragma unroll
        for (int e = 0; e < TW_PACK; e++) sum[e] += v[e];
    }
    tw_store_columns(to, 0, first, n, sum);
}

conv_args args_of(const tw_call *c) {
    const tw_conv2d_attr *attr = (const tw_conv2d_attr *)c->attr;
    const tw_tensor *x = &c->input[X], *w = &c->input[W], *y = &c->output[0];
    conv_args a = {};
    a.v = conv{x->shape[0], x->shape[1],  x->shape[2],   x->shape[3], w->shape[0],
               w->shape[2], attr->stride, attr->padding, y->shape[1], y->shape[2]};
    a.x = tw_view_rows(x), a.w = tw_view_rows(w);
    return a;
}

template <class P> tw_status run(tw_device *d, conv_args a, int64_t parts) {
    if (a.m == 0 || a.n == 0) return TW_OK;
    a.part = (a.k + parts - 1) / parts;
    dim3 grid(tw_blocks(a.m, TILE), tw_blocks(a.n, TILE), (unsigned)parts);
    TRY(TW_LAUNCH(d, conv_product<P>, grid, THREADS, 0, a));
    if (!a.partial) return TW_OK;
    int64_t n = a.m * a.n;
    tw_view to = tw_view_of(a.to.data, a.to.bf16 ? TW_BF16 : TW_F32, n, n);
    to.add = a.to.add;
    return TW_LAUNCH(d, add_parts, tw_blocks(tw_packs_of(n), TW_PACK_THREADS), TW_PACK_THREADS, 0,
                     tw_view_of(a.partial, TW_F32, n, n), parts, n, to);
}

} // namespace

tw_status tw_conv2d_forward_cuda(const tw_call *c) {
    conv_args a = args_of(c);
    bool done;
    TRY(tw_conv_graph_forward(c, &done));
    if (done) return TW_OK;
    a.to = tw_view_out(&c->output[0], TW_WRITE);
    a.m = a.v.batch * a.v.lines * a.v.columns, a.n = a.v.out, a.k = a.v.kernel * a.v.kernel * a.v.in;
    return run<forward_product>(c->device, a, 1);
}

tw_status tw_conv2d_backward_cuda(const tw_call *c) {
    conv_args a = args_of(c);
    const conv &v = a.v;
    a.y = tw_view_out(&c->output_grad[0], TW_WRITE);
    int64_t square = v.kernel * v.kernel;
    a.m = v.batch * v.height * v.width, a.n = v.in, a.k = square * v.out;
    a.to = tw_view_out(&c->input_grad[X], c->input_mode[X]);
    bool done = false;
    if (a.to.data) TRY(tw_conv_graph_backward_x(c, &done));
    if (a.to.data && !done) TRY(run<x_product>(c->device, a, 1));
    a.m = v.out, a.n = v.in * square, a.k = v.batch * v.lines * v.columns;
    a.to = tw_view_out(&c->input_grad[W], c->input_mode[W]);
    if (!a.to.data) return TW_OK;
    TRY(tw_conv_graph_backward_w(c, &done));
    if (done) return TW_OK;
    a.partial = (float *)c->scratch;
    return run<w_product>(c->device, a, tw_conv_parts(a.m, a.n, a.k));
}
