/* What the system tells of a process or a thread in its stat file. */
#ifndef TW_DATA_PROCESS_STAT_H
#define TW_DATA_PROCESS_STAT_H

#include <stdbool.h>

enum { TW_PROCESS_STAT = 1024 };

/* Of "/proc/<pid>/stat" or "/proc/self/task/<tid>/stat": the fields behind the name, which may hold anything,
 * from the third on (proc_pid_stat(5)): "S 1 ...", the state's letter, the parent. False when there is none:
 * it has ended, or there is no /proc. */
bool tw_process_stat(const char *path, char fields[TW_PROCESS_STAT]);

#endif
