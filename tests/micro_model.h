/* A checkpoint of a very small model with random weights, for tests that need some model and not a good one.
 */
#ifndef TW_TESTS_MICRO_MODEL_H
#define TW_TESTS_MICRO_MODEL_H

#include "autograd/device.h"
#include "data/tokenizer.h"
#include "train/model_file.h"
#include "train/model_io.h"
#include "tw_test.h"

enum { MICRO_EMBED = 16, MICRO_RESOLUTION = 32, MICRO_CONTEXT = 32 };

/* Random weights, and the vocabulary of vocab_path inside; settings: the run's, or NULL. */
static inline void make_micro_model_of(const char *path, const char *vocab_path, uint64_t seed,
                                       const char *settings) {
    static const char yaml[] =
        "name: micro\nembed_dim: 16\ncontext_length: 32\n"
        "image:\n  resolution: 32\n  patch: 16\n  width: 32\n  layers: 1\n  heads: 2\n"
        "text:\n  vocabulary: 0\n  positions: 32\n  types: 2\n  hidden: 32\n  layers: 1\n"
        "  heads: 2\n  intermediate: 64\n";
    tw_model_config config;
    tw_vocab *vocab;
    tw_device *device;
    tw_dual_encoder *model;
    tw_snapshot snapshot;
    tw_checkpoint_meta meta;
    TW_ASSERT_OK(tw_model_config_parse(yaml, strlen(yaml), "micro", &config));
    TW_ASSERT_OK(tw_vocab_load(vocab_path, &vocab));
    config.text.vocabulary = tw_vocab_size(vocab);
    TW_ASSERT_OK(tw_device_cpu(1, &device));
    TW_ASSERT_OK(tw_dual_encoder_create(&config, &model));
    TW_ASSERT_OK(tw_dual_encoder_allocate(model, device, TW_F32, false));
    TW_ASSERT_OK(tw_params_initialise(model->params, seed));
    TW_ASSERT_OK(tw_model_snapshot(model, NULL, true, NULL, &snapshot));
    tw_checkpoint_meta_init(&meta);
    TW_ASSERT_OK(tw_model_config_to_yaml(&config, &meta.model_yaml));
    meta.vocab = (char *)(uintptr_t)tw_vocab_text(vocab, &meta.vocab_bytes);
    meta.config_yaml = (char *)(uintptr_t)settings;
    TW_ASSERT_OK(tw_checkpoint_write(path, &meta, snapshot.tensors, snapshot.n));
    meta.vocab = NULL, meta.config_yaml = NULL;
    tw_checkpoint_meta_free(&meta);
    tw_snapshot_free(&snapshot);
    tw_dual_encoder_free(model);
    tw_device_free(device);
    tw_vocab_free(vocab);
}

static inline void make_micro_model(const char *path, const char *vocab_path, uint64_t seed) {
    make_micro_model_of(path, vocab_path, seed, NULL);
}

#endif
