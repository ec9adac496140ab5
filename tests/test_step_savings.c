/* What is not computed as nothing needs it, the last block for all but token 0 and padding of texts, changes
 * neither loss nor gradients. */
#include "step_threads.h"

/* `base` without savings, and with each of them and both, on `ranks` ranks. */
static void savings_change_nothing(setup base, int ranks, int micro, tw_recompute recompute) {
    bool half = base.type == TW_BF16;
    base.ranks = 1, base.whole_last_block = base.padded_text = true;
    outcome whole = run(&base);
    for (int saved = 1; saved < 4; saved++) {
        setup s = base;
        s.ranks = ranks, s.micro = micro, s.recompute = recompute;
        s.whole_last_block = !(saved & 1), s.padded_text = !(saved & 2);
        outcome o = run(&s);
        compare(&whole, &o, half ? 1e-4 : 1e-6, half ? 2e-2 : 1e-5);
        release(&o);
    }
    release(&whole);
}

START_TEST(savings_change_neither_loss_nor_gradients) {
    savings_change_nothing((setup){.kind = TW_VIT}, 1, 0, TW_RECOMPUTE_NONE);
    savings_change_nothing((setup){.kind = TW_VIT, .dropout = 0.3f, .mask = 0.5}, 1, 0, TW_RECOMPUTE_NONE);
    savings_change_nothing((setup){.kind = TW_VIT, .dropout = 0.2f}, 3, 5, TW_RECOMPUTE_BLOCK);
    savings_change_nothing((setup){.kind = TW_VIT, .dropout = 0.2f, .type = TW_BF16}, 2, 7,
                           TW_RECOMPUTE_LIGHT);
    savings_change_nothing((setup){.kind = TW_VIT, .dropout = 0.2f, .mask = 0.3}, 1, 16, TW_RECOMPUTE_LIGHT);
    savings_change_nothing((setup){.kind = TW_RESNET, .dropout = 0.2f, .freeze = "visual.*.running_*"}, 2, 0,
                           TW_RECOMPUTE_BLOCK);
}
END_TEST

START_TEST(savings_change_nothing_of_what_is_not_frozen) {
    static const char *const patterns[] = {"visual.*", "bert.*", "*.layer.1.*",
                                           "*.resblocks.1.attn.in_proj*"};
    for (int i = 0; i < 4; i++)
        savings_change_nothing((setup){.kind = TW_VIT, .dropout = 0.1f, .freeze = patterns[i]}, 1, 9,
                               i % 2 ? TW_RECOMPUTE_BLOCK : TW_RECOMPUTE_NONE);
}
END_TEST

TW_TEST_MAIN("step_savings", savings_change_neither_loss_nor_gradients,
             savings_change_nothing_of_what_is_not_frozen)
