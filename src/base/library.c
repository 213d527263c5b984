#include "base/library.h"

#include <dlfcn.h>
#include <errno.h>

static int load(struct library *library, struct err *err)
{
    void *handle = dlopen(library->file, RTLD_NOW | RTLD_LOCAL);

    if (!handle)
        return err_set(err, -ENOENT, "%s, for %s, cannot be loaded: %s", library->file, library->purpose, dlerror());
    for (size_t i = 0; i < library->n; i++) {
        *library->functions[i].slot = dlsym(handle, library->functions[i].name);
        if (!*library->functions[i].slot)
            return err_set(err, -ENOENT, "%s, for %s, is too old: it lacks %s", library->file, library->purpose,
                           library->functions[i].name);
    }
    library->loaded = true; /* for good */
    return 0;
}

int library_load(struct library *library, struct err *err)
{
    pthread_mutex_lock(&library->lock);
    int r = library->loaded ? 0 : load(library, err);
    pthread_mutex_unlock(&library->lock);
    return r;
}
