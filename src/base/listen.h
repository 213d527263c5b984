/*
 * Listening sockets: a Unix socket's file that is there while somebody listens and gone afterwards, and TCP.
 *
 * Threads: each socket's own.
 */
#ifndef BASE_LISTEN_H
#define BASE_LISTEN_H

#include <sys/stat.h>
#include <sys/un.h>

#include "base/err.h"

struct listen_socket {
    int fd;                  /* close-on-exec, not blocking */
    struct sockaddr_un addr; /* of a Unix socket; an empty path for TCP */
    struct stat made;        /* its file, as it was made */
};

/* The socket's file replaces one that nobody listens on any more; anything else there is refused. Only its owner may connect. -errno. */
int listen_unix(struct listen_socket *s, const char *path, struct err *err) MUST_CHECK;
/* The same for a socket that keeps messages apart (SOCK_SEQPACKET). */
int listen_unix_messages(struct listen_socket *s, const char *path, struct err *err) MUST_CHECK;

/* host: a name or a numeric address; port: decimal, "0" for any that is free (listen_port() tells). -errno. */
int listen_tcp(struct listen_socket *s, const char *host, const char *port, struct err *err) MUST_CHECK;

/* The port of a TCP socket. */
unsigned listen_port(const struct listen_socket *s);

/* Closes it, and removes the socket's file if it still is the one that was made. */
void listen_close(struct listen_socket *s);

#endif
