/* Requests to stop, noticed between steps, between the micro-batches of a step and between the batches of a
 * validation: SIGINT, SIGTERM, SIGUSR1, SIGHUP, or a file that appears. */
#ifndef TW_TRAIN_SIGNALS_H
#define TW_TRAIN_SIGNALS_H

#include "autograd/comm.h"

#include <stdbool.h>

/* Installs the handlers, for the whole process. The first signal only leaves a note; a second SIGINT ends the
 * process at once. SIGHUP stays ignored where it is (nohup). System calls are restarted. Errors: TW_ERR_IO.
 */
tw_status tw_signals_install(void) TW_MUST_CHECK;

/* True once a signal came, or once `stop_file` exists (NULL or "": no file is looked for). Costs one system
 * call with a file and none without; to be asked between pieces of work, from any thread. */
bool tw_stop_requested(const char *stop_file);
/* The first signal that asked to stop; 0 if none did (or a file alone). */
int tw_stop_signal(void);
/* Notes a request that came to another rank: its signal, or 0 for a stop file. One noted earlier stays. */
void tw_stop_note(int signal_number);
/* Collective. *stop: a rank was asked to, `asked` being this one's answer; all have noted what the first of
 * them got. */
tw_status tw_stop_agree(tw_comm *c, bool asked, bool *stop) TW_MUST_CHECK;
/* "SIGTERM", "the stop file" or, when nothing asked, "nothing". */
const char *tw_stop_reason(void);
/* The exit code of a command that returned TW_ERR_INTERRUPTED: 129 for SIGHUP, 130 for SIGINT, 143 for
 * SIGTERM, else 0. */
int tw_stop_exit_code(void);
/* Removes a stop file that has done its work, so that the resumed run does not stop at once. A file that is
 * not there is no error. Errors: TW_ERR_IO. */
tw_status tw_stop_file_remove(const char *stop_file) TW_MUST_CHECK;
/* Forgets what came, for tests and for programs that train more than once. */
void tw_stop_reset(void);

#endif
