/* A checkpoint of everything that is odd, in a folder of the test's own. */
#ifndef TW_TESTS_ODD_CHECKPOINT_H
#define TW_TESTS_ODD_CHECKPOINT_H

#include "tw_test.h"

#include "train/formats/checkpoint.h"

#include <dirent.h>
#include <sys/stat.h>
#include <unistd.h>

/* ---- a folder for each test, and small helpers ---- */

static char odd_folder[64];
static char path_buffer[4][512];

static inline const char *in_folder(int slot, const char *name) {
    snprintf(path_buffer[slot], sizeof path_buffer[slot], "%s/%s", odd_folder, name);
    return path_buffer[slot];
}

/* In memory if that can be had: a disk's slow fsync, hundreds of times, adds nothing to these tests. */
static inline void make_folder(void) {
    bool memory = access("/dev/shm", W_OK) == 0;
    snprintf(odd_folder, sizeof odd_folder, "%s/tw_checkpoint_XXXXXX", memory ? "/dev/shm" : "/tmp");
    ck_assert_ptr_nonnull(mkdtemp(odd_folder));
}

static inline int count_files(void) {
    DIR *d = opendir(odd_folder);
    ck_assert_ptr_nonnull(d);
    int n = 0;
    for (struct dirent *e; (e = readdir(d));)
        n += strcmp(e->d_name, ".") != 0 && strcmp(e->d_name, "..") != 0;
    closedir(d);
    return n;
}

static inline void remove_folder(void) {
    DIR *d = opendir(odd_folder);
    ck_assert_ptr_nonnull(d);
    for (struct dirent *e; (e = readdir(d));)
        if (strcmp(e->d_name, ".") != 0 && strcmp(e->d_name, "..") != 0) unlink(in_folder(3, e->d_name));
    closedir(d);
    ck_assert_int_eq(rmdir(odd_folder), 0);
}

static inline unsigned char *load(const char *path, size_t *size) {
    FILE *f = fopen(path, "rb");
    ck_assert_ptr_nonnull(f);
    fseek(f, 0, SEEK_END);
    *size = (size_t)ftell(f);
    rewind(f);
    unsigned char *bytes = malloc(*size + 1);
    ck_assert_ptr_nonnull(bytes);
    ck_assert_uint_eq(fread(bytes, 1, *size, f), *size);
    fclose(f);
    return bytes;
}

static inline void store(const char *path, const unsigned char *bytes, size_t size) {
    FILE *f = fopen(path, "wb");
    ck_assert_ptr_nonnull(f);
    ck_assert_uint_eq(fwrite(bytes, 1, size, f), size);
    ck_assert_int_eq(fclose(f), 0);
}

static inline float bits(uint32_t u) {
    float x;
    memcpy(&x, &u, sizeof x);
    return x;
}

/* ---- a small model with everything that is odd ---- */

enum { TENSORS = 5, BIG = 700 * 1031 };
static float scalar[1], vector[7], matrix[3 * 5], conv[2 * 3 * 1 * 5], *big, *big_m, *big_v;

static inline void fill_tensors(tw_checkpoint_tensor t[TENSORS]) {
    const uint32_t odd[] = {0x7fc00001u, 0xffc12345u, 0x7f800001u, 0x00000001u,
                            0x80000000u, 0xff800000u, 0x007fffffu};
    scalar[0] = 2.6592600f;
    for (int i = 0; i < 7; i++) vector[i] = bits(odd[i]);
    for (int i = 0; i < 15; i++) matrix[i] = (float)i / 3.0f;
    for (int i = 0; i < 30; i++) conv[i] = -(float)i * 1e-30f;
    if (!big) {
        big = malloc(BIG * sizeof *big), big_m = malloc(BIG * sizeof *big), big_v = malloc(BIG * sizeof *big);
        for (uint32_t i = 0; i < BIG; i++) {
            big[i] = bits(i * 2654435761u);
            big_m[i] = bits(i * 2246822519u + 1);
            big_v[i] = bits(i * 3266489917u + 2);
        }
    }
    const tw_checkpoint_tensor all[TENSORS] = {
        {"logit_scale", 0, {0}, scalar, scalar, scalar},
        {"visual.odd", 1, {7}, vector, vector, NULL},
        {"bert.matrix", 2, {3, 5}, matrix, matrix, matrix},
        {"visual.conv1.weight", 4, {2, 3, 1, 5}, conv, NULL, NULL},
        {"text_projection", 2, {700, 1031}, big, big_m, big_v},
    };
    memcpy(t, all, sizeof all);
}

static inline tw_checkpoint_meta a_meta(void) {
    static char vocab[] = "[PAD]\n[UNK]\n\0\xe4\xb8\xad\n\0";
    tw_checkpoint_meta m;
    tw_checkpoint_meta_init(&m);
    static char model[] = "name: tiny\nembed_dim: 64\n", config[] = "", cpu[] = "avx512",
                data[] = "96 pairs, 0";
    m.model_yaml = model, m.config_yaml = config, m.cpu = cpu, m.train_data = data;
    m.vocab = vocab, m.vocab_bytes = sizeof vocab - 1;
    m.context_length = 52, m.step = 123456789012, m.epoch = 3, m.position = 77, m.adam_steps = 123;
    m.seed = UINT64_MAX - 1, m.skipped = 1, m.skipped_total = 2, m.best_r1 = 71.4, m.best_step = 99;
    m.threads = 2, m.ranks = 1, m.micro_batch = 16;
    return m;
}

static inline void check_meta(const tw_checkpoint_meta *m) {
    tw_checkpoint_meta w = a_meta();
    ck_assert_str_eq(m->model_yaml, w.model_yaml);
    ck_assert_str_eq(m->config_yaml, "");
    ck_assert_str_eq(m->cpu, w.cpu);
    ck_assert_str_eq(m->train_data, w.train_data);
    ck_assert_ptr_null(m->extra);
    ck_assert_ptr_null(m->build);
    ck_assert_uint_eq(m->vocab_bytes, w.vocab_bytes);
    ck_assert_mem_eq(m->vocab, w.vocab, w.vocab_bytes);
    ck_assert(m->context_length == 52 && m->step == w.step && m->epoch == 3 && m->position == 77);
    ck_assert(m->adam_steps == 123 && m->seed == w.seed && m->skipped == 1 && m->skipped_total == 2);
    ck_assert(m->best_r1 == 71.4 && m->best_step == 99 && m->threads == 2 && m->ranks == 1);
    ck_assert_int_eq(m->micro_batch, 16);
}

static inline void check_part(tw_checkpoint *c, const tw_checkpoint_tensor *t, tw_checkpoint_part part) {
    const float *wanted = part == TW_CHECKPOINT_PARAM ? t->param : part == TW_CHECKPOINT_M ? t->m : t->v;
    const tw_checkpoint_entry *e = tw_checkpoint_find(c, t->name);
    ck_assert_ptr_nonnull(e);
    float *got = malloc((size_t)e->count * sizeof *got);
    if (wanted) {
        TW_ASSERT_OK(tw_checkpoint_read(c, t->name, part, got, e->count));
        ck_assert_mem_eq(got, wanted, (size_t)e->count * sizeof *got);
    } else {
        TW_ASSERT_FAILS(tw_checkpoint_read(c, t->name, part, got, e->count), TW_ERR_NOT_FOUND, t->name);
    }
    free(got);
}

/* Writes a checkpoint of a few kilobytes and returns its bytes. */
static inline unsigned char *small_checkpoint(const char *path, size_t *size) {
    tw_checkpoint_tensor t[TENSORS];
    fill_tensors(t);
    tw_checkpoint_meta meta = a_meta();
    TW_ASSERT_OK(tw_checkpoint_write(path, &meta, t, TENSORS - 1));
    return load(path, size);
}

/* Opens and reads all of it; the first error, or TW_OK when every value is what was written. */
static inline tw_status read_all(const char *path) {
    tw_checkpoint_tensor t[TENSORS];
    tw_checkpoint *c;
    fill_tensors(t);
    TRY(tw_checkpoint_open(path, &c));
    check_meta(tw_checkpoint_get_meta(c));
    ck_assert_int_eq(tw_checkpoint_count(c), TENSORS - 1);
    for (int i = 0; i < TENSORS - 1; i++)
        for (int part = 0; part < 3; part++) check_part(c, &t[i], (tw_checkpoint_part)part);
    tw_checkpoint_close(c);
    return TW_OK;
}

#endif
