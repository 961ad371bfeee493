/* tools/ctl.h - the subcommands of facenetctl. Each gets its own name as
 * argv[0] and returns the exit status: 0, 1 (it failed) or 2 (wrong usage). */
#ifndef TOOLS_CTL_H
#define TOOLS_CTL_H

int ctl_evaluate(int argc, char **argv);

#endif
