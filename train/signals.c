#include "train/signals.h"

#include <errno.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* Lock-free atomics may be used in a handler and, unlike sig_atomic_t, read from other threads. */
static atomic_int first_signal;
static atomic_bool file_seen;

static void note_signal(int number) {
    int none = 0;
    atomic_compare_exchange_strong(&first_signal, &none, number);
}

tw_status tw_signals_install(void) {
    static const int numbers[] = {SIGINT, SIGTERM, SIGUSR1, SIGHUP};
    for (size_t i = 0; i < sizeof numbers / sizeof numbers[0]; i++) {
        struct sigaction before;
        /* nohup: the run is to outlive its terminal. */
        if (numbers[i] == SIGHUP && sigaction(SIGHUP, NULL, &before) == 0 && before.sa_handler == SIG_IGN)
            continue;
        struct sigaction action = {.sa_handler = note_signal, .sa_flags = SA_RESTART};
        /* The system puts SIGINT's default back on the first one: the second ends the process. */
        if (numbers[i] == SIGINT) action.sa_flags |= (int)SA_RESETHAND;
        sigemptyset(&action.sa_mask);
        if (sigaction(numbers[i], &action, NULL) != 0)
            return FAIL(TW_ERR_IO, "the handler of signal %d cannot be installed: %s", numbers[i],
                        strerror(errno));
    }
    return TW_OK;
}

bool tw_stop_requested(const char *stop_file) {
    if (atomic_load(&first_signal) != 0) return true;
    if (stop_file && stop_file[0] && access(stop_file, F_OK) == 0) atomic_store(&file_seen, true);
    return atomic_load(&file_seen);
}

void tw_stop_note(int signal_number) {
    if (signal_number)
        note_signal(signal_number);
    else
        atomic_store(&file_seen, true);
}

tw_status tw_stop_agree(tw_comm *c, bool asked, bool *stop) {
    int mine[2] = {asked, tw_stop_signal()};
    int(*all)[2] = calloc((size_t)c->ranks, sizeof *all);
    *stop = false;
    if (!all) return FAIL(TW_ERR_MEMORY, "out of memory");
    tw_status status = c->gather_all(c, mine, sizeof mine, all);
    for (int r = 0; status == TW_OK && r < c->ranks; r++) {
        if (!all[r][0]) continue;
        tw_stop_note(all[r][1]);
        *stop = true;
    }
    free(all);
    return status;
}

int tw_stop_signal(void) {
    return atomic_load(&first_signal);
}

const char *tw_stop_reason(void) {
    switch (tw_stop_signal()) {
    case SIGINT:
        return "SIGINT";
    case SIGTERM:
        return "SIGTERM";
    case SIGUSR1:
        return "SIGUSR1";
    case SIGHUP:
        return "SIGHUP";
    default:
        return atomic_load(&file_seen) ? "the stop file" : "nothing";
    }
}

int tw_stop_exit_code(void) {
    int number = tw_stop_signal();
    return number == SIGINT || number == SIGTERM || number == SIGHUP ? 128 + number : 0;
}

tw_status tw_stop_file_remove(const char *stop_file) {
    if (!stop_file || !stop_file[0] || unlink(stop_file) == 0 || errno == ENOENT) return TW_OK;
    return FAIL(TW_ERR_IO, "%s: the stop file cannot be removed: %s", stop_file, strerror(errno));
}

void tw_stop_reset(void) {
    atomic_store(&first_signal, 0);
    atomic_store(&file_seen, false);
}
