#include "train/last_word.h"

#include <stddef.h>

static void (*how)(const char *message);
static bool said;

void tw_last_word_set(void (*say)(const char *message)) {
    how = say;
}

void tw_last_word_say(const char *message) {
    if (!how || said) return;
    said = true;
    how(message);
}

bool tw_last_word_said(void) {
    return said;
}
