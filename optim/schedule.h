/* Learning-rate schedules, as functions of the step alone. */
#ifndef TW_OPTIM_SCHEDULE_H
#define TW_OPTIM_SCHEDULE_H

#include <stdint.h>

typedef enum tw_schedule_kind {
    TW_SCHEDULE_COSINE,
    TW_SCHEDULE_CONSTANT,
    TW_SCHEDULE_LINEAR
} tw_schedule_kind;

typedef struct tw_schedule {
    tw_schedule_kind kind;
    double peak;
    int64_t warmup; /* steps */
    int64_t total;  /* steps of the whole run */
} tw_schedule;

/* The rate of step s, counted from 0. peak (s+1)/warmup for s < warmup; then, with x = (s - warmup)/(total -
 * warmup): cosine peak (1 + cos(pi x))/2, linear peak (1 - x), constant peak. x is held at 1 beyond the end.
 */
double tw_schedule_rate(const tw_schedule *schedule, int64_t step);

#endif
