/* Runs of step_case.h on ranks that are threads, behind a communicator that does everything as late as it
 * may. */
#ifndef TW_TESTS_STEP_THREADS_H
#define TW_TESTS_STEP_THREADS_H

#include "autograd/conv_dnnl.h"
#include "autograd/gemm_cpu.h"
#include "late_comm.h"
#include "optim/adamw.h"
#include "step_case.h"
#include "thread_comm.h"

#include <omp.h>

/* Counts buckets that leave before backward has reached the first weight. */
static _Thread_local struct {
    const tw_param *first;
    tw_status (*reduce_scatter)(tw_comm *, const float *, float *, const int64_t *);
    const float *slab;
    int64_t elements;
    int early;
} watch;

static inline tw_status watched(tw_comm *c, const float *in, float *out, const int64_t *counts) {
    if (in >= watch.slab && in < watch.slab + watch.elements) {
        bool zero = true;
        for (int64_t i = 0; zero && i < watch.first->count; i++)
            zero = ((const float *)watch.first->grad.data)[i] == 0;
        watch.early += zero;
    }
    return watch.reduce_scatter(c, in, out, counts);
}

static inline tw_status update(tw_adamw *adamw, tw_stepper *stepper, double lr) {
    tw_gradient_report report;
    TRY(tw_adamw_inspect(adamw, &report));
    ck_assert_ptr_null(report.offender);
    return tw_adamw_step(adamw, &report, lr, tw_stepper_record(stepper));
}

static inline void watch_buckets(tw_comm *c, const tw_dual_encoder *m) {
    watch.first = tw_params_find(m->params, "visual.conv1.weight");
    watch.reduce_scatter = c->reduce_scatter;
    watch.slab = tw_params_gradients(m->params);
    watch.elements = tw_params_trainable(m->params);
    watch.early = 0;
    if (watch.first->grad.data) c->reduce_scatter = watched;
}

/* In step STOPPED this rank asks to stop when it is asked for the so many-th time, counted from 1; the step
 * is dropped and done again. 0: none does. */
enum { STOPPED = 1 };
static struct { int rank, call; } stopping;

typedef struct asker {
    int rank, calls;
} asker;

static inline bool should_stop(void *context) {
    asker *a = context;
    return ++a->calls == stopping.call && a->rank == stopping.rank;
}

/* A step that all ranks drop, though one of them is asked to. */
static inline void drop_step(tw_comm *c, tw_stepper *stepper, const tw_samples *samples, int step) {
    asker own = {c->rank, 0};
    double loss;
    int64_t size;
    if (!stopping.call || step != STOPPED) return;
    tw_stepper_heed(stepper, should_stop, &own);
    TW_ASSERT_FAILS(tw_stepper_run(stepper, samples, 9, step, &loss, &size), TW_ERR_INTERRUPTED,
                    "step 2 was under way");
    tw_stepper_heed(stepper, NULL, NULL);
}

static inline void work(tw_comm *now, void *argument) {
    static const char *const no_decay[] = {"ln", "bias"};
    static const tw_adamw_config config = {0.9f, 0.98f, 1e-6f, 0.1f, no_decay, 2, 1.0f, 4.6052f};
    outcome *o = argument;
    const setup *s = o->how;
    tw_comm *c = late_comm_of(now);
    tw_towers *towers;
    tw_stepper *stepper;
    tw_partition *partition;
    tw_adamw *adamw = NULL;
    omp_set_num_threads(1);
    tw_dual_encoder *m = make_model(s, c->device);
    if (s->sync) tw_resnet_synchronise(&m->resnet, c);
    watch_buckets(c, m);
    TW_ASSERT_OK(tw_partition_create(tw_params_trainable(m->params), c->rank, c->ranks, 8192, &partition));
    TW_ASSERT_OK(tw_towers_create(m, c->device, s->recompute, TW_U8, &towers));
    TW_ASSERT_OK(tw_stepper_create(m, towers, c->device, c, s->whole ? NULL : partition, s->micro, &stepper));
    if (s->steps > 1)
        TW_ASSERT_OK(tw_adamw_create_ranks(m->params, c->device, c, partition, true, &config, &adamw));
    for (int step = 0; step < (s->steps ? s->steps : 1); step++) {
        tw_samples samples = samples_of(o, c, step);
        double loss;
        int64_t size;
        drop_step(c, stepper, &samples, step);
        TW_ASSERT_OK(tw_stepper_run(stepper, &samples, 9, step, &loss, &size));
        ck_assert_int_eq(size, PAIRS);
        if (step == 0) collect(o, c->device, m, s->whole ? NULL : partition, c->rank);
        if (step == 0) o->early[c->rank] = watch.early;
        if (c->rank == 0) o->loss[step] = loss;
        if (adamw) TW_ASSERT_OK(update(adamw, stepper, s->lr));
    }
    tw_contrastive_result result = tw_stepper_result(stepper);
    ck_assert_int_eq(result.bad_ranks, 0);
    if (c->rank == 0) o->accuracy[0] = result.image_to_text, o->accuracy[1] = result.text_to_image;
    tw_adamw_free(adamw);
    tw_stepper_free(stepper);
    tw_towers_free(towers);
    tw_partition_free(partition);
    tw_dual_encoder_free(m);
    tw_comm_free(c);
    tw_gemm_release(); /* what this thread has cached */
    tw_conv_release();
}

static inline outcome run(const setup *s) {
    outcome o = {.how = s};
    int steps = s->steps ? s->steps : 1;
    TW_ASSERT_OK(tw_device_cpu(1, &o.device));
    make_batches(&o, steps, NULL);
    tw_dual_encoder *m = make_model(s, o.device);
    describe(&o, m);
    tw_dual_encoder_free(m);
    thread_comm_run(s->ranks, o.device, work, &o);
    tw_device_free(o.device);
    return o;
}

#endif
