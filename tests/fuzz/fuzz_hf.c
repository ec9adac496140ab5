/* The JSON files of a Hugging Face folder: config.json, preprocessor_config.json and the index of shards.
 * Each input stands for all three; the shard is a file of one tensor "t". */
#include "weights_walk.h"

#include "train/formats/hf_folder.h"

static const char SHARD[] =
    "\x40\0\0\0\0\0\0\0{\"t\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,8]}}"
    "           \0\0\x80\x3f\0\0\0\x40";

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    static const char *config;
    const char *file = fuzz_file(data, size);
    if (!config) {
        fuzz_put("a.safetensors", SHARD, sizeof SHARD - 1);
        config = fuzz_link("config.json", file);
        (void)fuzz_link("preprocessor_config.json", file);
        (void)fuzz_link("model.safetensors.index.json", file);
    }
    tw_hf_config c;
    if (fuzz_ok(tw_hf_config_read(fuzz_folder(), &c)) && c.has_image)
        fuzz_must(c.resolution > 0 && c.patch > 0 && c.image_heads > 0, "sizes are positive");
    tw_weights *w;
    if (!fuzz_ok(tw_hf_folder_open(fuzz_folder(), &w))) return 0;
    walk_weights(w, 8);
    tw_weights_close(w);
    return 0;
}
