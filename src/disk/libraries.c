#include "disk/libraries.h"

#include "base/library.h"

#define FUNCTION(name) LIBRARY_STUB(name)
#include "disk/libiscsi.def"
#include "disk/libnbd.def"
#undef FUNCTION

#define FUNCTION(name) LIBRARY_FUNCTION(name)
static const struct library_function nbd_functions[] = {
#include "disk/libnbd.def"
};
static const struct library_function iscsi_functions[] = {
#include "disk/libiscsi.def"
};
#undef FUNCTION

static struct library nbd = LIBRARY("libnbd.so.0", "disks on NBD servers", nbd_functions);
static struct library iscsi = LIBRARY("libiscsi.so.7", "disks on iSCSI targets", iscsi_functions);

int libraries_load_nbd(struct err *err)
{
    return library_load(&nbd, err);
}

int libraries_load_iscsi(struct err *err)
{
    return library_load(&iscsi, err);
}
