/* core/engine/backend.c - the names of what backend.h counts up, as settings,
 * options and answers spell them. */
#include "core/engine/backend.h"

#include <string.h>

static const char *const names[] = {
    [PRECISION_AUTO] = "auto", [PRECISION_F32] = "f32",
    [PRECISION_BF16] = "bf16", [PRECISION_F16] = "f16",
    [PRECISION_TF32] = "tf32",
};

const char *precision_name(enum precision p)
{
    return names[p];
}

bool precision_parse(const char *name, enum precision *out)
{
    for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
        if (strcmp(names[i], name) != 0)
            continue;
        *out = (enum precision)i;
        return true;
    }
    return false;
}
