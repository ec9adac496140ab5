/* The program `tuwen`: finds the command, prints its error, and turns its status into an exit code. */
#include "autograd/status.h"
#include "train/comm_open.h"
#include "train/commands/commands.h"
#include "train/config.h"
#include "train/last_word.h"
#include "train/launch.h"
#include "train/signals.h"
#include "train/values.h"

#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { EXIT_USAGE = 2 };

typedef struct command {
    const char *name, *summary;
    tw_status (*run)(int argc, char **argv);
} command;

static const command commands[] = {
#define COMMAND(name, summary) {#name, summary, tw_command_##name},
#include "train/commands/commands.def"
#undef COMMAND
};

enum { COMMANDS = sizeof commands / sizeof commands[0] };

static void print_help(FILE *out) {
    fputs("usage: tuwen COMMAND [options]\n\n"
          "tuwen (图文) fine-tunes Chinese image-text dual encoders: checkpoints in, your images and "
          "captions in,\n"
          "a better model, its features and its R@1 out.\n\ncommands:\n",
          out);
    for (size_t i = 0; i < COMMANDS; i++) fprintf(out, "  %-12s%s\n", commands[i].name, commands[i].summary);
    fputs("\n  tuwen COMMAND --help        a command's options, with an example\n"
          "  tuwen --version             the version\n"
          "  tuwen --configuration-markdown  docs/configuration.md\n"
          "  --debug, with any command   errors also name the source line that raised them\n\n"
          "exit codes: 0 done, 1 failed, 2 usage, 129, 130 and 143 stopped by SIGHUP, SIGINT and SIGTERM\n",
          out);
}

static const command *find_command(const char *name) {
    for (size_t i = 0; i < COMMANDS; i++)
        if (strcmp(commands[i].name, name) == 0) return &commands[i];
    return NULL;
}

static int unknown_command(const char *name) {
    const char *names[COMMANDS];
    for (size_t i = 0; i < COMMANDS; i++) names[i] = commands[i].name;
    const char *nearest = tw_nearest_name(name, names, COMMANDS);
    if (nearest)
        fprintf(stderr, "tuwen: unknown command '%s'; did you mean '%s'?\n", name, nearest);
    else
        fprintf(stderr, "tuwen: unknown command '%s'; 'tuwen --help' lists the commands\n", name);
    return EXIT_USAGE;
}

/* Takes --debug out of the arguments before "--": it belongs to every command. */
static bool take_debug(int *argc, char **argv) {
    int kept = 0;
    bool debug = false, ended = false;
    for (int i = 0; i < *argc; i++) {
        if (strcmp(argv[i], "--") == 0) ended = true;
        if (!ended && strcmp(argv[i], "--debug") == 0)
            debug = true;
        else
            argv[kept++] = argv[i];
    }
    argv[kept] = NULL;
    *argc = kept;
    return debug;
}

static int exit_code(tw_status status) {
    if (status == TW_ERR_CONFIG) return EXIT_USAGE;
    if (status == TW_ERR_INTERRUPTED) return tw_stop_exit_code();
    return EXIT_FAILURE;
}

/* A full disk or a closed pipe is noticed here at the latest. */
static int finish_output(void) {
    if (fflush(stdout) == 0 && !ferror(stdout)) return EXIT_SUCCESS;
    fputs("tuwen: standard output cannot be written\n", stderr);
    return EXIT_FAILURE;
}

static const char *command_name;

static void say_error(const char *message) {
    fprintf(stderr, "tuwen %s: %s\n", command_name, message);
}

/* An error found before the ranks know of each other is one of all of them as a rule. Rank 0 says it, and its
 * end makes the launcher end the others. Who is still there after a while has an error of its own: a recipe
 * that is another file on its host. */
static void say_last_error(void) {
    enum { SECONDS = 5 };
    tw_launch launch = tw_launch_find();
    if (tw_last_word_said()) return;
    if (launch.rank == 0 || tw_comm_was_opened()) {
        say_error(tw_last_error());
        return;
    }
    sleep(SECONDS);
    fprintf(stderr, "tuwen %s: rank %d of %d: %s\n", command_name, launch.rank, launch.ranks,
            tw_last_error());
}

static int run_command(const command *found, int argc, char **argv, bool debug) {
    command_name = found->name;
    tw_last_word_set(say_error);
    tw_status status = found->run(argc, argv);
    int output = finish_output();
    if (status == TW_OK) return output;
    if (status == TW_ERR_INTERRUPTED && tw_launch_find().rank > 0)
        return exit_code(status); /* rank 0 says it */
    say_last_error();
    if (debug) fprintf(stderr, "raised at %s (%s)\n", tw_last_error_place(), tw_status_name(status));
    return exit_code(status);
}

int main(int argc, char **argv) {
    bool debug = take_debug(&argc, argv);
    if (argc < 2) {
        print_help(stderr);
        return EXIT_USAGE;
    }
    const char *name = argv[1];
    if (strcmp(name, "--help") == 0 || strcmp(name, "-h") == 0 || strcmp(name, "help") == 0) {
        print_help(stdout);
        return finish_output();
    }
    if (strcmp(name, "--version") == 0) {
        printf("tuwen %s\n", TW_VERSION);
        return finish_output();
    }
    if (strcmp(name, "--configuration-markdown") == 0) {
        tw_config_write_markdown(stdout);
        return finish_output();
    }
    const command *found = find_command(name);
    if (!found) return unknown_command(name);
    return run_command(found, argc - 1, argv + 1, debug);
}
