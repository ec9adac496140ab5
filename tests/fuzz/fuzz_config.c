/* Configurations and model descriptions in YAML; what is read is written and read again. */
#include "fuzz.h"

#include "train/config.h"
#include "train/model_file.h"

#include <stdlib.h>
#include <string.h>

static void fuzz_training(const char *text, size_t size) {
    tw_config a, b;
    char *yaml = NULL;
    fuzz_must(fuzz_ok(tw_config_init(&a)) && fuzz_ok(tw_config_init(&b)), "the defaults are good");
    if (fuzz_ok(tw_config_parse_yaml(text, size, "fuzz.yaml", &a)) && fuzz_ok(tw_config_check(&a))) {
        fuzz_must(fuzz_ok(tw_config_to_yaml(&a, &yaml)), "a configuration can be written");
        fuzz_must(fuzz_ok(tw_config_parse_yaml(yaml, strlen(yaml), "again.yaml", &b)), "and read again");
        fuzz_must(tw_config_difference(&a, &b) == NULL, "with equal values");
    }
    free(yaml);
    tw_config_free(&a);
    tw_config_free(&b);
}

static void fuzz_model(const char *text, size_t size) {
    tw_model_config a, b;
    char *yaml = NULL, *again = NULL;
    if (!fuzz_ok(tw_model_config_parse(text, size, "fuzz.yaml", &a))) return;
    fuzz_must(fuzz_ok(tw_model_config_to_yaml(&a, &yaml)), "a model can be written");
    fuzz_must(fuzz_ok(tw_model_config_parse(yaml, strlen(yaml), "again.yaml", &b)), "and read again");
    fuzz_must(fuzz_ok(tw_model_config_to_yaml(&b, &again)) && strcmp(yaml, again) == 0, "with equal values");
    free(yaml);
    free(again);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    fuzz_training((const char *)data, size);
    fuzz_model((const char *)data, size);
    return 0;
}
