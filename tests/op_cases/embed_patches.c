#include "op_case.h"

static void reference(const op_config *config, op_value *in, op_value *out) {
    (void)config;
    int64_t b = in[0].shape[0], n = in[0].shape[1], d = in[0].shape[2];
    const double *kept = in[3].v;
    op_expect_shape(&out[0], 3, (int64_t[]){b, n + 1, d});
    for (int64_t i = 0; i < b; i++)
        for (int64_t t = 0; t <= n; t++)
            for (int64_t k = 0; k < d; k++) {
                int64_t position = t && kept ? (int64_t)kept[i * n + t - 1] + 1 : t;
                out[0].v[(i * (n + 1) + t) * d + k] =
                    (t ? in[0].v[(i * n + t - 1) * d + k] : in[1].v[k]) + in[2].v[position * d + k];
            }
}

static const tw_embed_patches_attr none;

#define CLASS(d)                                                                                             \
    { OP_SHAPE(d), .dtype = OP_F32, .parameter = true }
#define POSITIONS(n, d)                                                                                      \
    { OP_SHAPE(n, d), .parameter = true }

#define KEPT(b, k, ...)                                                                                      \
    {                                                                                                        \
        OP_SHAPE(b, k), .dtype = OP_I32, .values = (const double[]) {                                        \
            __VA_ARGS__                                                                                      \
        }                                                                                                    \
    }

static const op_config configs[] = {
    {.name = "plain", .attr = &none, .input = {{OP_SHAPE(3, 4, 5)}, CLASS(5), POSITIONS(5, 5)}},
    {.name = "gaps",
     .attr = &none,
     .input = {{OP_SHAPE(2, 9, 11), .padding = 4}, CLASS(11), POSITIONS(10, 11)}},
    {.name = "one patch", .attr = &none, .input = {{OP_SHAPE(4, 1, 3)}, CLASS(3), POSITIONS(2, 3)}},
    {.name = "one image", .attr = &none, .input = {{OP_SHAPE(1, 6, 8)}, CLASS(8), POSITIONS(7, 8)}},
    {.name = "no patches", .attr = &none, .input = {{OP_SHAPE(3, 0, 4)}, CLASS(4), POSITIONS(1, 4)}},
    {.name = "no images", .attr = &none, .input = {{OP_SHAPE(0, 2, 4)}, CLASS(4), POSITIONS(3, 4)}},
    {.name = "no columns", .attr = &none, .input = {{OP_SHAPE(2, 2, 0)}, CLASS(0), POSITIONS(3, 0)}},
    {.name = "many",
     .attr = &none,
     .input = {{OP_SHAPE(5, 16, 20), .padding = 1}, CLASS(20), POSITIONS(17, 20)}},
    {.name = "kept patches",
     .attr = &none,
     .input = {{OP_SHAPE(3, 2, 5)}, CLASS(5), POSITIONS(7, 5), KEPT(3, 2, 0, 5, 2, 3, 0, 2)}},
    {.name = "kept patches with gaps",
     .attr = &none,
     .input =
         {{OP_SHAPE(2, 3, 11), .padding = 4}, CLASS(11), POSITIONS(10, 11), KEPT(2, 3, 1, 4, 8, 0, 1, 2)}},
    {.name = "one kept patch",
     .attr = &none,
     .input = {{OP_SHAPE(4, 1, 6)}, CLASS(6), POSITIONS(5, 6), KEPT(4, 1, 3, 0, 3, 1)}},
    {.name = "all patches kept",
     .attr = &none,
     .input = {{OP_SHAPE(2, 3, 4)}, CLASS(4), POSITIONS(4, 4), KEPT(2, 3, 0, 1, 2, 0, 1, 2)}},
    {.name = "fewer patches than kept",
     .attr = &none,
     .input = {{OP_SHAPE(2, 1, 4)}, CLASS(4), POSITIONS(4, 4), KEPT(2, 2, 0, 1, 0, 2)},
     .fails = TW_ERR_SHAPE,
     .message = "1 patches of 2 kept ones"},
    {.name = "more kept than positions",
     .attr = &none,
     .input = {{OP_SHAPE(1, 2, 4)}, CLASS(4), POSITIONS(2, 4), KEPT(1, 2, 0, 1)},
     .fails = TW_ERR_SHAPE,
     .message = "2 patches are to be kept of 1"},
    {.name = "other resolution",
     .attr = &none,
     .input = {{OP_SHAPE(2, 4, 5), .dtype = OP_F32}, CLASS(5), {OP_SHAPE(4, 5), .dtype = OP_F32}},
     .fails = TW_ERR_SHAPE,
     .message = "positions is f32 (4,5), f32 (5,5) is needed"},
    {.name = "matrix",
     .attr = &none,
     .input = {{OP_SHAPE(4, 5)}, CLASS(5), POSITIONS(5, 5)},
     .fails = TW_ERR_SHAPE,
     .message = "(B,n,D)"},
    {.name = "no class",
     .attr = &none,
     .input = {{OP_SHAPE(2, 4, 5)}, {0}, POSITIONS(5, 5)},
     .fails = TW_ERR_ARGUMENT,
     .message = "class is missing"},
};

const op_case op_case_embed_patches = {.reference = reference, OP_CONFIGS(configs)};
