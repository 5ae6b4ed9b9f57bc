# The kernel's own KHO is on, with areas of the sizes that it was given, and all that was handed over is there.
D=/sys/kernel/debug/kho
dmesg | grep 'KHO: scratch areas'
fails sh -c 'dmesg | grep "Failed to reserve scratch"'
grep -w kho=on /proc/cmdline
sizes=$(sed 's/.*kho_scratch=\([0-9M,]*\).*/\1/' /proc/cmdline)
IFS=, read -r low anywhere node <<-.
	$sizes
.
echo "$sizes: $(cat $D/out/scratch_len | tr '\n' ' ')"
[ "$(cat $D/out/scratch_len | tr '\n' ' ')" = "$(printf '0x%x 0x%x 0x%x ' $((${low%M} << 20)) $((${anywhere%M} << 20)) $((${node%M} << 20)))" ]
kho-guest ranges --at-least 1
[ "$(kho get token)" = sesame ]
kho doctor | grep native-kho
# Where nothing is said, that kernel's KHO is switched off; it is not on the line of the kernel after that one.
load 2>/tmp/said
cat /tmp/said
grep 'kho switches it off (kho=off:by-kho)' /tmp/said
# This kernel does not say what is loaded (CONFIG_KALLSYMS_ALL).
kho-guest loaded --bare
