/* The target description (GDB manual, appendix G): tells gdb which registers there are. Pure. */
#ifndef GDB_GDB_TARGET_H
#define GDB_GDB_TARGET_H

#include <stddef.h>

#define GDB_TARGET_XML_MAX 0x3000 /* enough for all of it */

/* Writes target.xml to buf as far as it has room, with a NUL; returns its length, as snprintf. */
size_t gdb_target_xml(char *buf, size_t size);

#endif
