/* The tape's memory: neither recomputing, nor sharing memory, nor moving elsewhere changes a bit, and its
 * size is what the mode says. */
#include "tape_net.h"

static void recomputes(tw_recompute recompute) {
    for (int depth = 1; depth <= 4; depth += 3)
        for (int middle = 0; middle < 2; middle++) {
            net keep, again;
            result a, b;
            build(&keep, (options){.depth = depth, .middle_root = middle});
            build(&again, (options){.depth = depth, .middle_root = middle, .recompute = recompute});
            bind(&keep), bind(&again);
            for (int k = 0; k < 2; k++) { /* twice: a step leaves nothing behind */
                keep.step.step = again.step.step = (uint32_t)k;
                run(&keep, &a, 1, 0.5f, NULL, NULL);
                run(&again, &b, 1, 0.5f, NULL, NULL);
                ck_assert(length(a.dx, B * T * D) > 0.01 && length(a.gradients, a.count) > 0.01);
                ck_same(&a, &b);
                free(a.gradients), free(b.gradients);
            }
            drop(&again), drop(&keep);
        }
}

START_TEST(recomputation_changes_no_bit) {
    recomputes(TW_RECOMPUTE_LIGHT);
    recomputes(TW_RECOMPUTE_BLOCK);
}
END_TEST

/* Every buffer gets memory of its own, so that nothing can be overwritten too early. */
static void bind_apart(net *n) {
    size_t at = 0;
    for (int i = 0; i < n->tape->n_buffers; i++) {
        n->tape->buffers[i].offset = at;
        at += (n->tape->buffers[i].bytes + 63) / 64 * 64;
    }
    ck_assert_uint_gt(at, n->tape->bytes); /* or there is nothing to compare with */
    n->tape->bytes = at;
    bind(n);
}

START_TEST(shared_memory_changes_no_bit) {
    for (int recompute = TW_RECOMPUTE_NONE; recompute <= TW_RECOMPUTE_BLOCK; recompute++)
        for (int middle = 0; middle < 2; middle++) {
            options o = {.depth = 3, .recompute = (tw_recompute)recompute, .middle_root = middle};
            net planned, apart;
            result a, b;
            build(&planned, o), build(&apart, o);
            bind(&planned), bind_apart(&apart);
            run(&planned, &a, 1, 2, NULL, NULL);
            run(&apart, &b, 1, 2, NULL, NULL);
            ck_same(&a, &b);
            free(a.gradients), free(b.gradients);
            drop(&apart), drop(&planned);
        }
}
END_TEST

START_TEST(memory_is_what_the_mode_says) {
    size_t bytes[2][4]; /* [depth 4, 16][training, recomputing blocks, inference, recomputing lightly] */
    static const tw_recompute recompute[] = {TW_RECOMPUTE_NONE, TW_RECOMPUTE_BLOCK, TW_RECOMPUTE_NONE,
                                             TW_RECOMPUTE_LIGHT};
    for (int deep = 0; deep < 2; deep++)
        for (int mode = 0; mode < 4; mode++) {
            net n;
            build(&n,
                  (options){.depth = deep ? 16 : 4, .recompute = recompute[mode], .inference = mode == 2});
            bytes[deep][mode] = tw_tape_bytes(n.tape);
            drop(&n);
        }
    ck_assert_uint_gt(bytes[1][0], 3 * bytes[0][0]);
    ck_assert_uint_lt(bytes[1][1], bytes[1][0] / 3); /* one value a block, and one block's insides */
    ck_assert_uint_lt(bytes[1][2], bytes[1][1]);
    ck_assert_uint_eq(bytes[1][2], bytes[0][2]);    /* inference does not pay for depth */
    size_t kept = (bytes[1][1] - bytes[0][1]) / 12; /* a block deeper */
    size_t norm = (B * T * D * 4 + 63) / 64 * 64, activation = (B * T * HIDDEN * 4 + 63) / 64 * 64;
    ck_assert_uint_eq(kept, norm);
    /* a block deeper: three norms and an activation less */
    ck_assert_uint_eq((bytes[1][0] - bytes[0][0] - bytes[1][3] + bytes[0][3]) / 12, 3 * norm + activation);
}
END_TEST

START_TEST(addresses_repeat) {
    net n;
    result a, b, c;
    build(&n, (options){.depth = 2, .recompute = TW_RECOMPUTE_BLOCK});
    bind(&n);
    const void *x = n.x->data, *y = n.y->data, *dy = tw_tape_gradient(n.tape, n.y).data;
    ck_assert(x && y && dy);
    run(&n, &a, 1, 0, NULL, NULL);
    ck_assert(n.x->data == x && n.y->data == y);
    bind(&n);
    ck_assert(n.x->data == x && n.y->data == y && tw_tape_gradient(n.tape, n.y).data == dy);
    run(&n, &b, 1, 0, NULL, NULL);
    ck_same(&a, &b);
    /* The root is still there after backward. */
    float again[B * D];
    TW_ASSERT_OK(tw_tape_download(n.tape, n.y, again));
    ck_assert_mem_eq(again, b.y, sizeof again);
    /* In a larger block elsewhere everything moves along. */
    tw_arena other = {.device = n.device};
    TW_ASSERT_OK(tw_arena_reserve(&other, tw_tape_bytes(n.tape) + 4096));
    memset(other.base, 0xff, other.bytes);
    TW_ASSERT_OK(tw_tape_bind(n.tape, &other));
    memset(n.arena.base, 0xff, n.arena.bytes);
    ck_assert_int_eq((char *)n.y->data - (char *)other.base, (const char *)y - (char *)n.arena.base);
    run(&n, &c, 1, 0, NULL, NULL);
    ck_same(&a, &c);
    free(a.gradients), free(b.gradients), free(c.gradients);
    tw_arena_release(&other);
    drop(&n);
}
END_TEST

TW_TEST_MAIN("tape_memory", recomputation_changes_no_bit, shared_memory_changes_no_bit,
             memory_is_what_the_mode_says, addresses_repeat)
