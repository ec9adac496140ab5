/* The options of every command that encodes with a checkpoint, as rows of its tw_option table; `o` is a
 * tw_encoder_options. */
#ifndef TW_TRAIN_COMMANDS_ENCODER_OPTIONS_H
#define TW_TRAIN_COMMANDS_ENCODER_OPTIONS_H

#include "train/device_open.h"
#include "train/encoder.h"
#include "train/options.h"

#define TW_ENCODER_OPTION_ROWS(o)                                                                            \
    {.name = "checkpoint",                                                                                   \
     .type = TW_OPTION_STRING,                                                                               \
     .target = &(o).checkpoint,                                                                              \
     .value = "FILE",                                                                                        \
     .help = "checkpoint, run folder (its latest one), original .pt, safetensors or Hugging Face folder"},   \
        {.name = "vocab",                                                                                    \
         .type = TW_OPTION_STRING,                                                                           \
         .target = &(o).vocab,                                                                               \
         .value = "FILE",                                                                                    \
         .help = "vocabulary; without it the checkpoint's, or vocab.txt beside it"},                         \
        {.name = "model",                                                                                    \
         .type = TW_OPTION_STRING,                                                                           \
         .target = &(o).model,                                                                               \
         .value = "NAME",                                                                                    \
         .help = "description in configs/models, or YAML file; only where shapes do not say all"},           \
        {.name = "resolution",                                                                               \
         .type = TW_OPTION_INT,                                                                              \
         .target = &(o).resolution,                                                                          \
         .range = "[0, 4096]",                                                                               \
         .help = "image side; another one than the model's resizes its positions; 0 = the model's"},         \
        {.name = "context_length",                                                                           \
         .type = TW_OPTION_INT,                                                                              \
         .target = &(o).context_length,                                                                      \
         .range = "[0, 512]",                                                                                \
         .help = "tokens a text; 0 = the model's"},                                                          \
        {.name = "precision",                                                                                \
         .type = TW_OPTION_CHOICE,                                                                           \
         .target = &(o).precision,                                                                           \
         .choices = "f32|bf16",                                                                              \
         .help = "type of activations and products; features are f32"},                                      \
        {.name = "device",                                                                                   \
         .type = TW_OPTION_CHOICE,                                                                           \
         .target = &(o).device,                                                                              \
         .choices = TW_DEVICE_CHOICES,                                                                       \
         .help = TW_DEVICE_HELP},                                                                            \
        {.name = "batch",                                                                                    \
         .type = TW_OPTION_INT,                                                                              \
         .target = &(o).batch,                                                                               \
         .range = "[1, 65536]",                                                                              \
         .help = "images or texts at a time"},                                                               \
        {.name = "num_workers",                                                                              \
         .type = TW_OPTION_INT,                                                                              \
         .target = &(o).num_workers,                                                                         \
         .range = "[1, 64]",                                                                                 \
         .help = "threads that decode images"},                                                              \
    {                                                                                                        \
        .name = "threads", .type = TW_OPTION_INT, .target = &(o).threads, .range = "[0, 1024]",              \
        .help = "compute threads; 0 = all cores, or as many as a CPU quota allows, in equal shares where "   \
                "ranks share a host"                                                                         \
    }

#endif
