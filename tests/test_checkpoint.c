/* Checkpoints: what comes back is bit for bit what went in, or the file is refused with a reason. */
#include "tw_test.h"

#include "train/formats/checkpoint.h"
#include "train/formats/fletcher32.h"
#include "train/formats/h5.h"
#include "train/formats/seal.h"
#include "train/formats/xxhash64.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <signal.h>
#include <stdint.h>
#include <sys/mount.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

/* ---- a folder for each test, and small helpers ---- */

static char folder[64];
static char path_buffer[4][512];

static const char *in_folder(int slot, const char *name) {
    snprintf(path_buffer[slot], sizeof path_buffer[slot], "%s/%s", folder, name);
    return path_buffer[slot];
}

/* In memory if that can be had: a disk's slow fsync, hundreds of times, adds nothing to these tests. */
static void make_folder(void) {
    bool memory = access("/dev/shm", W_OK) == 0;
    snprintf(folder, sizeof folder, "%s/tw_checkpoint_XXXXXX", memory ? "/dev/shm" : "/tmp");
    ck_assert_ptr_nonnull(mkdtemp(folder));
}

static int count_files(void) {
    DIR *d = opendir(folder);
    ck_assert_ptr_nonnull(d);
    int n = 0;
    for (struct dirent *e; (e = readdir(d));)
        n += strcmp(e->d_name, ".") != 0 && strcmp(e->d_name, "..") != 0;
    closedir(d);
    return n;
}

static void remove_folder(void) {
    DIR *d = opendir(folder);
    ck_assert_ptr_nonnull(d);
    for (struct dirent *e; (e = readdir(d));)
        if (strcmp(e->d_name, ".") != 0 && strcmp(e->d_name, "..") != 0) unlink(in_folder(3, e->d_name));
    closedir(d);
    ck_assert_int_eq(rmdir(folder), 0);
}

static unsigned char *load(const char *path, size_t *size) {
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

static void store(const char *path, const unsigned char *bytes, size_t size) {
    FILE *f = fopen(path, "wb");
    ck_assert_ptr_nonnull(f);
    ck_assert_uint_eq(fwrite(bytes, 1, size, f), size);
    ck_assert_int_eq(fclose(f), 0);
}

static float bits(uint32_t u) {
    float x;
    memcpy(&x, &u, sizeof x);
    return x;
}

/* ---- a small model with everything that is odd ---- */

enum { TENSORS = 5, BIG = 700 * 1031 };
static float scalar[1], vector[7], matrix[3 * 5], conv[2 * 3 * 1 * 5], *big, *big_m, *big_v;

static void fill_tensors(tw_checkpoint_tensor t[TENSORS]) {
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

static tw_checkpoint_meta a_meta(void) {
    static char vocab[] = "[PAD]\n[UNK]\n\0\xe4\xb8\xad\n\0";
    tw_checkpoint_meta m;
    tw_checkpoint_meta_init(&m);
    static char model[] = "name: tiny\nembed_dim: 64\n", config[] = "", cpu[] = "avx512";
    m.model_yaml = model, m.config_yaml = config, m.cpu = cpu;
    m.vocab = vocab, m.vocab_bytes = sizeof vocab - 1;
    m.context_length = 52, m.step = 123456789012, m.epoch = 3, m.position = 77, m.adam_steps = 123;
    m.seed = UINT64_MAX - 1, m.skipped = 1, m.skipped_total = 2, m.best_r1 = 71.4, m.best_step = 99;
    m.threads = 2, m.ranks = 1, m.micro_batch = 16;
    return m;
}

static void check_meta(const tw_checkpoint_meta *m) {
    tw_checkpoint_meta w = a_meta();
    ck_assert_str_eq(m->model_yaml, w.model_yaml);
    ck_assert_str_eq(m->config_yaml, "");
    ck_assert_str_eq(m->cpu, w.cpu);
    ck_assert_ptr_null(m->extra);
    ck_assert_ptr_null(m->build);
    ck_assert_uint_eq(m->vocab_bytes, w.vocab_bytes);
    ck_assert_mem_eq(m->vocab, w.vocab, w.vocab_bytes);
    ck_assert(m->context_length == 52 && m->step == w.step && m->epoch == 3 && m->position == 77);
    ck_assert(m->adam_steps == 123 && m->seed == w.seed && m->skipped == 1 && m->skipped_total == 2);
    ck_assert(m->best_r1 == 71.4 && m->best_step == 99 && m->threads == 2 && m->ranks == 1);
    ck_assert_int_eq(m->micro_batch, 16);
}

static void check_part(tw_checkpoint *c, const tw_checkpoint_tensor *t, tw_checkpoint_part part) {
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

START_TEST(round_trip_is_bit_exact) {
    make_folder();
    tw_checkpoint_tensor t[TENSORS];
    fill_tensors(t);
    tw_checkpoint_meta meta = a_meta();
    TW_ASSERT_OK(tw_checkpoint_write(in_folder(0, "a.h5"), &meta, t, TENSORS));
    ck_assert_int_eq(count_files(), 1);
    tw_checkpoint *c;
    TW_ASSERT_OK(tw_checkpoint_open(in_folder(0, "a.h5"), &c));
    check_meta(tw_checkpoint_get_meta(c));
    ck_assert_int_eq(tw_checkpoint_count(c), TENSORS);
    for (int i = 0; i < TENSORS; i++) {
        const tw_checkpoint_entry *e = tw_checkpoint_at(c, i);
        ck_assert_str_eq(e->name, t[i].name);
        ck_assert_int_eq(e->ndim, t[i].ndim);
        TW_ASSERT_OK(tw_checkpoint_expect(c, t[i].name, t[i].ndim, t[i].shape));
        for (int part = 0; part < 3; part++) check_part(c, &t[i], (tw_checkpoint_part)part);
    }
    tw_checkpoint_close(c);
    remove_folder();
}
END_TEST

/* XXH64's published test values (xxhsum's sanity check: bytes of a generator, and the empty input). */
START_TEST(hash_has_the_published_values) {
    unsigned char sanity[222];
    uint64_t generator = 2654435761u; /* PRIME32 */
    for (size_t i = 0; i < sizeof sanity; i++) {
        sanity[i] = (unsigned char)(generator >> 56);
        generator *= 11400714785074694797u; /* PRIME64 */
    }
    ck_assert_uint_eq(tw_xxh64(NULL, 0, 0), 0xEF46DB3751D8E999u);
    ck_assert_uint_eq(tw_xxh64(NULL, 0, 2654435761u), 0xAC75FDA2929B17EFu);
    ck_assert_uint_eq(tw_xxh64("abc", 3, 0), 0x44BC2CF5AD770999u);
    ck_assert_uint_eq(tw_xxh64(sanity, 1, 0), 0xE934A84ADB052768u);
    ck_assert_uint_eq(tw_xxh64(sanity, 14, 0), 0x8282DCC4994E35C8u);
    ck_assert_uint_eq(tw_xxh64(sanity, 222, 0), 0xB641AE8CB691C174u);
    ck_assert_uint_eq(tw_xxh64(sanity, 222, 2654435761u), 0x20CB8AB7AE10C14Au);
}
END_TEST

/* The definition, one word at a time, as HDF5 computes it. */
static uint32_t plain_fletcher32(const unsigned char *p, size_t size) {
    uint32_t sum1 = 0, sum2 = 0;
    for (size_t i = 0; i + 1 < size; i += 2) {
        sum1 += (uint32_t)p[i] << 8 | p[i + 1];
        sum1 = (sum1 & 0xffff) + (sum1 >> 16);
        sum2 += sum1;
        sum2 = (sum2 & 0xffff) + (sum2 >> 16);
    }
    return sum2 << 16 | sum1;
}

START_TEST(fletcher32_is_that_of_hdf5) {
    static unsigned char bytes[5000];
    for (int fill = 0; fill < 4;
         fill++) { /* zeros, ones in every bit (0 modulo 65535), noise, mostly zeros */
        for (size_t i = 0; i < sizeof bytes; i++) {
            unsigned char noise = (unsigned char)((i * 2654435761u) >> 13);
            bytes[i] = fill == 0 ? 0 : fill == 1 ? 0xff : fill == 2 ? noise : i % 97 == 5 ? noise : 0;
        }
        for (size_t size = 0; size <= sizeof bytes; size += 2)
            ck_assert_uint_eq(tw_fletcher32(bytes, size), plain_fletcher32(bytes, size));
    }
}
END_TEST

START_TEST(same_content_same_bytes) {
    make_folder();
    tw_checkpoint_tensor t[TENSORS];
    fill_tensors(t);
    tw_checkpoint_meta meta = a_meta();
    TW_ASSERT_OK(tw_checkpoint_write(in_folder(0, "a.h5"), &meta, t, TENSORS));
    TW_ASSERT_OK(tw_checkpoint_write(in_folder(1, "b.h5"), &meta, t, TENSORS));
    size_t na, nb;
    unsigned char *a = load(in_folder(0, "a.h5"), &na), *b = load(in_folder(1, "b.h5"), &nb);
    ck_assert_uint_eq(na, nb);
    ck_assert_int_eq(memcmp(a, b, na), 0);
    free(a);
    free(b);
    remove_folder();
}
END_TEST

/* Writes a checkpoint of a few kilobytes and returns its bytes. */
static unsigned char *small_checkpoint(const char *path, size_t *size) {
    tw_checkpoint_tensor t[TENSORS];
    fill_tensors(t);
    tw_checkpoint_meta meta = a_meta();
    TW_ASSERT_OK(tw_checkpoint_write(path, &meta, t, TENSORS - 1));
    return load(path, size);
}

/* Opens and reads all of it; the first error, or TW_OK when every value is what was written. */
static tw_status read_all(const char *path) {
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

START_TEST(a_flipped_bit_in_any_byte_is_refused) {
    make_folder();
    const char *path = in_folder(0, "a.h5");
    size_t size;
    unsigned char *bytes = small_checkpoint(path, &size);
    int refused = 0, fd = open(path, O_WRONLY);
    for (size_t i = 0; i < size; i++) {
        unsigned char flipped = bytes[i] ^ (unsigned char)(1u << (i % 8));
        ck_assert_int_eq(pwrite(fd, &flipped, 1, (off_t)i), 1);
        tw_status status = read_all(path);
        ck_assert_int_eq(pwrite(fd, &bytes[i], 1, (off_t)i), 1);
        if (status == TW_OK) continue;
        ck_assert_int_eq(status, TW_ERR_FORMAT);
        ck_assert_ptr_nonnull(strstr(tw_last_error(), path));
        refused++;
    }
    ck_assert_int_eq(refused, (int)size);
    close(fd);
    TW_ASSERT_OK(read_all(path));
    free(bytes);
    remove_folder();
}
END_TEST

START_TEST(any_truncation_is_refused) {
    make_folder();
    const char *path = in_folder(0, "a.h5");
    size_t size;
    unsigned char *bytes = small_checkpoint(path, &size);
    for (size_t n = size; n-- > 0;) {
        ck_assert_int_eq(truncate(path, (off_t)n), 0);
        TW_ASSERT_FAILS(read_all(path), TW_ERR_FORMAT, n == 0 ? "is empty" : n < 8 ? "not a" : "truncated");
    }
    store(path, bytes, size + 1); /* load() gives one byte more */
    TW_ASSERT_FAILS(read_all(path), TW_ERR_FORMAT, "damaged");
    free(bytes);
    remove_folder();
}
END_TEST

/* What the seal cannot see, damage before it was made, fletcher32 finds in the data sets. */
START_TEST(fletcher32_guards_the_values) {
    make_folder();
    const char *path = in_folder(0, "a.h5");
    size_t size;
    unsigned char *bytes = small_checkpoint(path, &size), *at = NULL;
    for (size_t i = 512; i + sizeof matrix <= size && !at; i++)
        if (memcmp(bytes + i, matrix, sizeof matrix) == 0) at = bytes + i;
    ck_assert_ptr_nonnull(at);
    at[17] ^= 4;
    store(path, bytes, size);
    TW_ASSERT_OK(tw_seal_write(path, "checkpoint", 0));
    tw_checkpoint *c;
    float values[15];
    TW_ASSERT_OK(tw_checkpoint_open(path, &c));
    TW_ASSERT_FAILS(tw_checkpoint_read(c, "bert.matrix", TW_CHECKPOINT_PARAM, values, 15), TW_ERR_FORMAT,
                    "params/bert.matrix does not match its checksum");
    TW_ASSERT_OK(tw_checkpoint_read(c, "bert.matrix", TW_CHECKPOINT_M, values, 15));
    tw_checkpoint_close(c);
    free(bytes);
    remove_folder();
}
END_TEST

/* A reader may prepare memory for the parameters, the moments not counted, before anything is checked. */
START_TEST(the_seal_tells_what_memory_to_want) {
    make_folder();
    size_t size;
    const char *path = in_folder(0, "a.h5");
    unsigned char *bytes = small_checkpoint(path, &size);
    ck_assert_uint_eq(tw_seal_memory(path), 1 << 20);
    uint64_t digest = tw_seal_digest(path);
    ck_assert_uint_ne(digest, 0);
    bytes[12] ^= 1; /* not as it was sealed: nothing is told */
    store(path, bytes, size);
    ck_assert_uint_eq(tw_seal_memory(path), 0);
    ck_assert_uint_eq(tw_seal_digest(path), 0);
    ck_assert_uint_eq(tw_seal_memory(in_folder(1, "none.h5")), 0);
    ck_assert_uint_eq(tw_seal_digest(in_folder(1, "none.h5")), 0);
    bytes[12] ^= 1; /* one value is another: so is the digest of its seal */
    bytes[size - 1] ^= 1;
    store(path, bytes, size);
    TW_ASSERT_OK(tw_seal_write(path, "checkpoint", 1));
    ck_assert_uint_ne(tw_seal_digest(path), digest);
    free(bytes);
    remove_folder();
}
END_TEST

START_TEST(names_what_does_not_fit) {
    make_folder();
    size_t size;
    const char *path = in_folder(0, "a.h5");
    free(small_checkpoint(path, &size));
    tw_checkpoint *c;
    float values[16];
    const int64_t other[] = {5, 3};
    TW_ASSERT_OK(tw_checkpoint_open(path, &c));
    ck_assert_ptr_null(tw_checkpoint_find(c, "visual.proj"));
    TW_ASSERT_FAILS(tw_checkpoint_read(c, "visual.proj", TW_CHECKPOINT_PARAM, values, 1), TW_ERR_NOT_FOUND,
                    "visual.proj");
    TW_ASSERT_FAILS(tw_checkpoint_read(c, "bert.matrix", TW_CHECKPOINT_PARAM, values, 16), TW_ERR_SHAPE,
                    "15 values, 16");
    TW_ASSERT_FAILS(tw_checkpoint_read(c, "visual.odd", TW_CHECKPOINT_V, values, 7), TW_ERR_NOT_FOUND,
                    "second moment");
    TW_ASSERT_FAILS(tw_checkpoint_expect(c, "bert.matrix", 2, other), TW_ERR_SHAPE,
                    "(3,5), the model wants (5,3)");
    TW_ASSERT_FAILS(tw_checkpoint_expect(c, "logit_scale", 1, other), TW_ERR_SHAPE, "()");
    TW_ASSERT_FAILS(tw_checkpoint_expect(c, "none", 0, NULL), TW_ERR_NOT_FOUND, "none");
    tw_checkpoint_close(c);
    remove_folder();
}
END_TEST

START_TEST(refuses_impossible_tensors) {
    make_folder();
    tw_checkpoint_meta meta = a_meta();
    float one[2] = {1, 2};
    const struct {
        tw_checkpoint_tensor tensors[2];
        const char *part;
    } cases[] = {
        {{{"a", 1, {2}, one, 0, 0}, {"a", 1, {2}, one, 0, 0}}, "write params/a"},
        {{{"", 1, {2}, one, 0, 0}, {"b", 1, {2}, one, 0, 0}}, "cannot be called ''"},
        {{{"a/b", 1, {2}, one, 0, 0}, {"b", 1, {2}, one, 0, 0}}, "cannot be called 'a/b'"},
        {{{"a", 1, {2}, NULL, 0, 0}, {"b", 1, {2}, one, 0, 0}}, "a has no values"},
        {{{"a", 1, {0}, one, 0, 0}, {"b", 1, {2}, one, 0, 0}}, "is 0"},
        {{{"a", 5, {2}, one, 0, 0}, {"b", 1, {2}, one, 0, 0}}, "5 dimensions"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        tw_status status = tw_checkpoint_write(in_folder(0, "a.h5"), &meta, cases[i].tensors, 2);
        ck_assert_int_ne(status, TW_OK);
        ck_assert_msg(strstr(tw_last_error(), cases[i].part) != NULL, "%s", tw_last_error());
        ck_assert_int_eq(count_files(), 0);
    }
    remove_folder();
}
END_TEST

START_TEST(refuses_other_files) {
    make_folder();
    const char *path = in_folder(0, "a.h5");
    tw_checkpoint *c;
    tw_h5 *f;
    TW_ASSERT_FAILS(tw_checkpoint_open(path, &c), TW_ERR_IO, "No such file");
    TW_ASSERT_FAILS(tw_checkpoint_open(folder, &c), TW_ERR_IO, "latest");
    store(path, (const unsigned char *)"PK\3\4 and so on", 14);
    TW_ASSERT_FAILS(tw_checkpoint_open(path, &c), TW_ERR_FORMAT, "zip");
    /* Written by h5py 3 with default settings: one data set "x" of 4 floats. */
    TW_ASSERT_FAILS(tw_checkpoint_open(TW_SOURCE_DIR "/tests/golden/h5py_plain.h5", &c), TW_ERR_FORMAT,
                    "not a tuwen checkpoint: it is an HDF5 file of another program");
    TW_ASSERT_OK(tw_h5_create(path, "features", 1, &f));
    TW_ASSERT_OK(tw_h5_commit(f));
    TW_ASSERT_FAILS(tw_checkpoint_open(path, &c), TW_ERR_FORMAT, "it is a tuwen features file");
    TW_ASSERT_OK(tw_h5_create(path, "checkpoint", TW_CHECKPOINT_VERSION + 1, &f));
    TW_ASSERT_OK(tw_h5_commit(f));
    TW_ASSERT_FAILS(tw_checkpoint_open(path, &c), TW_ERR_UNSUPPORTED, "newer tuwen");
    TW_ASSERT_OK(tw_h5_create(path, "checkpoint", TW_CHECKPOINT_VERSION, &f));
    TW_ASSERT_OK(tw_h5_commit(f));
    TW_ASSERT_FAILS(tw_checkpoint_open(path, &c), TW_ERR_FORMAT, "lacks the attribute context_length");
    /* A seal of a later layout: version 2 with a right checksum. */
    size_t size;
    unsigned char *bytes = load(path, &size);
    bytes[8] = 2;
    uint64_t check = tw_xxh64(bytes, 504, 0);
    memcpy(bytes + 504, &check, sizeof check);
    store(path, bytes, size);
    TW_ASSERT_FAILS(tw_checkpoint_open(path, &c), TW_ERR_UNSUPPORTED, "newer tuwen");
    free(bytes);
    remove_folder();
}
END_TEST

/* ---- no space, no permission ---- */

/* After a failed write: an old checkpoint is intact, no temporary is left, and writing still works elsewhere.
 */
static void check_survival(const char *path) {
    TW_ASSERT_OK(read_all(path));
    ck_assert_int_eq(count_files(), 1);
}

/* A file system of 4 MB, full after the first megabytes of a 9 MB checkpoint. */
START_TEST(a_full_disk_leaves_the_previous_checkpoint) {
    make_folder();
    if (mount("none", folder, "tmpfs", 0, "size=4m") != 0) {
        rmdir(folder);
        TW_SKIP("mounting a small file system needs root");
    }
    tw_checkpoint_tensor t[TENSORS];
    tw_checkpoint_meta meta = a_meta();
    const char *path = in_folder(0, "a.h5");
    size_t size;
    fill_tensors(t);
    free(small_checkpoint(path, &size));
    for (int i = 0; i < 3; i++) { /* the space of a failed write comes back */
        TW_ASSERT_FAILS(tw_checkpoint_write(path, &meta, t, TENSORS), TW_ERR_IO, "No space left on device");
        check_survival(path);
    }
    /* Every other amount of space, so that each stage of writing is hit. */
    for (size_t left = 0; left < size + 65536; left += 4096) {
        char *filler = strdup(in_folder(1, "filler"));
        int fd = open(filler, O_CREAT | O_WRONLY | O_TRUNC, 0600);
        ck_assert_int_eq(posix_fallocate(fd, 0, (off_t)((4 << 20) - 4096 * ((size + 4095) / 4096) - left)),
                         0);
        close(fd);
        tw_status status = tw_checkpoint_write(path, &meta, t, TENSORS - 1);
        unlink(filler);
        free(filler);
        if (status != TW_OK)
            ck_assert_msg(strstr(tw_last_error(), "No space left on device") != NULL, "%s", tw_last_error());
        ck_assert_int_eq(status, left < size ? TW_ERR_IO : status);
        check_survival(path);
    }
    TW_ASSERT_OK(tw_checkpoint_write(path, &meta, t, TENSORS - 1));
    check_survival(path);
    ck_assert_int_eq(unlink(path), 0);
    ck_assert_int_eq(umount(folder), 0);
    rmdir(folder);
}
END_TEST

START_TEST(a_file_size_limit_leaves_the_previous_checkpoint) {
    make_folder();
    tw_checkpoint_tensor t[TENSORS];
    tw_checkpoint_meta meta = a_meta();
    const char *path = in_folder(0, "a.h5");
    size_t size;
    fill_tensors(t);
    free(small_checkpoint(path, &size));
    signal(SIGXFSZ, SIG_IGN);
    for (size_t limit = 512; limit < size; limit += 1000) {
        struct rlimit small = {limit, RLIM_INFINITY}, none = {RLIM_INFINITY, RLIM_INFINITY};
        ck_assert_int_eq(setrlimit(RLIMIT_FSIZE, &small), 0);
        tw_status status = tw_checkpoint_write(path, &meta, t, TENSORS - 1);
        ck_assert_int_eq(setrlimit(RLIMIT_FSIZE, &none), 0);
        ck_assert_msg(status == TW_ERR_IO, "%s", tw_last_error());
        ck_assert_msg(strstr(tw_last_error(), "File too large") != NULL, "%s", tw_last_error());
        check_survival(path);
    }
    TW_ASSERT_OK(tw_checkpoint_write(path, &meta, t, TENSORS));
    remove_folder();
}
END_TEST

START_TEST(an_unwritable_folder_is_named) {
    make_folder();
    tw_checkpoint_meta meta = a_meta();
    char *missing = strdup(in_folder(0, "none/a.h5"));
    TW_ASSERT_FAILS(tw_checkpoint_write(missing, &meta, NULL, 0), TW_ERR_IO, "none/a.h5: No such file");
    free(missing);
    ck_assert_int_eq(chmod(folder, 0555), 0);
    if (geteuid() == 0) ck_assert_int_eq(seteuid(65534), 0);
    TW_ASSERT_FAILS(tw_checkpoint_write(in_folder(0, "a.h5"), &meta, NULL, 0), TW_ERR_IO,
                    "Permission denied");
    if (getuid() == 0) ck_assert_int_eq(seteuid(0), 0);
    remove_folder();
}
END_TEST

/* ---- SIGKILL ---- */

/* A version's values and step are its number. */
static tw_status write_version(const char *path, int version) {
    static float values[200000];
    const tw_checkpoint_tensor t = {"w", 1, {200000}, values, values, NULL};
    tw_checkpoint_meta meta;
    tw_checkpoint_meta_init(&meta);
    meta.step = version;
    for (int i = 0; i < 200000; i++) values[i] = (float)version;
    return tw_checkpoint_write(path, &meta, &t, 1);
}

/* A child writes versions 1, 2, 3, ... over one name until it is killed. */
static void write_forever(const char *path) {
    for (int version = 1;; version++)
        if (write_version(path, version) != TW_OK) _exit(1);
}

START_TEST(a_kill_leaves_a_complete_version) {
    make_folder();
    const char *path = in_folder(0, "a.h5");
    static float values[200000];
    const useconds_t random_microseconds[] = {20011, 50021, 33037, 71039, 25057, 61051, 44071, 90073,
                                              38083, 55091, 21101, 67103, 49109, 83117, 30127, 58129,
                                              72139, 41141, 26153, 64157, 52163, 47171, 35179, 88181};
    enum { BEFORE = 1000000 };
    TW_ASSERT_OK(write_version(path, BEFORE)); /* so that every kill has something to lose */
    enum { ROUNDS = sizeof random_microseconds / sizeof random_microseconds[0], LONGER = 10 };
    int replaced = 0;
    /* Where a disk takes longer than that for one version, further rounds last twice as long each. */
    for (int i = 0; i < ROUNDS || (replaced == 0 && i < ROUNDS + LONGER); i++) {
        pid_t child = fork();
        if (child == 0) write_forever(path);
        useconds_t nap = random_microseconds[i % ROUNDS];
        usleep(i < ROUNDS ? nap : nap << (i - ROUNDS + 1));
        kill(child, SIGKILL);
        int how;
        waitpid(child, &how, 0);
        ck_assert_msg(WIFSIGNALED(how), "the writer ended by itself");
        tw_checkpoint *c;
        TW_ASSERT_OK(tw_checkpoint_open(path, &c));
        float version = (float)tw_checkpoint_get_meta(c)->step;
        replaced += version < BEFORE;
        ck_assert(version >= 1);
        for (int part = 0; part < 2; part++) {
            TW_ASSERT_OK(tw_checkpoint_read(c, "w", (tw_checkpoint_part)part, values, 200000));
            int wrong = 0;
            for (int k = 0; k < 200000; k++) wrong += values[k] != version;
            ck_assert_int_eq(wrong, 0);
        }
        tw_checkpoint_close(c);
    }
    ck_assert_msg(replaced > 0, "no child lived long enough to write one version");
    remove_folder();
}
END_TEST

TW_TEST_MAIN("checkpoint", round_trip_is_bit_exact, hash_has_the_published_values, fletcher32_is_that_of_hdf5,
             same_content_same_bytes, a_flipped_bit_in_any_byte_is_refused, any_truncation_is_refused,
             fletcher32_guards_the_values, the_seal_tells_what_memory_to_want, names_what_does_not_fit,
             refuses_impossible_tensors, refuses_other_files, a_full_disk_leaves_the_previous_checkpoint,
             a_file_size_limit_leaves_the_previous_checkpoint, an_unwritable_folder_is_named,
             a_kill_leaves_a_complete_version)
