#include "net/user_library.h"

#include "base/library.h"

#define FUNCTION(name) LIBRARY_STUB(name)
#include "net/libslirp.def"
#undef FUNCTION

#define FUNCTION(name) LIBRARY_FUNCTION(name)
static const struct library_function functions[] = {
#include "net/libslirp.def"
};
#undef FUNCTION

static struct library slirp = LIBRARY("libslirp.so.0", "user-mode NAT", functions);

int user_library_load(struct err *err)
{
    return library_load(&slirp, err);
}
