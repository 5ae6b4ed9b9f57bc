grep -w kho=off:by-kho /proc/cmdline
fails sh -c 'dmesg | grep "KHO: scratch areas"'
[ ! -e /sys/kernel/debug/kho/out/scratch_len ]
kho-guest ranges --at-least 1
kho status | grep '400 MiB.*/srv/large'
[ "$(kho get token)" = sesame ]
# A copy of this line means the same, and the line is no longer with every hop.
K=$(find /media -name bzImage | head -n 1)
plan() { kho plan "$K" --initrd "$(dirname "$K")/initrd" --json "$@" >/tmp/plan; }
plan --command-line "$(cat /proc/cmdline)"
[ "$(grep '"command_line"' /tmp/plan | grep -o by-kho | wc -l)" = "$(grep -c native_kho_added.*by-kho /tmp/plan)" ]
plan --reuse-cmdline --append kho=on
fails grep by-kho /tmp/plan
