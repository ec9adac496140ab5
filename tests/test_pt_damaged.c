/* Damaged and lying zip archives as .pt files. The legacy form: test_pt_legacy.c. */
#include "pt_bytes.h"
#include "train/formats/zip_records.h"

static void load_file(const char *path) {
    FILE *f = fopen(path, "rb");
    ck_assert_ptr_nonnull(f);
    file = calloc(1, 1 << 16);
    size = fread(file, 1, 1 << 16, f);
    ck_assert_uint_lt(size, 1 << 15);
    fclose(f);
}

static void plain_archive(void) {
    load_file(pt_archive(PLAIN, sizeof PLAIN - 1));
}

/* The directory's record of entry number i of the plain archive (data.pkl, byteorder, data/0, version), the
 * header before its bytes, and the record at the end. */
static unsigned char *end_record(void) {
    return file + size - TW_ZIP_END_BYTES;
}
static unsigned char *central(int i) {
    unsigned char *r = file + tw_zip_u32(end_record() + 16);
    for (; i > 0; i--) r += TW_ZIP_CENTRAL_BYTES + tw_zip_u16(r + 28) + tw_zip_u16(r + 30);
    ck_assert_uint_eq(tw_zip_u32(r), TW_ZIP_CENTRAL);
    return r;
}
static unsigned char *local(int i) {
    return file + tw_zip_u32(central(i) + 42);
}
static unsigned char *bytes_of(int i) {
    unsigned char *r = local(i);
    return r + TW_ZIP_LOCAL_BYTES + tw_zip_u16(r + 26) + tw_zip_u16(r + 28);
}
static void put(unsigned char *at, uint64_t value, int bytes) {
    for (int i = 0; i < bytes; i++, value >>= 8) at[i] = (unsigned char)value;
}
static void insert(unsigned char *at, const void *bytes, size_t n) {
    memmove(at + n, at, size - (size_t)(at - file));
    memcpy(at, bytes, n);
    size += n;
}

START_TEST(refuses_wrong_crc) {
    plain_archive();
    bytes_of(2)[5] ^= 1;
    refuse(TW_ERR_FORMAT, "tensor 'w': ");
    plain_archive();
    bytes_of(2)[5] ^= 1;
    refuse(TW_ERR_FORMAT, "entry 'a/data/0' is damaged: its CRC-32 is");
    plain_archive();
    bytes_of(0)[9] ^= 1;
    refuse(TW_ERR_FORMAT, "entry 'a/data.pkl' is damaged");
    plain_archive();
    put(central(2) + 16, 0x12345678, 4);
    put(local(2) + 14, 0x12345678, 4);
    refuse(TW_ERR_FORMAT, "recorded is 12345678");
}
END_TEST

static void rename_entry(int i, const char *name) {
    size_t n = tw_zip_u16(central(i) + 28);
    ck_assert_uint_eq(strlen(name), n);
    memcpy(central(i) + TW_ZIP_CENTRAL_BYTES, name, n);
    memcpy(local(i) + TW_ZIP_LOCAL_BYTES, name, n);
}

START_TEST(refuses_bad_names) {
    static const char *const bad[] = {"../ata/0", "/etc/pwd", "a/../t/0", "a\\data\\0",
                                      "C:data/0", "a/data/.", "a/dat/.."};
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        plain_archive();
        rename_entry(2, bad[i]);
        refuse(TW_ERR_FORMAT, "is refused: it leads out of the archive");
    }
    plain_archive();
    central(2)[TW_ZIP_CENTRAL_BYTES + 2] = 0;
    refuse(TW_ERR_FORMAT, "leads out of the archive");
}
END_TEST

START_TEST(refuses_two_of_a_name) {
    tw_zip_writer *zip;
    fclose(fopen(pt_path(), "w"));
    TW_ASSERT_OK(tw_zip_writer_open(pt_path(), pt_path(), &zip));
    TW_ASSERT_OK(tw_zip_writer_add(zip, "a/data.pkl", PLAIN, sizeof PLAIN - 1));
    TW_ASSERT_OK(tw_zip_writer_add(zip, "a/data.pkl", "N.", 2));
    TW_ASSERT_OK(tw_zip_writer_finish(zip));
    tw_zip_writer_free(zip);
    load_file(pt_path());
    refuse(TW_ERR_FORMAT, "two entries named 'a/data.pkl'");
    TW_ASSERT_OK((fclose(fopen(pt_path(), "w")), tw_zip_writer_open(pt_path(), pt_path(), &zip)));
    TW_ASSERT_OK(tw_zip_writer_add(zip, "a/data.pkl", PLAIN, sizeof PLAIN - 1));
    TW_ASSERT_OK(tw_zip_writer_add(zip, "b/data.pkl", "N.", 2));
    TW_ASSERT_OK(tw_zip_writer_finish(zip));
    tw_zip_writer_free(zip);
    load_file(pt_path());
    refuse(TW_ERR_FORMAT, "two entries could be its data.pkl");
}
END_TEST

START_TEST(refuses_sizes_beyond_the_file) {
    plain_archive();
    put(central(2) + 20, 0x7fffffff, 4);
    put(central(2) + 24, 0x7fffffff, 4);
    refuse(TW_ERR_FORMAT, "'a/data/0' of 2147483647 bytes reaches beyond");
    plain_archive();
    put(central(2) + 42, 0x7fffffff, 4);
    refuse(TW_ERR_FORMAT, "'a/data/0' of 16 bytes reaches beyond");
    plain_archive();
    put(central(0) + 20, 4096, 4);
    put(central(0) + 24, 4096, 4);
    refuse(TW_ERR_FORMAT, "reaches beyond the file");
    plain_archive(); /* 64-bit sizes near 2^64, whose sums overflow */
    unsigned char extra[20] = {1, 0, 16, 0};
    put(extra + 4, UINT64_MAX - 8, 8);
    put(extra + 12, UINT64_MAX - 8, 8);
    unsigned char *r = central(2);
    put(r + 20, UINT32_MAX, 4);
    put(r + 24, UINT32_MAX, 4);
    put(r + 30, sizeof extra, 2);
    insert(r + TW_ZIP_CENTRAL_BYTES + tw_zip_u16(r + 28), extra, sizeof extra);
    put(end_record() + 12, tw_zip_u32(end_record() + 12) + sizeof extra, 4);
    refuse(TW_ERR_FORMAT, "reaches beyond the file");
    plain_archive();
    put(central(2) + 24, UINT32_MAX, 4);
    refuse(TW_ERR_FORMAT, "lacks a 64-bit size");
    plain_archive();
    put(central(2) + 24, 17, 4);
    refuse(TW_ERR_FORMAT, "is stored, yet has two sizes");
}
END_TEST

START_TEST(refuses_overlaps) {
    plain_archive(); /* one that swallows the next */
    put(central(0) + 20, tw_zip_u32(central(1) + 42), 4);
    put(central(0) + 24, tw_zip_u32(central(1) + 42), 4);
    refuse(TW_ERR_FORMAT, "'a/data.pkl' overlaps the next one");
    plain_archive(); /* two at one place */
    put(central(1) + 42, tw_zip_u32(central(2) + 42), 4);
    refuse(TW_ERR_FORMAT, "overlaps the next one");
    plain_archive(); /* the padding before its bytes is longer than the directory knows */
    put(local(2) + 28, 60000, 2);
    refuse(TW_ERR_FORMAT, "'a/data/0' reaches into what follows");
}
END_TEST

START_TEST(refuses_contradictions) {
    plain_archive();
    local(2)[TW_ZIP_LOCAL_BYTES] ^= 1;
    refuse(TW_ERR_FORMAT, "header of entry 'a/data/0' contradicts");
    plain_archive();
    put(local(2) + 22, 17, 4);
    refuse(TW_ERR_FORMAT, "contradicts");
    plain_archive();
    put(local(2) + 8, 8, 2);
    refuse(TW_ERR_FORMAT, "contradicts");
    plain_archive();
    put(local(2), 0x12345678, 4);
    refuse(TW_ERR_FORMAT, "does not begin where the directory says");
}
END_TEST

START_TEST(refuses_what_it_does_not_read) {
    limit_memory(4096);
    plain_archive();
    put(central(0) + 8, 1, 2);
    refuse(TW_ERR_UNSUPPORTED, "'a/data.pkl' is encrypted");
    plain_archive(); /* a bomb: few packed bytes, 4 GB unpacked */
    put(central(0) + 10, 8, 2);
    put(central(0) + 24, 0xfffffff0, 4);
    refuse(TW_ERR_UNSUPPORTED, "'a/data.pkl' is compressed (method 8)");
    plain_archive();
    put(end_record() + 4, 1, 2);
    refuse(TW_ERR_UNSUPPORTED, "several parts");
}
END_TEST

static void archive_with_order(const char *order) {
    tw_zip_writer *zip;
    fclose(fopen(pt_path(), "w"));
    TW_ASSERT_OK(tw_zip_writer_open(pt_path(), pt_path(), &zip));
    TW_ASSERT_OK(tw_zip_writer_add(zip, "a/data.pkl", PLAIN, sizeof PLAIN - 1));
    TW_ASSERT_OK(tw_zip_writer_add(zip, "a/byteorder", order, strlen(order)));
    TW_ASSERT_OK(tw_zip_writer_finish(zip));
    tw_zip_writer_free(zip);
    load_file(pt_path());
}

START_TEST(refuses_byte_orders) {
    archive_with_order("big");
    refuse(TW_ERR_UNSUPPORTED, "big-endian");
    archive_with_order("middle");
    refuse(TW_ERR_FORMAT, "byte order is unknown");
    archive_with_order("little little");
    refuse(TW_ERR_FORMAT, "byte order is unknown");
}
END_TEST

/* Puts the 64-bit records before END. */
static unsigned char *add_end64(void) {
    unsigned char both[TW_ZIP_END64_BYTES + TW_ZIP_LOCATOR64_BYTES] = {0};
    uint64_t at = (uint64_t)(end_record() - file);
    put(both, TW_ZIP_END64, 4);
    put(both + 4, TW_ZIP_END64_BYTES - 12, 8);
    put(both + 24, 4, 8);
    put(both + 32, 4, 8);
    put(both + 40, tw_zip_u32(end_record() + 12), 8);
    put(both + 48, tw_zip_u32(end_record() + 16), 8);
    put(both + 56, TW_ZIP_LOCATOR64, 4);
    put(both + 64, at, 8);
    put(both + 72, 1, 4);
    insert(end_record(), both, sizeof both);
    return file + at;
}

START_TEST(refuses_zip64_lies) {
    float values[64];
    plain_archive();
    add_end64();
    TW_ASSERT_OK(load_bytes(file, size, values)); /* as it is, it is right */
    ck_assert(values[0] == 1 && values[3] == 4);
    free(file);
    static const struct {
        int offset, bytes;
        uint64_t value;
        const char *part;
    } lies[] = {
        {4, 8, 4096, "not where it should be"},
        {16, 4, 1, "several parts"},
        {24, 8, 3, "several parts"},
        {40, 8, 1, "contradict each other"},
        {48, 8, 1, "contradict each other"},
        {48, 8, UINT64_MAX, "contradict each other"},
        {64, 8, UINT64_MAX, "outside the file"},
        {64, 8, 0, "not where it should be"},
    };
    for (size_t i = 0; i < sizeof lies / sizeof lies[0]; i++) {
        plain_archive();
        put(add_end64() + lies[i].offset, lies[i].value, lies[i].bytes);
        refuse(i == 1 || i == 2 ? TW_ERR_UNSUPPORTED : TW_ERR_FORMAT, lies[i].part);
    }
    plain_archive(); /* END has no say, END64 claims 2^60 entries */
    unsigned char *r = add_end64();
    put(r + 24, (uint64_t)1 << 60, 8);
    put(r + 32, (uint64_t)1 << 60, 8);
    put(end_record() + 8, UINT32_MAX, 4);
    refuse(TW_ERR_FORMAT, "more entries than fit");
    plain_archive(); /* ... a directory of 2^60 bytes */
    r = add_end64();
    put(r + 40, (uint64_t)1 << 60, 8);
    put(end_record() + 12, UINT32_MAX, 4);
    refuse(TW_ERR_FORMAT, "its directory is not where");
}
END_TEST

START_TEST(refuses_bad_directories) {
    plain_archive();
    put(end_record() + 8, 5, 2);
    put(end_record() + 10, 5, 2);
    refuse(TW_ERR_FORMAT, "more entries than fit");
    plain_archive();
    put(end_record() + 8, 3, 2);
    put(end_record() + 10, 3, 2);
    refuse(TW_ERR_FORMAT, "more entries than it says");
    plain_archive();
    put(end_record() + 16, 0, 4);
    refuse(TW_ERR_FORMAT, "not where its record says");
    plain_archive();
    put(central(3) + 32, 60000, 2);
    refuse(TW_ERR_FORMAT, "directory is cut off");
    plain_archive();
    put(central(3) + 30, 1, 2);
    put(central(3) + 28, tw_zip_u16(central(3) + 28) - 1, 2);
    refuse(TW_ERR_FORMAT, "extra field reaches beyond");
    file = calloc(1, 64);
    memcpy(file, "PK\5\6", 4);
    size = TW_ZIP_END_BYTES;
    refuse(TW_ERR_FORMAT, "without data.pkl");
    file = calloc(1, 64);
    memcpy(file, "PK\3\4", 4);
    size = 30;
    refuse(TW_ERR_FORMAT, "there is no directory");
}
END_TEST

/* Whatever byte changes, and however: refused, or every value as it was. */
START_TEST(survives_every_changed_byte) {
    plain_archive();
    add_end64();
    for (size_t i = 0; i < size; i++) {
        static const unsigned char masks[] = {0x01, 0x80, 0xff, 0x20};
        for (size_t m = 0; m < sizeof masks; m++) {
            float values[64] = {0};
            file[i] ^= masks[m];
            if (load_bytes(file, size, values) == TW_OK)
                ck_assert_msg(values[0] == 1 && values[1] == 2 && values[2] == 3 && values[3] == 4,
                              "byte %zu changed by %02x changed values", i, masks[m]);
            file[i] ^= masks[m];
        }
    }
    for (size_t n = 0; n < size; n++) {
        float values[64];
        ck_assert_msg(load_bytes(file, n, values) != TW_OK, "accepted when cut to %zu bytes", n);
    }
    unlink(pt_path());
    free(file);
}
END_TEST

TW_TEST_MAIN("pt_damaged", refuses_wrong_crc, refuses_bad_names, refuses_two_of_a_name,
             refuses_sizes_beyond_the_file, refuses_overlaps, refuses_contradictions,
             refuses_what_it_does_not_read, refuses_byte_orders, refuses_zip64_lies, refuses_bad_directories,
             survives_every_changed_byte)
