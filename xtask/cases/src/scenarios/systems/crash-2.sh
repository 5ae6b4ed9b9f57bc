# The crash kernel has written the dump of the crashed kernel, and rebooted the machine through the firmware.
ready
case $KHO_RELEASE in @OWN@.*) ;; *) echo "this is $KHO_RELEASE"; exit 1 ;; esac
says "nothing: this was an ordinary boot" kho status
fails grep -q rdinit /proc/cmdline
find /var/crash -type f -ls
dump=$(find /var/crash -name 'dump.*')
[ "$(echo "$dump" | wc -l)" = 1 ]
# The dump is complete, comes from makedumpfile, and has the log of the kernel that the hop had reached.
case $dump in *incomplete*) exit 1 ;; esac
[ "$(stat -c %s "$dump")" -gt 5000000 ]
# kdump-tools writes the dump as a stream.
makedumpfile -R /var/tmp/vmcore < "$dump"
[ "$(head -c 5 /var/tmp/vmcore)" = KDUMP ]
grep -q 'sysrq triggered crash' /var/crash/*/dmesg.*
grep -q 'Command line: .*rdinit=/.kho/arrive' /var/crash/*/dmesg.*
journalctl --list-boots --no-pager
clean_journal 0
