/* The few operations on files and folders that reading and writing data sets and models need. */
#ifndef TW_DATA_FILES_H
#define TW_DATA_FILES_H

#include "autograd/status.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

/* Makes a folder and the ones above it. Existing ones are fine. */
TW_MUST_CHECK tw_status tw_make_folders(const char *path);
/* Makes the entries of a folder durable. */
TW_MUST_CHECK tw_status tw_sync_folder(const char *path);
/* Removes a folder that holds files, or folders of files, and nothing deeper. For what this program made. */
void tw_remove_folder(const char *path);
/* Splits "a/b/c" (or "a/b/c/") into parent "a/b" and name "c"; a path without "/" has the parent ".". Both
 * outputs hold `size` bytes. TW_ERR_ARGUMENT: too long, or no name, as "/" or "..". */
TW_MUST_CHECK tw_status tw_split_path(const char *path, char *parent, char *name, size_t size);
/* "folder/name" in one string, to be freed by the caller; NULL when memory is out. */
char *tw_path_join(const char *folder, const char *name);
/* True for a folder or a link to one. */
bool tw_is_folder(const char *path);
/* Opens a regular file for reading. Whatever else bears the name is refused at once: opening a pipe that
 * nobody writes to would wait for ever. TW_ERR_NOT_FOUND: no such file; TW_ERR_IO with the reason. */
TW_MUST_CHECK tw_status tw_open_file(const char *path, int *fd);
/* The same as a stream. Here the path may also name what the program was started with, of any kind:
 * /dev/stdin, /dev/fd/N or /proc/self/fd/N, as the shell's <(command) does. */
TW_MUST_CHECK tw_status tw_open_stream(const char *path, FILE **out);
/* Reads exactly the `size` bytes of an open file that begin at byte `at`, however the system cuts them: 0, an
 * errno, or TW_READ_SHORT where the file ends before. What that means is the caller's to say. */
enum { TW_READ_SHORT = -1 };
TW_MUST_CHECK int tw_read_at(int fd, uint64_t at, void *to, size_t size);
/* Writes all of them: 0 or an errno. */
TW_MUST_CHECK int tw_write_at(int fd, uint64_t at, const void *from, size_t size);
/* A whole file, opened as by tw_open_stream, into memory, freed with free(). */
TW_MUST_CHECK tw_status tw_read_file(const char *path, uint8_t **data, size_t *size);

#endif
