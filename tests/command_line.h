/* Commands as users call them, in a folder of the test's own that is entered. */
#ifndef TW_TESTS_COMMAND_LINE_H
#define TW_TESTS_COMMAND_LINE_H

#include "own_folder.h"
#include "train/commands/commands.h"
#include "train/formats/features.h"

#include <stdarg.h>

static inline void enter_folder(void) {
    ck_assert_int_eq(chdir(own_folder()), 0);
}

static inline void leave_folder(void) {
    ck_assert_int_eq(chdir("/"), 0);
    remove_folder();
}

/* The words of the formatted line are the command's arguments. */
__attribute__((format(printf, 2, 3))) static inline tw_status run(tw_status (*command)(int, char **),
                                                                  const char *format, ...) {
    char line[2048], *argv[64] = {(char *)"command"}, *rest = NULL;
    int argc = 1;
    va_list list;
    va_start(list, format);
    vsnprintf(line, sizeof line, format, list);
    va_end(list);
    for (char *word = strtok_r(line, " ", &rest); word; word = strtok_r(NULL, " ", &rest))
        argv[argc++] = word;
    argv[argc] = NULL;
    return command(argc, argv);
}

static inline tw_features *load(const char *path) {
    tw_features *f;
    TW_ASSERT_OK(tw_features_load(path, &f));
    return f;
}

#endif
