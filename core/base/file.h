/* core/base/file.h - what every file that must survive a power cut is written
 * with. Thread: any. */
#ifndef CORE_BASE_FILE_H
#define CORE_BASE_FILE_H

#include <stddef.h>

/* All of it, whatever pieces write() takes it in. -1 with errno. */
int file_write_all(int fd, const void *bytes, size_t n);
/* After a rename: the directory, too, so that the new name survives a loss of
 * power. -1 with errno. */
int file_sync_dir(const char *dir);

#endif
