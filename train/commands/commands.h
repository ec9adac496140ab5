/* The commands of commands.def.
 *
 * argv[0] is the command's name, argv[1] to argv[argc - 1] its arguments; argv[argc] is NULL. A command
 * writes its result to standard output, never prints an error, and returns it for main to print:
 * TW_ERR_CONFIG ends the program with exit code 2, TW_ERR_INTERRUPTED with tw_stop_exit_code(), any other
 * error with 1. Every command has --help with an example, see train/options.h. */
#ifndef TW_TRAIN_COMMANDS_COMMANDS_H
#define TW_TRAIN_COMMANDS_COMMANDS_H

#include "autograd/status.h"

#define COMMAND(name, summary) tw_status tw_command_##name(int argc, char **argv) TW_MUST_CHECK;
#include "train/commands/commands.def"
#undef COMMAND

#endif
