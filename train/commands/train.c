#include "train/commands/commands.h"
#include "train/trainer.h"

#include <string.h>

tw_status tw_command_train(int argc, char **argv) {
    static const tw_options options = {
        .command = "train",
        .summary = "Fine-tunes a dual encoder, or trains one from random weights.",
        .example =
            "tuwen train --config configs/finetune/shapes_tiny_cpu.yaml --train_data data/lmdb/train \\\n"
            "    --val_data data/lmdb/valid --output runs/shapes\n"
            "tuwen train --config runs/recipe.yaml --output runs/one --resume latest",
    };
    tw_config config;
    bool help = false;
    tw_status status = tw_config_init(&config);
    if (status == TW_OK) status = tw_config_parse_args(argc, argv, &config, &options, &help);
    if (status == TW_OK && !help) status = tw_train(&config);
    tw_config_free(&config);
    return status;
}
