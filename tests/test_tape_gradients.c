#include "autograd/random.h"
#include "autograd/tape.h"
#include "layers/linear.h"
#include "tw_test.h"

#include <math.h>

enum { R = 3, D = 4, ROOTS = 3, SQUARE = D * D };

/* Who reads the three stacked matrices: slices that share no element; all of them and, beside that, a slice;
 * all of them twice. */
typedef enum uses { APART, TORN, TWICE, USES } uses;

typedef struct net {
    tw_device *device;
    tw_params *set;
    tw_param *shared, *unused, *frozen, *stack, *slice[2];
    tw_tape *tape;
    tw_tensor *x, *roots[ROOTS];
    tw_arena arena;
} net;

static tw_param *add(net *n, const char *name) {
    tw_param *p;
    TW_ASSERT_OK(
        tw_params_add(n->set, name, 2, (const int64_t[]){D, D}, (tw_init){TW_INIT_NORMAL, 0.5f}, &p));
    return p;
}

static tw_tensor *times(net *n, tw_tensor *x, const tw_param *w) {
    return tw_linear_forward(n->tape, &(tw_linear){.weight = w}, x, TW_IDENTITY, NULL);
}

static void build(net *n, uses how) {
    tw_param *statistic;
    int matched;
    *n = (net){0};
    TW_ASSERT_OK(tw_device_cpu(1, &n->device));
    TW_ASSERT_OK(tw_params_create(&n->set));
    add(n, "q"), add(n, "k"), add(n, "v");
    TW_ASSERT_OK(tw_params_fuse(n->set, 3, &n->stack));
    TW_ASSERT_OK(tw_params_slice(n->set, n->stack, 0, D, &n->slice[0]));
    TW_ASSERT_OK(tw_params_slice(n->set, n->stack, D, 2 * D, &n->slice[1]));
    n->unused = add(n, "unused"), n->shared = add(n, "shared"), n->frozen = add(n, "frozen");
    TW_ASSERT_OK(tw_params_add_statistic(n->set, "mean", 3, 0, &statistic));
    TW_ASSERT_OK(tw_params_freeze(n->set, "frozen", &matched));
    TW_ASSERT_OK(tw_params_allocate(n->set, n->device, TW_F32, true));
    TW_ASSERT_OK(tw_params_initialise(n->set, 3));
    TW_ASSERT_OK(tw_tape_create(n->device, true, TW_RECOMPUTE_NONE, &n->tape));
    n->x = tw_tape_input(n->tape, TW_F32, 2, (const int64_t[]){R, D}, false);
    n->roots[0] = times(n, n->x, how == APART ? n->slice[0] : n->stack);
    n->roots[1] = times(n, n->x, how == TWICE ? n->stack : n->slice[1]);
    n->roots[2] = times(n, times(n, times(n, n->x, n->shared), n->frozen), n->shared);
    TW_ASSERT_OK(tw_tape_finish(n->tape, ROOTS, n->roots));
    n->arena.device = n->device;
    TW_ASSERT_OK(tw_arena_reserve(&n->arena, tw_tape_bytes(n->tape)));
    TW_ASSERT_OK(tw_tape_bind(n->tape, &n->arena));
}

static void drop(net *n) {
    tw_arena_release(&n->arena);
    tw_tape_free(n->tape);
    tw_params_free(n->set);
    tw_device_free(n->device);
}

static void draw(uint32_t id, float *out, int64_t count) {
    tw_random_uniform(&(tw_draw){.seed = 8, .purpose = TW_DRAW_TEST, .layer = id}, -1, 1, out, count);
}

/* Forward, and backward in one of both ways. */
static void run(net *n, bool first) {
    float x[R * D];
    draw(1, x, R * D);
    TW_ASSERT_OK(tw_tape_upload(n->tape, n->x, x));
    TW_ASSERT_OK(tw_tape_forward(n->tape, NULL));
    for (int i = 0; i < ROOTS; i++) {
        tw_tensor g = tw_tape_gradient(n->tape, n->roots[i]);
        draw(2 + (uint32_t)i, g.data, tw_tensor_count(&g));
    }
    TW_ASSERT_OK((first ? tw_tape_backward_first : tw_tape_backward)(n->tape, NULL, NULL, NULL));
}

/* Over memory full of NaN the first backward leaves what zeroing and adding does, zeros where nothing comes
 * to included; and zeroes only what it does not write. */
START_TEST(the_first_backward_needs_no_zeros) {
    static const int64_t written[USES] = {4 * SQUARE, SQUARE, 4 * SQUARE};
    net n;
    build(&n, (uses)_i);
    int64_t count = tw_params_trainable(n.set) + tw_params_statistics(n.set), left = 0;
    float *slab = tw_params_gradients(n.set), *want = malloc((size_t)count * sizeof *want);
    TW_ASSERT_OK(tw_params_zero_gradients(n.set));
    run(&n, false);
    memcpy(want, slab, (size_t)count * sizeof *want);
    ck_assert(want[n.shared->offset] != 0 && want[n.stack->offset + 2 * SQUARE] != 0);
    memset(slab, 0xff, (size_t)count * sizeof *slab);
    TW_ASSERT_OK(tw_tape_zero_others(n.tape, n.set));
    for (int64_t i = 0; i < count; i++) left += isnan(slab[i]) != 0;
    ck_assert_int_eq(left, written[_i]);
    run(&n, true);
    for (int64_t i = 0; i < count; i++)
        ck_assert_msg(slab[i] == want[i], "element %lld: %g, not %g", (long long)i, (double)slab[i],
                      (double)want[i]);
    run(&n, false); /* the next micro-batch's is added */
    for (int64_t i = 0; i < count; i++) ck_assert_float_eq_tol(slab[i], 2 * want[i], 1e-6f);
    free(want);
    drop(&n);
}
END_TEST

int main(void) {
    TCase *tcase = tcase_create("tape_gradients");
    tcase_add_loop_test(tcase, the_first_backward_needs_no_zeros, 0, USES);
    return tw_test_run_case("tape_gradients", tcase);
}
