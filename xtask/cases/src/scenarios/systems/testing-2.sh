ready
grep by_entry /proc/cmdline
says "nothing: this was an ordinary boot" kho status
journal_says -1 "NOTHING IS HANDED OVER: a kernel is loaded, but not by kho, and 1 entry is kept"
journal_says -1 "the kernel that somebody else loaded starts without a handover"
clean_journal 0
# If a kernel is armed beforehand, systemd does not load the entry.
boot_loader_entry 7
arm 7
kho status > /tmp/said 2>&1
fails grep 'systemctl kexec would load' /tmp/said
echo changed > /srv/must/file
