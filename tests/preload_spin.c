/* Preloaded into a program: SIGUSR2 makes its main thread compute without end, wherever it is. */
#include <signal.h>
#include <stddef.h>

static void spin(int signal) {
    (void)signal;
    for (volatile double sum = 0;;) sum = sum + 1;
}

static void __attribute__((constructor)) install(void) {
    struct sigaction action = {.sa_handler = spin};
    (void)sigaction(SIGUSR2, &action, NULL);
}
