/* A step that a rank is asked to stop in is dropped by all, and done again it has the bits of one that was
 * not: alone and on several ranks, wherever in the step it is asked. */
#include "step_threads.h"

/* The run in which `rank` is asked to stop at its so many-th `call` has the bits of one without. */
static void drops_without_a_trace(setup s, int rank, int call) {
    s.steps = STOPPED + 3, s.lr = 1e-3;
    outcome a = run(&s);
    stopping.rank = rank, stopping.call = call;
    outcome b = run(&s);
    stopping.call = 0;
    for (int step = 0; step < s.steps; step++)
        ck_assert_msg(a.loss[step] == b.loss[step], "%d ranks, call %d, step %d: loss %.17g, not %.17g",
                      s.ranks, call, step, b.loss[step], a.loss[step]);
    ck_assert(fabs(a.loss[0] - a.loss[s.steps - 1]) > 1e-4);
    release(&a);
    release(&b);
}

/* 64 pairs by 8 are 8 micro-batches alone, at most 3 on three ranks: so many calls in the first pass, one
 * where the ranks agree on the loss, the later ones on the way back. */
START_TEST(a_step_is_dropped_between_micro_batches) {
    static const int alone[] = {1, 4, 9, 12, 17}, together[] = {1, 3, 4, 6, 7};
    setup s = {.kind = TW_VIT, .dropout = 0.1f, .micro = 8};
    for (int i = 0; i < 5; i++) {
        s.ranks = 1;
        drops_without_a_trace(s, 0, alone[i]);
        s.ranks = 3;
        drops_without_a_trace(s, i % 3, together[i]);
    }
}
END_TEST

/* A batch in one piece is dropped before its loss or before its way back. */
START_TEST(a_whole_batch_is_dropped_alone) {
    setup s = {.kind = TW_VIT, .dropout = 0.1f, .ranks = 1};
    for (int call = 1; call <= 3; call++) drops_without_a_trace(s, 0, call);
}
END_TEST

START_TEST(ranks_without_samples_drop_a_step_too) {
    static const int64_t counts[3] = {0, 50, 14};
    setup s = {.kind = TW_RESNET, .dropout = 0.1f, .ranks = 3, .micro = 8, .counts = counts};
    for (int rank = 0; rank < 3; rank++) drops_without_a_trace(s, rank, 2);
}
END_TEST

/* Ranks whose towers communicate stay together until they agree. */
START_TEST(synchronised_ranks_drop_a_step_together) {
    setup s = {.kind = TW_RESNET, .sync = true, .dropout = 0.1f, .ranks = 3, .micro = 8};
    for (int call = 1; call <= 2; call++) drops_without_a_trace(s, 1, call);
}
END_TEST

TW_TEST_MAIN("step_stops", a_step_is_dropped_between_micro_batches, ranks_without_samples_drop_a_step_too,
             synchronised_ranks_drop_a_step_together, a_whole_batch_is_dropped_alone)
