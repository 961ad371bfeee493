/* core/arch/arch.c - the list of networks, and building one by its name. */
#include "core/arch/arch.h"

#include <string.h>

#include "core/arch/build.h"

enum {
    MAX_EMBEDDING = 4096
};

static const struct arch_info infos[] = {
    {"nn1", 220, 220, 128, "FaceNet paper, table 1: Zeiler & Fergus"},
    {"nn2", 224, 224, 128, "FaceNet paper, table 2: Inception"},
    {"nn3", 160, 160, 128, "NN2 at 160x160"},
    {"nn4", 96, 96, 128, "NN2 at 96x96, no 5x5 in the higher layers"},
    {"nns1", 165, 165, 128, "mini, built to the paper's totals"},
    {"nns2", 140, 116, 128, "tiny, built to the paper's totals"},
    {"inception_resnet_v1", 160, 160, 512, "the training script's default"},
    {"mobilefacenet", 112, 112, 128, "MobileFaceNet, small and quick"},
    {"mobilefacenet_small", 112, 112, 128, "MobileFaceNet, half as wide"},
    {"mobilefacenet_slim", 112, 112, 128, "MobileFaceNet, half as deep"},
    {"mtcnn_pnet", 0, 0, 0, "face detector, first stage, any size"},
    {"mtcnn_rnet", 24, 24, 0, "face detector, second stage"},
    {"mtcnn_onet", 48, 48, 0, "face detector, third stage: landmarks"},
    {0},
};

/* Of the same order as infos. */
static int (*const builders[])(struct build *b, int dim) = {
    nn1_build,          nn2_build,         nn3_build,        nn4_build,
    nns1_build,         nns2_build,        irv1_build,       mobile_build,
    mobile_small_build, mobile_slim_build, mtcnn_pnet_build, mtcnn_rnet_build,
    mtcnn_onet_build,
};

_Static_assert(sizeof(builders) / sizeof(builders[0]) + 1 ==
                   sizeof(infos) / sizeof(infos[0]),
               "one builder for each network");

const struct arch_info *arch_list(void)
{
    return infos;
}

const struct arch_info *arch_find(const char *name)
{
    for (const struct arch_info *a = infos; a->name; a++)
        if (!strcmp(a->name, name))
            return a;
    return NULL;
}

struct graph *arch_new(const char *name, const struct arch_options *opt,
                       struct error *err)
{
    static const struct arch_options defaults;
    const struct arch_info *info = arch_find(name);
    struct op unit = {.type = OP_LP_NORM, .u.axis = {.axis = 1, .p = 2}};
    struct build b;
    int dim, x;

    if (!info)
        return error_null(err, ERR_USAGE, "there is no network \"%.40s\"",
                          name);
    if (!opt)
        opt = &defaults;
    dim = opt->embedding_size ? opt->embedding_size : info->embedding_size;
    if (!info->embedding_size && (opt->embedding_size || opt->normalise))
        return error_null(err, ERR_USAGE, "%s gives no embedding", name);
    if (dim < (info->embedding_size ? 1 : 0) || dim > MAX_EMBEDDING)
        return error_null(err, ERR_USAGE,
                          "an embedding of %d numbers; 1 to %d can be had", dim,
                          MAX_EMBEDDING);
    if (build_init(&b, opt->seed, err))
        return build_take(&b);
    x = builders[info - infos](&b, dim);
    if (opt->normalise)
        x = build_op(&b, x, "unit", &unit);
    if (info->embedding_size)
        build_output(&b, x);
    return build_take(&b);
}
