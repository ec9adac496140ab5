/* Zip archives: the directory, and every entry's bytes. */
#include "fuzz.h"

#include "train/formats/zip.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    tw_zip *zip;
    if (!fuzz_ok(tw_zip_open(fuzz_file(data, size), &zip))) return 0;
    uint64_t total = 0;
    for (int64_t i = 0; i < tw_zip_count(zip); i++) {
        const char *name = tw_zip_name(zip, i);
        uint64_t bytes = tw_zip_size(zip, i);
        fuzz_must(name[0] != '/' && strncmp(name, "../", 3) != 0 && !strstr(name, "/../"),
                  "names stay inside");
        fuzz_must(tw_zip_find(zip, name) == i, "an entry is found by its name");
        char *copy = bytes <= size ? malloc(bytes + 1) : NULL;
        if (copy && fuzz_ok(tw_zip_read(zip, i, 0, bytes, copy))) {
            total += bytes;
            fuzz_must(total <= size, "stored entries do not overlap");
            if (bytes)
                fuzz_must(fuzz_ok(tw_zip_read(zip, i, bytes - 1, 1, copy)), "a checked entry is read again");
        }
        if (copy) fuzz_must(!fuzz_ok(tw_zip_read(zip, i, bytes, 1, copy)), "nothing is read beyond an entry");
        free(copy);
    }
    tw_zip_close(zip);
    return 0;
}
