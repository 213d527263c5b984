/* Packets that ask (q), and `monitor` commands, which come as one of them. Threads: the loop's. */
#ifndef GDB_GDB_QUERY_H
#define GDB_GDB_QUERY_H

#include "gdb/gdb_session.h"

/* Answers the packet; false, and no answer, where it is no query that is known. */
bool gdb_query_run(struct gdb_session *s, const char *packet) MUST_CHECK;

#endif
