/* What the fuzz targets share. A target is one file, fuzz_<name>.c, with LLVMFuzzerTestOneInput; its seeds
 * lie in seeds/<name>/. The preset `fuzz` links it with libFuzzer, every other build with driver.c. */
#ifndef TW_TESTS_FUZZ_H
#define TW_TESTS_FUZZ_H

#include "autograd/status.h"

#include <stddef.h>
#include <stdint.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* A path that reads as a file of these bytes, in memory and the same at every call; until the next call. */
const char *fuzz_file(const uint8_t *data, size_t size);
/* A folder of this process, removed at its end. */
const char *fuzz_folder(void);
/* Makes folder/name a link to `target`; the path is valid to the end. */
const char *fuzz_link(const char *name, const char *target);
/* folder/name holds these bytes. */
void fuzz_put(const char *name, const void *data, size_t size);

/* What a target asserts beyond "no crash": ends the process with the sentence if `good` is false. */
void fuzz_must(int good, const char *what);
/* For calls whose failure is fine: a refused file. */
static inline int fuzz_ok(tw_status status) {
    return status == TW_OK;
}

#endif
