/* The thread that writes checkpoints: what it writes is what the model was when the copy was made, its errors
 * arrive whole, and other users of HDF5 and the end of the writer wait for it. */
#include "train/checkpoint_writer.h"

#include "data/files.h"
#include "model_weights.h"
#include "tw_test.h"

#include <errno.h>
#include <sys/stat.h>
#include <unistd.h>

static char folder[64];

static void make_folder(void) {
    bool memory = access("/dev/shm", W_OK) == 0;
    snprintf(folder, sizeof folder, "%s/tw_writer_XXXXXX", memory ? "/dev/shm" : "/tmp");
    ck_assert_ptr_nonnull(mkdtemp(folder));
}

typedef struct rig {
    tw_device *device;
    tw_dual_encoder *model;
    tw_adamw *adamw;
    float *room;
    tw_checkpoint_writer *writer;
} rig;

/* Every value of every parameter and moment is `value`, and 1 or 2 more. */
static void fill(rig *r, float value) {
    for (int i = 0; i < tw_params_count(r->model->params); i++) {
        tw_param *p = tw_params_find(r->model->params, tw_params_at(r->model->params, i)->name);
        float *all = malloc((size_t)p->count * sizeof *all);
        for (int part = 0; part < 3; part++) {
            for (int64_t k = 0; k < p->count; k++) all[k] = value + (float)part;
            if (part == 0) TW_ASSERT_OK(tw_params_set(r->model->params, p, all));
            if (part > 0) TW_ASSERT_OK(tw_adamw_set_moment(r->adamw, p, part == 2, all));
        }
        free(all);
    }
}

static rig make_rig(void) {
    static const tw_adamw_config config = {
        .beta1 = 0.9f, .beta2 = 0.98f, .eps = 1e-6f, .logit_scale_max = 4.6f};
    rig r;
    tw_model_config c = described("micro");
    TW_ASSERT_OK(tw_device_cpu(1, &r.device));
    TW_ASSERT_OK(tw_dual_encoder_create(&c, &r.model));
    TW_ASSERT_OK(tw_dual_encoder_allocate(r.model, r.device, TW_F32, true));
    TW_ASSERT_OK(tw_adamw_create(r.model->params, r.device, &config, &r.adamw));
    r.room = malloc((size_t)tw_snapshot_values(r.model, true) * sizeof *r.room);
    TW_ASSERT_OK(tw_checkpoint_writer_create(&r.writer));
    make_folder();
    return r;
}

static void free_rig(rig *r) {
    tw_checkpoint_writer_free(r->writer);
    free(r->room);
    tw_adamw_free(r->adamw);
    tw_dual_encoder_free(r->model);
    tw_device_free(r->device);
    tw_remove_folder(folder);
}

static void start(rig *r, const char *to, int64_t step) {
    tw_checkpoint_job job = {.folder = to, .keep = 0};
    tw_checkpoint_meta_init(&job.meta);
    job.meta.step = step;
    TW_ASSERT_OK(tw_model_snapshot(r->model, r->adamw, true, r->room, &job.snapshot));
    tw_checkpoint_writer_start(r->writer, &job);
    ck_assert_ptr_null(job.snapshot.tensors); /* taken over */
    ck_assert(tw_checkpoint_writer_is_busy(r->writer));
}

/* All values in the folder's newest checkpoint, which is of this step. */
static void expect(rig *r, int64_t step, float value) {
    tw_checkpoint *c;
    TW_ASSERT_OK(tw_checkpoint_open(folder, &c));
    ck_assert_int_eq(tw_checkpoint_get_meta(c)->step, step);
    ck_assert_int_eq(tw_checkpoint_count(c), tw_params_count(r->model->params));
    for (int64_t i = 0; i < tw_checkpoint_count(c); i++) {
        const tw_checkpoint_entry *e = tw_checkpoint_at(c, i);
        float *all = malloc((size_t)e->count * sizeof *all);
        for (int part = 0; part < 3; part++) {
            TW_ASSERT_OK(tw_checkpoint_read(c, e->name, (tw_checkpoint_part)part, all, e->count));
            for (int64_t k = 0; k < e->count; k++) ck_assert_float_eq(all[k], value + (float)part);
        }
        free(all);
    }
    tw_checkpoint_close(c);
}

START_TEST(writes_what_the_model_was) {
    rig r = make_rig();
    double ended = 0;
    for (int step = 1; step <= 5; step++) {
        fill(&r, (float)step);
        start(&r, folder, step);
        fill(&r, 100); /* training goes on */
        TW_ASSERT_OK(tw_checkpoint_writer_collect(r.writer, &ended));
        ck_assert(!tw_checkpoint_writer_is_busy(r.writer));
        ck_assert_double_gt(ended, 0);
        expect(&r, step, (float)step);
    }
    TW_ASSERT_OK(tw_checkpoint_writer_collect(r.writer, &ended)); /* nothing is there */
    free_rig(&r);
}
END_TEST

START_TEST(its_errors_are_told_by_collect) {
    rig r = make_rig();
    double ended;
    fill(&r, 1);
    start(&r, "/proc/tuwen", 1);
    while (!tw_checkpoint_writer_is_done(r.writer)) usleep(1000);
    TW_ASSERT_FAILS(tw_checkpoint_writer_collect(r.writer, &ended), TW_ERR_IO, "/proc/tuwen");
    start(&r, folder, 2); /* the next one is none the worse */
    TW_ASSERT_OK(tw_checkpoint_writer_collect(r.writer, &ended));
    expect(&r, 2, 1);
    free_rig(&r);
}
END_TEST

/* Another file is opened and read all the while: both come out right. */
START_TEST(others_may_use_hdf5_meanwhile) {
    rig r = make_rig();
    double ended;
    fill(&r, 1);
    start(&r, folder, 1);
    TW_ASSERT_OK(tw_checkpoint_writer_collect(r.writer, &ended));
    int read = 0;
    for (int step = 2; step < 12; step++) {
        start(&r, folder, step);
        char *path = tw_path_join(folder, "epoch_0_step_1.h5");
        while (!tw_checkpoint_writer_is_done(r.writer) || read < step) {
            tw_checkpoint *c;
            float value;
            TW_ASSERT_OK(tw_checkpoint_open(path, &c));
            TW_ASSERT_OK(tw_checkpoint_read(c, "logit_scale", TW_CHECKPOINT_V, &value, 1));
            ck_assert_float_eq(value, 3);
            tw_checkpoint_close(c);
            read++;
        }
        free(path);
        TW_ASSERT_OK(tw_checkpoint_writer_collect(r.writer, &ended));
        expect(&r, step, 1);
    }
    free_rig(&r);
}
END_TEST

START_TEST(its_end_waits_for_the_file) {
    rig r = make_rig();
    fill(&r, 4);
    start(&r, folder, 9);
    tw_checkpoint_writer_free(r.writer);
    r.writer = NULL;
    expect(&r, 9, 4);
    free_rig(&r);
}
END_TEST

TW_TEST_MAIN("checkpoint_writer", writes_what_the_model_was, its_errors_are_told_by_collect,
             others_may_use_hdf5_meanwhile, its_end_waits_for_the_file)
