#include "train/profile.h"

#include "train/clock.h"

#include <math.h>
#include <stdio.h>

static const struct {
    const char *key, *name;
} PARTS[TW_PROFILE_PARTS] = {
    [TW_PROFILE_DATA] = {"data", "data wait"},
    [TW_PROFILE_BATCH] = {"batch", "other ranks' data, agreement"},
    [TW_PROFILE_IMAGE] = {"image", "image tower forward"},
    [TW_PROFILE_TEXT] = {"text", "text tower forward"},
    [TW_PROFILE_EXCHANGE] = {"exchange", "features exchange"},
    [TW_PROFILE_LOSS] = {"loss", "loss"},
    [TW_PROFILE_BACKWARD] = {"backward", "backward"},
    [TW_PROFILE_REDUCTION] = {"reduction", "gradient reduction, waited for"},
    [TW_PROFILE_OPTIMIZER] = {"optimizer", "optimizer"},
    [TW_PROFILE_SAVE] = {"save", "checkpoint wait"},
    [TW_PROFILE_VALIDATION] = {"validation", "validation"},
    [TW_PROFILE_OTHER] = {"other", "other"},
};

void tw_profile_begin(tw_profile *p) {
    *p = (tw_profile){.at = tw_seconds()};
}

void tw_profile_lap(tw_profile *p, tw_profile_part part) {
    double now = tw_seconds();
    p->seconds[part] += now - p->at;
    p->at = now;
}

void tw_profile_lap_step(tw_profile *p, const tw_stepper_times *t) {
    double known = t->forward + t->exchange + t->loss + t->backward + t->waited;
    p->seconds[TW_PROFILE_IMAGE] += t->forward - t->text;
    p->seconds[TW_PROFILE_TEXT] += t->text;
    p->seconds[TW_PROFILE_EXCHANGE] += t->exchange;
    p->seconds[TW_PROFILE_LOSS] += t->loss;
    p->seconds[TW_PROFILE_BACKWARD] += t->backward;
    p->seconds[TW_PROFILE_REDUCTION] += t->waited;
    p->reduced += t->reduced;
    p->at += known; /* the rest is for the lap */
    tw_profile_lap(p, TW_PROFILE_OTHER);
}

const char *tw_profile_part_name(tw_profile_part part) {
    return PARTS[part].name;
}

const char *tw_profile_part_key(tw_profile_part part) {
    return PARTS[part].key;
}

double tw_profile_total(const tw_profile *p) {
    double sum = 0;
    for (int i = 0; i < TW_PROFILE_PARTS; i++) sum += p->seconds[i];
    return sum;
}

double tw_profile_hidden(const tw_profile *p) {
    if (p->reduced <= 0) return NAN;
    return fmin(1, fmax(0, 1 - p->seconds[TW_PROFILE_REDUCTION] / p->reduced));
}

static double own_work(const tw_profile *p) {
    return p->seconds[TW_PROFILE_DATA] + p->seconds[TW_PROFILE_IMAGE] + p->seconds[TW_PROFILE_TEXT] +
           p->seconds[TW_PROFILE_LOSS] + p->seconds[TW_PROFILE_BACKWARD];
}

int tw_profile_slowest(const tw_profile *all, int n) {
    int found = 0;
    for (int r = 1; r < n; r++)
        if (own_work(&all[r]) > own_work(&all[found])) found = r;
    return found;
}

static int print_column(const tw_profile *p, tw_profile_part part, char *text, size_t size) {
    double seconds = p->seconds[part], total = tw_profile_total(p);
    return snprintf(text, size, " %10.2f %10.2f %6.1f %%", seconds,
                    p->steps ? 1e3 * seconds / (double)p->steps : 0, total > 0 ? 100 * seconds / total : 0);
}

void tw_profile_line(const tw_profile *p, const tw_profile *q, tw_profile_part part, char *text,
                     size_t size) {
    char first[64], second[64] = "";
    print_column(p, part, first, sizeof first);
    if (q) print_column(q, part, second, sizeof second);
    snprintf(text, size, "%-30s%s%s%s", PARTS[part].name, first, q ? "  |" : "", second);
}
