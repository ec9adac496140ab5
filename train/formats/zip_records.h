/* The fixed parts of a zip archive's records (APPNOTE.TXT 4.3), for reader and writer. All numbers are
 * little-endian. */
#ifndef TW_TRAIN_FORMATS_ZIP_RECORDS_H
#define TW_TRAIN_FORMATS_ZIP_RECORDS_H

#include <stdint.h>

enum {
    TW_ZIP_LOCAL = 0x04034b50,     /* before each entry's bytes */
    TW_ZIP_CENTRAL = 0x02014b50,   /* one an entry, in the directory */
    TW_ZIP_END = 0x06054b50,       /* after the directory */
    TW_ZIP_END64 = 0x06064b50,     /* before END where 16 or 32 bits do not suffice */
    TW_ZIP_LOCATOR64 = 0x07064b50, /* between END64 and END: where END64 is */
    TW_ZIP_LOCAL_BYTES = 30,
    TW_ZIP_CENTRAL_BYTES = 46,
    TW_ZIP_END_BYTES = 22,
    TW_ZIP_END64_BYTES = 56,
    TW_ZIP_LOCATOR64_BYTES = 20,
    TW_ZIP_EXTRA64 = 0x0001,      /* extra field: sizes and offset of 64 bits */
    TW_ZIP_EXTRA_PADDING = 0x4246 /* extra field of torch.save: aligns the bytes that follow */
};

static inline uint32_t tw_zip_u16(const unsigned char *p) {
    return (uint32_t)p[0] | (uint32_t)p[1] << 8;
}
static inline uint32_t tw_zip_u32(const unsigned char *p) {
    return tw_zip_u16(p) | tw_zip_u16(p + 2) << 16;
}
static inline uint64_t tw_zip_u64(const unsigned char *p) {
    return (uint64_t)tw_zip_u32(p) | (uint64_t)tw_zip_u32(p + 4) << 32;
}

#endif
