/* The first process of an emulated Linux: replays the recorded cases as each of its arguments says, and then ends the
 * emulator. An argument is THREADS:SET, with "refused" for SET where the system is to refuse the tiles of AMX.
 */
#define _GNU_SOURCE
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/io.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <termios.h>
#include <unistd.h>

#define REQUEST_STATE 0x1023
#define REFUSAL 1 /* EPERM */
#define SHUTDOWN_PORT 0x8900

/* From here on requests for more of the processor's state fail, as they do where a system does not lend it. */
static int refuse_requests(void) {
    struct sock_filter filter[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_arch_prctl, 0, 3),
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, args[0])),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, REQUEST_STATE, 0, 1),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | REFUSAL),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
    };
    struct sock_fprog program = {sizeof filter / sizeof *filter, filter};
    return prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program);
}

int main(int count, char **arguments) {
    for (int i = 1; i < count; i++) {
        char *set = strchr(arguments[i], ':');
        if (!set) continue;
        *set++ = 0;
        pid_t child = fork();
        if (!child) {
            int refused = !strcmp(set, "refused");
            if (refused && refuse_requests()) perror("the filter of system calls");
            else {
                setenv("EDGEPRESS_KERNELS", refused ? "" : set, 1);
                dup2(1, 2);
                execl("/replay", "replay", "/cases", "/kernels.so", arguments[i], (char *)NULL);
                perror("/replay");
            }
            _exit(2);
        }
        int status = -1;
        waitpid(child, &status, 0);
        printf("guest: %s ended with %d\n", set, WIFEXITED(status) ? WEXITSTATUS(status) : -WTERMSIG(status));
        fflush(stdout);
    }
    tcdrain(1);
    if (!iopl(3))
        for (const char *letter = "Shutdown"; *letter; letter++) outb((unsigned char)*letter, SHUTDOWN_PORT);
    return 0;
}
