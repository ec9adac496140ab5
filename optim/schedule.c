#include "optim/schedule.h"

#include <math.h>

double tw_schedule_rate(const tw_schedule *schedule, int64_t step) {
    if (step < schedule->warmup) return schedule->peak * (double)(step + 1) / (double)schedule->warmup;
    int64_t length = schedule->total - schedule->warmup;
    double x = length > 0 ? (double)(step - schedule->warmup) / (double)length : 1.0;
    if (x > 1.0) x = 1.0;
    switch (schedule->kind) {
    case TW_SCHEDULE_COSINE:
        return 0.5 * (1.0 + cos(3.14159265358979323846 * x)) * schedule->peak;
    case TW_SCHEDULE_LINEAR:
        return (1.0 - x) * schedule->peak;
    case TW_SCHEDULE_CONSTANT:
        break;
    }
    return schedule->peak;
}
